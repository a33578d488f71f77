//! Inpainting, removal and outpainting: what is kept is kept to the bit, at every size.

use unclip::{
    Edit, Error, Extend, Job, Mask, Sampler,
    image::{DynamicImage, RgbImage},
};

use crate::{picture, sizes, unclip};

fn quick(job: Job<'_, Edit>) -> Job<'_, Edit> {
    job.seed(1)
        .prior_steps(2)
        .decoder_steps(3)
        .upsampler_steps(2)
}

/// Every kept pixel equal; returns how many of the others differ.
fn check(found: &RgbImage, original: &RgbImage, mask: &Mask) -> usize {
    assert_eq!(found.dimensions(), original.dimensions());
    let mut changed = 0;
    for (x, y, pixel) in found.enumerate_pixels() {
        if mask.get(x as usize, y as usize) {
            changed += usize::from(pixel != original.get_pixel(x, y));
        } else {
            assert_eq!(pixel, original.get_pixel(x, y), "kept pixel {x}, {y}");
        }
    }
    changed
}

fn masks(width: usize, height: usize) -> Vec<Mask> {
    vec![
        Mask::filled(width, height, true),
        Mask::filled(width, height, false),
        Mask::rectangle(width, height, [width / 2, height / 2], [1, 1]),
        Mask::rectangle(width, height, [width / 4, 0], [width / 2, height]),
        Mask::polygon(
            width,
            height,
            &[[0.0, 0.0], [width as f64, 0.0], [0.0, height as f64]],
        )
        .unwrap(),
    ]
}

#[test]
fn kept_pixels_are_equal_to_the_bit_whatever_the_mask() {
    let unclip = unclip();
    let [_, large] = sizes(&unclip);
    let original = picture(large, large);
    for mask in masks(large, large) {
        let job = quick(unclip.edit(&original, &mask, "a red cube"));
        let output = job.run().unwrap();
        let changed = check(&output.images[0], &original.to_rgb8(), &mask);
        assert!(
            changed * 10 >= mask.count() * 8,
            "{changed} of {}",
            mask.count()
        );
    }
}

#[test]
fn pictures_need_not_be_square_or_even() {
    let unclip = unclip();
    let [_, large] = sizes(&unclip);
    // The longer side has the trained size: nothing is scaled.
    for (width, height) in [
        (large, large / 2),
        (large - 1, large),
        (large, 7),
        (3, large),
    ] {
        let longer = width.max(height);
        let original = picture(width, height);
        for mask in masks(width, height) {
            let job = quick(unclip.edit(&original, &mask, "a red cube"));
            let job = match longer == large {
                true => job,
                false => job.at_own_size(),
            };
            check(&job.run().unwrap().images[0], &original.to_rgb8(), &mask);
        }
    }
    // At their own size nothing is scaled either.
    for (width, height) in [(1, 1), (large + 5, large / 2 + 3)] {
        let original = picture(width, height);
        let mask = Mask::rectangle(width, height, [0, 0], [width.div_ceil(3), height]);
        let job = quick(unclip.edit(&original, &mask, "")).at_own_size();
        check(&job.run().unwrap().images[0], &original.to_rgb8(), &mask);
    }
}

#[test]
fn larger_pictures_come_out_at_the_trained_size() {
    let unclip = unclip();
    let [_, large] = sizes(&unclip);
    let original = picture(3 * large, 2 * large);
    let mask = Mask::rectangle(3 * large, 2 * large, [0, 0], [large, large]);
    let output = quick(unclip.edit(&original, &mask, "")).run().unwrap();
    let height = (large * 2) as f64 / 3.0;
    assert_eq!(
        output.images[0].dimensions(),
        (large as u32, height.round() as u32)
    );
}

#[test]
fn every_sampler_keeps_what_is_kept() {
    let unclip = unclip();
    let [_, large] = sizes(&unclip);
    let original = picture(large, large);
    let mask = Mask::rectangle(large, large, [0, 0], [large / 2, large]);
    for sampler in [
        Sampler::ddim(3, 0.0),
        Sampler::dpm_solver(3, 2),
        Sampler::euler(3),
        Sampler::heun(2),
        Sampler::ddpm(3),
    ] {
        let job = quick(unclip.edit(&original, &mask, "a red cube")).rounds(2);
        let job = job.decoder_sampler(sampler).decoder_steps(sampler.steps());
        let output = job.run().unwrap();
        check(&output.images[0], &original.to_rgb8(), &mask);
    }
}

#[test]
fn outpainting_keeps_the_picture_and_paints_around_it() {
    let unclip = unclip();
    let [_, large] = sizes(&unclip);
    let original = picture(large, large);
    let extend = Extend {
        left: 9,
        right: large / 2,
        bottom: 1,
        ..Extend::default()
    };
    let output = quick(unclip.outpaint(&original, extend, "a wide view"))
        .run()
        .unwrap();
    let found = &output.images[0];
    assert_eq!(
        found.dimensions(),
        ((large + 9 + large / 2) as u32, (large + 1) as u32)
    );
    let inside = unclip::image::imageops::crop_imm(found, 9, 0, large as u32, large as u32);
    assert_eq!(inside.to_image(), original.to_rgb8());
}

#[test]
fn several_pictures_of_one_edit_differ_only_where_they_may() {
    let unclip = unclip();
    let [_, large] = sizes(&unclip);
    let original = picture(large, large);
    let mask = Mask::rectangle(large, large, [2, 2], [large / 2, large / 2]);
    let job = quick(unclip.edit(&original, &mask, "a red cube")).images(2);
    let images = job.run().unwrap().images;
    let changed: Vec<_> = images
        .iter()
        .map(|i| check(i, &original.to_rgb8(), &mask))
        .collect();
    assert!(changed.iter().all(|n| *n > 0));
    assert_ne!(images[0], images[1]);
}

#[test]
fn an_edit_can_follow_the_picture_in_place_of_the_prior() {
    let unclip = unclip();
    let [_, large] = sizes(&unclip);
    let original = picture(large, large);
    let mask = Mask::rectangle(large, large, [0, 0], [large / 2, large]);
    let job = quick(unclip.remove(&original, &mask)).following_the_picture();
    let output = job.run().unwrap();
    assert!(output.settings.prior.is_none());
    check(&output.images[0], &original.to_rgb8(), &mask);
}

#[test]
fn masks_of_another_size_and_wrong_settings_are_named() {
    let unclip = unclip();
    let [_, large] = sizes(&unclip);
    let original = picture(large, large);
    let other = Mask::filled(large, large - 1, true);
    let error = quick(unclip.edit(&original, &other, "")).run().unwrap_err();
    assert!(
        matches!(error, Error::Shape { .. }) && error.to_string().contains("mask"),
        "{error}"
    );

    let mask = Mask::filled(large, large, true);
    for strength in [0.0, -1.0, 1.1, f64::NAN] {
        let job = quick(unclip.edit(&original, &mask, "")).strength(strength);
        assert!(matches!(job.run(), Err(Error::Setting { .. })));
    }
    let job = quick(unclip.edit(&original, &mask, "")).rounds(0);
    assert!(matches!(job.run(), Err(Error::Setting { .. })));

    let empty = DynamicImage::from(RgbImage::new(0, 5));
    let job = quick(unclip.edit(&empty, &Mask::filled(0, 5, true), ""));
    assert!(matches!(job.run(), Err(Error::Setting { .. })));
    let job = quick(unclip.outpaint(&empty, Extend::all(3), ""));
    assert!(matches!(job.run(), Err(Error::Setting { .. })));
    let job = quick(unclip.outpaint(&original, Extend::all(1 << 20), ""));
    assert!(matches!(job.run(), Err(Error::Setting { .. })));
}
