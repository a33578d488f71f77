//! Bipartite latents, interpolation and text diffs.

use unclip::{
    Error, UnClip,
    burn::tensor::Tensor,
    image::{DynamicImage, imageops},
};

use crate::{picture, sizes, unclip};

fn pixels(picture: &DynamicImage, size: usize) -> Vec<f32> {
    let size = size as u32;
    let small = imageops::resize(
        &picture.to_rgb8(),
        size,
        size,
        imageops::FilterType::CatmullRom,
    );
    let small =
        unclip::core::image::from_images(&[small], &unclip::burn::tensor::Device::flex()).unwrap();
    small.into_data().try_to_vec().unwrap()
}

fn values(x: Tensor<4>) -> Vec<f32> {
    x.into_data().try_to_vec().unwrap()
}

fn mean_difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f32>() / a.len() as f32
}

fn error_after(unclip: &UnClip, steps: usize, rounds: usize) -> f32 {
    let [small, _] = sizes(unclip);
    let original = picture(small, small);
    let latents = unclip
        .invert(&original)
        .steps(steps)
        .rounds(rounds)
        .run()
        .unwrap();
    let job = unclip.reconstruct(&latents).seed(0).without_upsampling();
    let found = job.run().unwrap();
    mean_difference(&values(found.small), &pixels(&original, small))
}

#[test]
fn reconstruction_leads_back_to_the_picture() {
    let unclip = unclip();
    // How the error falls with steps on a smooth network is shown where samplers are tested; this
    // one is random.
    let errors = [1, 4, 10].map(|rounds| error_after(&unclip, 10, rounds));
    assert!(
        errors[1] < errors[0] / 4.0 && errors[2] < 2e-3,
        "{errors:?}"
    );
}

#[test]
fn without_fresh_noise_the_picture_repeats_and_with_it_varies() {
    let unclip = unclip();
    let [small, _] = sizes(&unclip);
    let latents = unclip
        .invert(&picture(small, small))
        .steps(10)
        .run()
        .unwrap();
    let made = |eta: f64, seed: u64| {
        let job = unclip.reconstruct(&latents).eta(eta).seed(seed);
        job.without_upsampling().run().unwrap().images.remove(0)
    };
    assert_eq!(made(0.0, 1), made(0.0, 2));
    assert_ne!(made(1.0, 1), made(1.0, 2));
    assert_eq!(made(1.0, 1), made(1.0, 1));
}

#[test]
fn interpolation_ends_at_the_pictures() {
    let unclip = unclip();
    let [small, _] = sizes(&unclip);
    let (a, b) = (picture(small, small), picture(small, small).fliph());
    let job = unclip
        .interpolate([a.clone(), b.clone()])
        .frames(5)
        .inverted(10, 3);
    let output = job.seed(1).without_upsampling().run().unwrap();
    assert_eq!(output.images.len(), 5);
    let ends = [(0, &a), (4, &b)].map(|(frame, picture)| {
        let latents = unclip.invert(picture).steps(10).rounds(3).run().unwrap();
        let again = unclip
            .reconstruct(&latents)
            .without_upsampling()
            .run()
            .unwrap();
        let frame = output.small.clone().narrow(0, frame, 1);
        mean_difference(&values(again.small), &values(frame))
    });
    assert!(ends.iter().all(|d| *d < 1e-3), "{ends:?}");
}

#[test]
fn frames_without_inversion_share_their_noise() {
    let unclip = unclip();
    let a = picture(40, 30);
    let job = unclip
        .interpolate([a.clone(), a.clone(), a])
        .frames(4)
        .seed(3);
    let output = job.decoder_steps(2).upsampler_steps(2).run().unwrap();
    // The same picture at every end: the same frame throughout.
    let first = &output.images[0];
    assert!(output.images.iter().all(|frame| {
        let off = first.as_raw().iter().zip(frame.as_raw());
        off.into_iter().all(|(a, b)| a.abs_diff(*b) <= 1)
    }));
}

#[test]
fn a_text_diff_starts_at_the_picture() {
    let unclip = unclip();
    let [small, _] = sizes(&unclip);
    let original = picture(small, small);
    let job = unclip.text_diff(&original, "a house in summer", "a house in winter");
    let job = job.frames(3).theta(0.5).inverted(10, 1);
    let output = job.without_upsampling().run().unwrap();
    let latents = unclip.invert(&original).steps(10).run().unwrap();
    let again = unclip
        .reconstruct(&latents)
        .without_upsampling()
        .run()
        .unwrap();
    let frame = |i| values(output.small.clone().narrow(0, i, 1));
    assert!(mean_difference(&frame(0), &values(again.small)) < 1e-4);
    assert!(mean_difference(&frame(0), &frame(2)) > 1e-3);
}

#[test]
fn too_few_pictures_or_frames_are_named() {
    let unclip = unclip();
    let one = || picture(20, 20);
    for job in [
        unclip.interpolate([one()]),
        unclip.interpolate([one(), one()]).frames(1),
        unclip.interpolate([]),
    ] {
        assert!(matches!(job.run(), Err(Error::Setting { .. })));
    }
    for theta in [-0.1, 1.5, f64::NAN] {
        let job = unclip.text_diff(&one(), "a", "b").theta(theta);
        assert!(matches!(job.run(), Err(Error::Setting { .. })));
    }
    let job = unclip.invert(&one()).steps(0);
    assert!(matches!(job.run(), Err(Error::Setting { .. })));
    let job = unclip.invert(&one()).rounds(0).steps(2);
    assert!(matches!(job.run(), Err(Error::Setting { .. })));
}
