//! What holds for every job alike.

use std::{cell::Cell, ops::ControlFlow};

use unclip::{Error, Mask, Noise, Output, Result, Settings, Step, UnClip, burn::tensor::Device};

use crate::{fixture, picture, sizes, unclip};

type Watch<'a> = Box<dyn FnMut(Step) -> ControlFlow<()> + 'a>;

/// Runs the job of this number quickly, or `None` if there is none.
fn run(unclip: &UnClip, number: usize, watch: Watch<'_>) -> Option<(&'static str, Result<Output>)> {
    let [_, large] = sizes(unclip);
    let given = picture(large, large);
    macro_rules! quick {
        ($job:expr) => {
            $job.seed(7)
                .decoder_steps(3)
                .upsampler_steps(2)
                .prior_steps(2)
                .on_step(watch)
                .run()
        };
    }
    let mask = Mask::rectangle(large, large, [0, 0], [large / 2, large]);
    Some(match number {
        0 => ("text_to_image", quick!(unclip.text_to_image("a red cube"))),
        1 => ("variations", quick!(unclip.variations(&given).images(2))),
        2 => ("edit", quick!(unclip.edit(&given, &mask, "a red cube"))),
        3 => (
            "image_to_image",
            quick!(unclip.image_to_image(&given, "a red cube")),
        ),
        4 => (
            "interpolate",
            quick!(unclip.interpolate([given.clone(), given]).frames(2)),
        ),
        5 => (
            "text_diff",
            quick!(unclip.text_diff(&given, "a", "b").frames(2).inverted(3, 1)),
        ),
        6 => {
            let latents = unclip.invert(&given).steps(3).run().unwrap();
            ("reconstruct", quick!(unclip.reconstruct(&latents)))
        }
        _ => return None,
    })
}

fn jobs() -> impl Iterator<Item = usize> {
    0..7
}

#[test]
fn the_same_seed_gives_the_same_pictures() {
    let unclip = unclip();
    let free = || Box::new(|_| ControlFlow::Continue(())) as Watch<'static>;
    assert!(run(&unclip, jobs().count(), free()).is_none());
    for number in jobs() {
        let (name, first) = run(&unclip, number, free()).unwrap();
        let (_, second) = run(&unclip, number, free()).unwrap();
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_eq!(first.images, second.images, "{name}");
        assert_eq!(first.settings.job, name);
        let json = serde_json::to_string(&first.settings).unwrap();
        assert_eq!(
            serde_json::from_str::<Settings>(&json).unwrap(),
            first.settings
        );
    }
}

#[test]
fn every_job_reports_and_can_be_cancelled() {
    let unclip = unclip();
    for number in jobs() {
        let count = Cell::new(0);
        let last = Cell::new(None);
        let watch: Watch<'_> = Box::new(|step: Step| {
            count.set(count.get() + 1);
            last.set(Some(step));
            ControlFlow::Continue(())
        });
        let (name, output) = run(&unclip, number, watch).unwrap();
        output.unwrap();
        let last = last.get().unwrap();
        assert_eq!((last.done, count.get() >= 6), (last.steps, true), "{name}");
        for stop in [1, count.get() / 2, count.get() - 1] {
            let seen = Cell::new(0);
            let watch: Watch<'_> = Box::new(|_| {
                seen.set(seen.get() + 1);
                match seen.get() == stop {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            });
            let (_, output) = run(&unclip, number, watch).unwrap();
            assert!(
                matches!(output, Err(Error::Cancelled { .. })),
                "{name} at {stop}"
            );
            assert_eq!(seen.get(), stop, "{name}");
        }
    }
}

#[test]
fn a_batch_is_its_single_pictures_with_the_same_noise() {
    let unclip = unclip();
    let given = picture(40, 40);
    let [small, large] = sizes(&unclip);
    // Draws of the decoder (x_T and two steps) and of the upsampler (x_T and one step).
    let shapes = [(3, 3 * small * small), (2, 3 * large * large)];
    let mut source = Noise::from_seed(5);
    let rows: Vec<Vec<Vec<f32>>> = (0..2)
        .map(|_| {
            let draws = shapes
                .iter()
                .flat_map(|(n, size)| std::iter::repeat_n(*size, *n));
            draws.map(|size| source.normal_vec(size).unwrap()).collect()
        })
        .collect();
    let made = |noise: Vec<Vec<f32>>, images: usize| {
        let job = unclip
            .variations(&given)
            .images(images)
            .noise(Noise::recorded(noise));
        job.decoder_steps(3)
            .upsampler_steps(2)
            .run()
            .unwrap()
            .images
    };
    let both = (0..5)
        .map(|i| [rows[0][i].clone(), rows[1][i].clone()].concat())
        .collect();
    let batch = made(both, 2);
    for (row, noise) in rows.into_iter().enumerate() {
        let single = made(noise, 1).remove(0);
        let pairs = single.as_raw().iter().zip(batch[row].as_raw());
        let differences: Vec<u8> = pairs.map(|(a, b)| a.abs_diff(*b)).collect();
        // Single pixels follow the last bit of the first step's noise (numerics.md), and a product of
        // matrices may add up in another order when it has more rows.
        let far = differences.iter().filter(|d| **d > 1).count();
        let most = differences.iter().max();
        let of = differences.len();
        assert!(far * 1000 <= of, "{far} of {of} differ, by up to {most:?}");
        assert!(most <= Some(&12), "{far} of {of} differ, by up to {most:?}");
    }
}

#[test]
fn missing_stages_are_named() {
    let without = UnClip::load(fixture(), &Device::flex()).unwrap();
    let given = picture(30, 30);
    let names_image_encoder = |result: Result<Output>| match result {
        Err(Error::MissingStage { stage, .. }) => stage.contains("image encoder"),
        _ => false,
    };
    assert!(names_image_encoder(without.variations(&given).run()));
    assert!(names_image_encoder(
        without.interpolate([given.clone(), given.clone()]).run()
    ));
    assert!(names_image_encoder(
        without.text_diff(&given, "a", "b").run()
    ));
    assert!(matches!(
        without.invert(&given).run(),
        Err(Error::MissingStage { .. })
    ));
    let empty = UnClip::builder(&Device::flex()).build().unwrap();
    for result in [
        empty.text_to_image("a").run(),
        empty.image_to_image(&given, "a").run(),
        empty.remove(&given, &Mask::filled(30, 30, true)).run(),
    ] {
        assert!(matches!(result, Err(Error::MissingStage { .. })));
    }
}

#[test]
fn other_sizes_can_be_asked_for() {
    let unclip = unclip();
    let [small, large] = sizes(&unclip);
    let factor = large / small;
    let multiple = unclip.decoder().unwrap().frame().unwrap().multiple;
    let [width, height] = [large + factor * multiple, large];
    let job = |width, height| {
        let job = unclip
            .text_to_image("a red cube")
            .size(width, height)
            .seed(1);
        job.prior_steps(2).decoder_steps(2).upsampler_steps(2)
    };
    let output = job(width, height).run().unwrap();
    assert_eq!(output.images[0].dimensions(), (width as u32, height as u32));
    assert_eq!(output.small.dims()[2..], [height / factor, width / factor]);
    for (width, height) in [(large + 1, large), (0, large)] {
        assert!(matches!(
            job(width, height).run(),
            Err(Error::Setting { .. })
        ));
    }
}
