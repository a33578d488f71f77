//! One seed is one picture on every device of `UNCLIP_TEST_DEVICES`.
#![allow(missing_docs)]

mod common;

use common::{devices, fixture_root};
use unclip::{Noise, Precision, UnClip, burn::tensor::Device, image::RgbImage};

fn picture(device: &Device, precision: Precision) -> RgbImage {
    let unclip = UnClip::builder(device)
        .checkpoint(fixture_root().join("checkpoints/unclip"))
        .precision(precision)
        .build()
        .unwrap();
    let job = unclip.text_to_image("a red cube on top of a blue cube");
    let job = job.prior_steps(3).decoder_steps(3).upsampler_steps(2);
    job.seed(11).run().unwrap().images.remove(0)
}

fn mean_difference(a: &RgbImage, b: &RgbImage) -> f64 {
    let pairs = a.as_raw().iter().zip(b.as_raw());
    let total: u64 = pairs.map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    total as f64 / a.as_raw().len() as f64
}

#[test]
fn noise_has_the_same_bits_on_every_device() {
    for (name, device) in devices() {
        let (mut on_host, mut on_device) = (Noise::from_seed(5), Noise::from_seed(5));
        for shape in [[1, 3, 16, 16], [2, 1, 3, 1], [1, 5, 7, 11]] {
            let expected = on_host.normal_vec(shape.iter().product()).unwrap();
            let found = on_device.normal(shape, &device).unwrap().into_data();
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            let found = found.try_to_vec::<f32>().unwrap();
            assert_eq!(bits(&found), bits(&expected), "{name} {shape:?}");
        }
    }
}

#[test]
fn a_seed_is_one_picture_on_every_device() {
    let expected = picture(&Device::flex(), Precision::FULL);
    for (name, device) in devices() {
        let difference = mean_difference(&picture(&device, Precision::FULL), &expected);
        assert!(difference < 1.0, "{name}: {difference}");
    }
}

#[test]
fn half_precision_weights_give_nearly_the_same_picture() {
    let expected = picture(&Device::flex(), Precision::FULL);
    let half = picture(&Device::flex(), Precision::HALF_WEIGHTS);
    let difference = mean_difference(&half, &expected);
    assert!(difference > 0.0, "f16 weights cannot be exact");
    assert!(difference < 8.0, "{difference}");
}
