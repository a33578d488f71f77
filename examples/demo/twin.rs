//! Scenes that differ from another in one thing only, for contrasts that a network must see.

use std::fmt;

use super::{
    layout,
    rng::Rng,
    split::is_held_out,
    world::{Background, Colour, Object, Relation, Scene, Shape, Size},
};

/// What a twin differs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Two objects' colours are exchanged, or one object has another.
    Colour,
    /// Two objects' shapes are exchanged, or one object has another.
    Shape,
    /// One object has another size.
    Size,
    /// The first two objects stand the other way around, or otherwise; without a relation, the floor
    /// is another.
    Place,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Colour => "colour",
            Self::Shape => "shape",
            Self::Size => "size",
            Self::Place => "place",
        })
    }
}

/// The same scene but for one thing; nothing where no such scene is found, for instance where all
/// are of held-out combinations.
pub fn twin(scene: &Scene, change: Change, rng: &mut Rng) -> Option<Scene> {
    (0..20)
        .filter_map(|_| changed(scene, change, rng))
        .find(|twin| !is_held_out(twin))
}

fn changed(scene: &Scene, change: Change, rng: &mut Rng) -> Option<Scene> {
    let mut twin = scene.clone();
    match change {
        // Nothing moves.
        Change::Colour => {
            colour(&mut twin.objects, rng);
            return Some(twin);
        }
        Change::Shape => shape(&mut twin.objects, rng),
        Change::Size => {
            let object = rng.below(twin.objects.len());
            let size = &mut twin.objects[object].size;
            *size = another(&Size::ALL, *size, rng);
        }
        Change::Place => match twin.relation {
            None => {
                twin.background = another(&Background::ALL, twin.background, rng);
                return Some(twin);
            }
            Some(relation) => twin.relation = Some(turned(relation, &mut twin.objects, rng)),
        },
    }
    twin.objects = layout::placed(&twin.objects, twin.relation, rng)?;
    twin.camera = layout::frame(&twin.objects, rng)?;
    Some(twin)
}

fn another<T: Copy + PartialEq>(all: &[T], one: T, rng: &mut Rng) -> T {
    let others: Vec<T> = all.iter().copied().filter(|it| *it != one).collect();
    rng.pick(&others)
}

fn colour(objects: &mut [Object], rng: &mut Rng) {
    if let [first, second, ..] = objects
        && rng.chance(0.6)
    {
        std::mem::swap(&mut first.colour, &mut second.colour);
        return;
    }
    let unused = |colour: &Colour| objects.iter().all(|it| it.colour != *colour);
    let colours: Vec<_> = Colour::ALL.into_iter().filter(unused).collect();
    let object = rng.below(objects.len());
    objects[object].colour = rng.pick(&colours);
}

fn shape(objects: &mut [Object], rng: &mut Rng) {
    if let [first, second, ..] = objects
        && first.shape != second.shape
        && rng.chance(0.6)
    {
        std::mem::swap(&mut first.shape, &mut second.shape);
        return;
    }
    let object = rng.below(objects.len());
    let shape = &mut objects[object].shape;
    *shape = another(&Shape::ALL, *shape, rng);
}

/// Another relation: mostly the opposite, for which the words or their order alone tell.
fn turned(relation: Relation, objects: &mut [Object], rng: &mut Rng) -> Relation {
    if rng.chance(0.3) {
        return another(&Relation::ALL, relation, rng);
    }
    match relation {
        Relation::OnTopOf => {
            objects.swap(0, 1);
            Relation::OnTopOf
        }
        Relation::LeftOf => Relation::RightOf,
        Relation::RightOf => Relation::LeftOf,
        Relation::InFrontOf => Relation::Behind,
        Relation::Behind => Relation::InFrontOf,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{caption::full_caption, split::train_scene},
        *,
    };

    #[test]
    fn twins_are_of_training_and_differ() {
        for (change, least) in [
            (Change::Colour, 280),
            (Change::Shape, 240),
            (Change::Size, 240),
            (Change::Place, 240),
        ] {
            let mut found = 0;
            for seed in 0..300 {
                let scene = train_scene(seed);
                let Some(twin) = twin(&scene, change, &mut Rng::new(seed)) else {
                    continue;
                };
                found += 1;
                assert!(!is_held_out(&twin));
                assert_ne!(full_caption(&scene), full_caption(&twin));
            }
            assert!(found > least, "{change:?}: {found}");
        }
    }
}
