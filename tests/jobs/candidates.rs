//! Of several candidates, the one that CLIP finds nearest is kept.

use unclip::{Error, ImageEncoder, Job, clip::Matcher, image::DynamicImage};

use crate::{Colours, fixture, picture, unclip};

fn quick<K>(job: Job<'_, K>) -> Job<'_, K> {
    job.seed(3)
        .prior_steps(2)
        .decoder_steps(2)
        .upsampler_steps(2)
}

/// The largest, the first of equals.
fn best(values: &[f32]) -> usize {
    (1..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}

#[test]
fn the_nearest_to_each_prompt_is_kept() {
    let unclip = unclip();
    let prompts = ["a red cube", "a blue ball"].map(String::from);
    let (images, candidates) = (2, 3);
    // The same rows from the same noise, all of them kept.
    let all = quick(unclip.texts_to_images(&prompts).images(images * candidates));
    let all = all.without_upsampling().run().unwrap();
    let job = quick(unclip.texts_to_images(&prompts).images(images));
    let chosen = job
        .candidates(candidates)
        .without_upsampling()
        .run()
        .unwrap();
    assert_eq!(chosen.settings.candidates, candidates);
    assert_eq!(chosen.images.len(), prompts.len() * images);
    assert_eq!(all.similarities, [] as [f32; 0]);
    let matcher = Matcher::new(
        unclip.text_encoder().unwrap(),
        unclip.image_encoder().unwrap(),
    );
    let embeddings = all.image_embeddings.to_data();
    let mut kept = Vec::new();
    for (i, group) in all.images.chunks(candidates).enumerate() {
        let pictures: Vec<DynamicImage> = group.iter().cloned().map(Into::into).collect();
        let prompt = prompts[i / images].as_str();
        let rows = matcher.image_text_similarity(&pictures, &[prompt]).unwrap();
        let cosines: Vec<f32> = rows.iter().map(|row| row[0]).collect();
        let best = best(&cosines);
        kept.push(best);
        assert_eq!(chosen.images[i], group[best], "{prompt} {i}");
        assert!((chosen.similarities[i] - cosines[best]).abs() < 1e-5);
        let row = chosen.image_embeddings.clone().narrow(0, i, 1).to_data();
        let expected = embeddings.clone().as_slice::<f32>().unwrap().to_vec();
        let width = chosen.image_embeddings.dims()[1];
        let start = (i * candidates + best) * width;
        assert_eq!(
            row.as_slice::<f32>().unwrap(),
            &expected[start..start + width]
        );
    }
    assert!(kept.iter().any(|i| *i != 0), "the first ones say nothing");
}

#[test]
fn without_a_prompt_the_nearest_to_the_picture_is_kept() {
    let unclip = unclip();
    let given = picture(40, 40);
    let all = quick(unclip.variations(&given).images(4));
    let all = all.without_upsampling().run().unwrap();
    let chosen = quick(unclip.variations(&given)).candidates(4);
    let chosen = chosen.without_upsampling().run().unwrap();
    let pictures: Vec<DynamicImage> = all.images.iter().cloned().map(Into::into).collect();
    let width = all.image_embeddings.dims()[1];
    let encoder = Colours { width };
    let vectors = |pictures: &[DynamicImage]| {
        let rows = encoder.encode_images(pictures).unwrap().into_data();
        let rows: Vec<Vec<f32>> = rows
            .as_slice::<f32>()
            .unwrap()
            .chunks(width)
            .map(<[f32]>::to_vec)
            .collect();
        rows
    };
    let target = vectors(std::slice::from_ref(&given)).remove(0);
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let cosines: Vec<f32> = vectors(&pictures)
        .iter()
        .map(|row| dot(row, &target) / (dot(row, row) * dot(&target, &target)).sqrt())
        .collect();
    assert_eq!(chosen.images, [all.images[best(&cosines)].clone()]);
    // One candidate is no choice: the picture is that of the job without.
    let one = quick(unclip.variations(&given))
        .candidates(1)
        .run()
        .unwrap();
    let plain = quick(unclip.variations(&given)).run().unwrap();
    assert_eq!(one.images, plain.images);
}

#[test]
fn only_what_is_kept_is_upsampled() {
    let unclip = unclip();
    let output = quick(unclip.text_to_image("a red cube").candidates(3));
    let output = output.run().unwrap();
    assert_eq!(output.images.len(), 1);
    assert_eq!(output.small.dims()[0], 1);
    assert_eq!(output.pixels.dims()[0], 1);
}

#[test]
fn impossible_candidates_are_errors_before_any_work() {
    let with = unclip();
    let without = unclip::UnClip::load(fixture(), &unclip::burn::tensor::Device::flex()).unwrap();
    let given = picture(40, 40);
    let refused = |result: unclip::Result<unclip::Output>| {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Setting { .. }), "{error}");
        assert!(error.to_string().contains("candidates"), "{error}");
    };
    refused(with.text_to_image("a").candidates(0).run());
    refused(with.variations(&given).shared_noise().candidates(2).run());
    let pair = [given.clone(), given.clone()];
    refused(with.interpolate(pair).candidates(2).run());
    refused(with.text_diff(&given, "a", "b").candidates(2).run());
    let latents = with.invert(&given).steps(2).run().unwrap();
    refused(with.reconstruct(&latents).candidates(2).run());
    let missing = without.text_to_image("a").candidates(2).run().unwrap_err();
    assert!(matches!(missing, Error::MissingStage { .. }), "{missing}");
    assert!(
        without
            .text_to_image("a")
            .candidates(1)
            .decoder_steps(2)
            .run()
            .is_ok()
    );
}
