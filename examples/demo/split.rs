//! Which combinations training never sees.
//!
//! Every colour, shape, size and relation is common in training; only combinations are held out:
//!
//! - of colour and shape: cyan cubes, purple spheres, blue cylinders, red cones (4 of 28);
//! - of relation and colours, one in seven: with colours numbered as in [`Colour::ALL`] from 0, `a`
//!   and `b` so related are held out where `a + 3 b + k` is a multiple of 7, `k` being 0 for `a` on
//!   top of `b`, 1 for `a` to the left of `b` (the same as `b` to the right of `a`) and 2 for `a` in
//!   front of `b` (the same as `b` behind `a`).
//!
//! "A red cube on top of a blue cube" is in training. The second rule is about relations that a
//! scene was made for and captions state; objects that just stand together may happen to be so.

use super::{
    layout::Plan,
    rng::Rng,
    world::{Colour, Object, Relation, Scene, Shape},
};

/// Parts of all scenes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// What training sees.
    Train,
    /// What it never sees.
    HeldOut,
}

/// Whether objects of this colour and shape are held out.
pub fn is_pair_held_out(colour: Colour, shape: Shape) -> bool {
    matches!(
        (colour, shape),
        (Colour::Cyan, Shape::Cube)
            | (Colour::Purple, Shape::Sphere)
            | (Colour::Blue, Shape::Cylinder)
            | (Colour::Red, Shape::Cone)
    )
}

/// Whether this relation of objects of these colours is held out.
pub fn is_triple_held_out(relation: Relation, first: Colour, second: Colour) -> bool {
    let (kind, a, b) = match relation {
        Relation::OnTopOf => (0, first, second),
        Relation::LeftOf => (1, first, second),
        Relation::RightOf => (1, second, first),
        Relation::InFrontOf => (2, first, second),
        Relation::Behind => (2, second, first),
    };
    (a as usize + 3 * b as usize + kind).is_multiple_of(7)
}

/// Whether a scene has a combination that is held out.
pub fn is_held_out(scene: &Scene) -> bool {
    let pair = |object: &Object| is_pair_held_out(object.colour, object.shape);
    let triple = match (scene.relation, &scene.objects[..]) {
        (Some(relation), [a, b, ..]) => is_triple_held_out(relation, a.colour, b.colour),
        _ => false,
    };
    triple || scene.objects.iter().any(pair)
}

/// The part that a scene belongs to.
pub fn split_of(scene: &Scene) -> Split {
    if is_held_out(scene) {
        Split::HeldOut
    } else {
        Split::Train
    }
}

/// A scene of a part, the same for a seed on every machine.
pub fn scene_of(split: Split, seed: u64) -> Scene {
    planned(split, seed, Plan::draw)
}

fn planned(split: Split, seed: u64, draw: fn(&mut Rng) -> Plan) -> Scene {
    let mut rng = Rng::new(seed);
    let mut plan = draw(&mut rng);
    for tries in 1.. {
        let scene = Scene::of_plan(plan, &mut rng);
        if split_of(&scene) == split {
            return scene;
        }
        // Keeping the plan keeps relations as common as in all scenes.
        if tries % 100 == 0 {
            plan = draw(&mut rng);
        }
    }
    unreachable!("every plan has scenes of both parts")
}

/// A scene that training may see.
pub fn train_scene(seed: u64) -> Scene {
    scene_of(Split::Train, seed)
}

/// A scene that training may see, more often of several objects than others.
pub fn busy_train_scene(seed: u64) -> Scene {
    planned(Split::Train, seed, Plan::draw_busy)
}

/// A scene of a combination that training never sees.
pub fn held_out_scene(seed: u64) -> Scene {
    scene_of(Split::HeldOut, seed)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn about_one_in_seven_combinations_is_held_out() {
        let mut triples = 0;
        for relation in Relation::ALL {
            for a in Colour::ALL {
                triples += Colour::ALL
                    .iter()
                    .filter(|&&b| a != b && is_triple_held_out(relation, a, b))
                    .count();
            }
        }
        assert_eq!(triples, 30, "of 210");
    }

    #[test]
    fn the_red_cube_on_the_blue_one_is_in_training() {
        assert!(!is_triple_held_out(
            Relation::OnTopOf,
            Colour::Red,
            Colour::Blue
        ));
        assert!(!is_pair_held_out(Colour::Red, Shape::Cube));
        assert!(!is_pair_held_out(Colour::Blue, Shape::Cube));
    }

    #[test]
    fn left_and_right_are_held_out_together() {
        for a in Colour::ALL {
            for b in Colour::ALL {
                let left = is_triple_held_out(Relation::LeftOf, a, b);
                assert_eq!(left, is_triple_held_out(Relation::RightOf, b, a));
            }
        }
    }

    #[test]
    fn training_sees_everything_often() {
        let mut seen = HashMap::<String, usize>::new();
        for seed in 0..3000 {
            let scene = train_scene(seed);
            assert!(!is_held_out(&scene));
            for object in &scene.objects {
                *seen.entry(format!("{:?}", object.colour)).or_default() += 1;
                *seen.entry(format!("{:?}", object.shape)).or_default() += 1;
                *seen.entry(format!("{:?}", object.size)).or_default() += 1;
            }
            *seen.entry(format!("{:?}", scene.relation)).or_default() += 1;
        }
        assert_eq!(seen.len(), 7 + 4 + 3 + 6);
        assert!(seen.values().all(|&count| count > 150), "{seen:?}");
    }

    #[test]
    fn busy_scenes_have_more_objects() {
        let objects = |scene: fn(u64) -> Scene| -> usize {
            (0..1000).map(|seed| scene(seed).objects.len()).sum()
        };
        assert!(objects(busy_train_scene) > objects(train_scene) + 300);
        assert!((0..1000).all(|seed| !is_held_out(&busy_train_scene(seed))));
    }

    #[test]
    fn a_seed_gives_one_scene() {
        assert_eq!(train_scene(5), train_scene(5));
        assert_ne!(train_scene(5), train_scene(6));
        assert!(is_held_out(&held_out_scene(5)));
    }
}
