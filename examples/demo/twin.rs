//! Scenes that differ from another in one thing only, for contrasts that a network must see.

use super::{
    rng::Rng,
    split::is_held_out,
    world::{Colour, Scene},
};

/// The same scene with two objects' colours exchanged, or one object in another colour; nothing where
/// only held-out combinations are left.
pub fn twin(scene: &Scene, rng: &mut Rng) -> Option<Scene> {
    (0..20)
        .map(|_| changed(scene, rng))
        .find(|twin| !is_held_out(twin))
}

fn changed(scene: &Scene, rng: &mut Rng) -> Scene {
    let mut twin = scene.clone();
    if let [first, second, ..] = &mut twin.objects[..]
        && rng.chance(0.6)
    {
        std::mem::swap(&mut first.colour, &mut second.colour);
        return twin;
    }
    let object = rng.below(twin.objects.len());
    let unused = |colour: &Colour| scene.objects.iter().all(|it| it.colour != *colour);
    let colours: Vec<_> = Colour::ALL.into_iter().filter(unused).collect();
    twin.objects[object].colour = rng.pick(&colours);
    twin
}

#[cfg(test)]
mod tests {
    use super::{super::split::train_scene, *};

    #[test]
    fn twins_are_of_training_and_differ() {
        let mut found = 0;
        for seed in 0..300 {
            let scene = train_scene(seed);
            let Some(twin) = twin(&scene, &mut Rng::new(seed)) else {
                continue;
            };
            found += 1;
            assert!(twin != scene && !is_held_out(&twin));
        }
        assert!(found > 280, "{found}");
    }
}
