//! Settings, prompts and tensors given to a job.

use crate::copy::{largest_difference, quick, unclip};
use unclip::Error;
use unclip::Noise;
use unclip::burn::tensor::Device;
use unclip::burn::tensor::Tensor;

#[test]
fn settings_out_of_range_are_refused_before_any_work() {
    let unclip = unclip();
    let setting = |job: unclip::Job<'_, unclip::TextToImage>| match job.run().unwrap_err() {
        Error::Setting { name, .. } => name,
        other => panic!("{other:?}"),
    };
    assert_eq!(setting(quick(&unclip).prior_steps(0)), "steps");
    assert_eq!(setting(quick(&unclip).decoder_steps(0)), "steps");
    assert_eq!(setting(quick(&unclip).upsampler_steps(0)), "steps");
    for job in [
        quick(&unclip).prior_steps(1001),
        quick(&unclip).decoder_steps(1001),
        quick(&unclip).upsampler_steps(1001),
    ] {
        let job = job.on_step(|step| panic!("{} has run", step.stage));
        assert_eq!(setting(job), "steps");
    }
    assert_eq!(setting(quick(&unclip).images(0)), "images");
    assert_eq!(
        setting(quick(&unclip).decoder_guidance(f64::NAN)),
        "decoder guidance"
    );
    assert_eq!(
        setting(unclip.texts_to_images(Vec::<String>::new())),
        "prompts"
    );
    assert_eq!(
        setting(quick(&unclip).noise(Noise::recorded(Vec::new()))),
        "recorded noise"
    );
}

#[test]
fn empty_and_endless_prompts_work() {
    let unclip = unclip();
    let run = |prompt: &str| {
        let job = unclip.text_to_image(prompt).seed(3).without_upsampling();
        job.prior_steps(2).decoder_steps(2).run().unwrap().images
    };
    assert_eq!(run("").len(), 1);
    let words = "a red cube ".repeat(10_000);
    assert_eq!(run(&words), run(&words[..5_000]), "both fill the context");
    run(&"x".repeat(100_000));
}

#[test]
fn tensors_of_the_wrong_shape_are_named() {
    let unclip = unclip();
    let device = Device::flex();
    let shape = |job: unclip::Job<'_, unclip::TextToImage>| match job.run().unwrap_err() {
        Error::Shape { name, .. } => name,
        other => panic!("{other:?}"),
    };
    let flat = || Tensor::<2>::zeros([1, 7], &device);
    let square = || Tensor::<4>::zeros([1, 3, 5, 5], &device);
    assert_eq!(
        shape(quick(&unclip).prior_latents(flat())),
        "the prior's latents"
    );
    assert_eq!(
        shape(quick(&unclip).decoder_latents(square())),
        "the decoder's latents"
    );
    assert_eq!(
        shape(quick(&unclip).upsampler_latents(square())),
        "the upsampler's latents"
    );
    assert_eq!(
        shape(quick(&unclip).image_embeddings(flat())),
        "the image embedding"
    );
    let rows = Tensor::<2>::zeros([2, 7], &device);
    assert_eq!(
        shape(quick(&unclip).image_embeddings(rows)),
        "the image embeddings"
    );
    let noise = Noise::recorded(vec![vec![0.0; 3]]);
    assert_eq!(
        shape(quick(&unclip).noise(noise)),
        "draw 1 of the recorded noise"
    );
}

#[test]
fn guidance_has_to_be_a_number() {
    let unclip = unclip();
    for scale in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        for (job, expected) in [
            (quick(&unclip).prior_guidance(scale), "prior guidance"),
            (quick(&unclip).decoder_guidance(scale), "decoder guidance"),
        ] {
            let job = job.on_step(|step| panic!("{} has run", step.stage));
            let error = job.run().unwrap_err();
            assert!(
                matches!(&error, Error::Setting { name, .. } if name == expected),
                "{error}"
            );
        }
    }
}

#[test]
fn recorded_noise_may_run_out_at_any_draw() {
    let unclip = unclip();
    let output = quick(&unclip).run().unwrap();
    let width = output.image_embeddings.dims()[1];
    let (small, large) = (output.small.dims(), output.pixels.dims());
    let sizes: Vec<usize> = [width, small.iter().product(), large.iter().product()]
        .into_iter()
        // x_T, and the noise of the one step that is not the last.
        .flat_map(|size| [size, size])
        .collect();
    let draws = |count: usize| sizes[..count].iter().map(|n| vec![0.1; *n]);
    for count in 0..sizes.len() {
        let error = quick(&unclip)
            .noise(Noise::recorded(draws(count)))
            .run()
            .unwrap_err();
        let Error::Setting { name, value, .. } = &error else {
            panic!("{count}: {error}");
        };
        assert_eq!(
            (name.as_str(), value.as_str()),
            ("recorded noise", &*format!("{count} draws"))
        );
    }
    let noise = Noise::recorded(draws(sizes.len()));
    assert_eq!(
        quick(&unclip).noise(noise).run().unwrap().settings.seed,
        None
    );
}

#[test]
fn values_that_are_not_finite_are_found_in_what_is_given() {
    let unclip = unclip();
    let device = Device::flex();
    let output = quick(&unclip).run().unwrap();
    for value in [f32::NAN, f32::INFINITY] {
        let embeddings = Tensor::<2>::full(output.image_embeddings.dims(), value, &device);
        let error = quick(&unclip)
            .image_embeddings(embeddings)
            .run()
            .unwrap_err();
        assert!(matches!(error, Error::NotFinite { .. }), "{error}");
    }
    let latents = Tensor::<4>::full(output.small.dims(), f32::NAN, &device);
    let error = quick(&unclip).decoder_latents(latents).run().unwrap_err();
    assert!(matches!(error, Error::NotFinite { .. }), "{error}");
}

#[test]
fn latents_need_a_row_for_each_picture() {
    let unclip = unclip();
    let device = Device::flex();
    let output = quick(&unclip).run().unwrap();
    let width = output.image_embeddings.dims()[1];
    let ([_, c, h, w], [_, _, large, _]) = (output.small.dims(), output.pixels.dims());
    for (job, expected) in [
        (
            quick(&unclip).prior_latents(Tensor::zeros([1, width], &device)),
            "the prior's latents",
        ),
        (
            quick(&unclip).decoder_latents(Tensor::zeros([1, c, h, w], &device)),
            "the decoder's latents",
        ),
        (
            quick(&unclip).upsampler_latents(Tensor::zeros([1, c, large, large], &device)),
            "the upsampler's latents",
        ),
        (
            quick(&unclip).image_embeddings(Tensor::zeros([1, width], &device)),
            "the image embeddings",
        ),
    ] {
        let error = job.images(2).run().unwrap_err();
        assert!(
            matches!(&error, Error::Shape { name, .. } if name == expected),
            "{error}"
        );
    }
}

#[test]
fn an_endless_word_is_its_beginning() {
    let unclip = unclip();
    let encoder = unclip.text_encoder().unwrap();
    for piece in ["x", "a red cube ", "é", "9", "!?", "\u{1f600}"] {
        let prompt: String = piece.chars().cycle().take(100_000).collect();
        let encoded = encoder.encode_text(&[&prompt]).unwrap();
        assert!(
            encoded
                .embedding
                .clone()
                .is_finite()
                .all()
                .into_scalar::<bool>()
        );
        let beginning: String = prompt.chars().take(60_000).collect();
        let expected = encoder.encode_text(&[&beginning]).unwrap();
        let difference = largest_difference(encoded.embedding, expected.embedding);
        assert_eq!(difference, 0.0, "{piece}");
    }
}
