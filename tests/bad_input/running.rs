//! Stages, residencies, progress and what pictures carry.

use crate::common::fixture_root;
use crate::copy::{Copy, forget, largest_difference, quick, unclip};
use std::fs;
use std::ops::ControlFlow;
use unclip::Error;
use unclip::Precision;
use unclip::Prior;
use unclip::Residency;
use unclip::Result;
use unclip::Stage;
use unclip::UnClip;
use unclip::burn::tensor::Device;
use unclip::burn::tensor::Tensor;
use unclip::core::stage::Caption;
use unclip::core::stage::Run;

#[test]
fn a_job_can_be_cancelled_in_every_stage() {
    let unclip = unclip();
    for stage in [
        Stage::TextEncoder,
        Stage::Prior,
        Stage::Decoder,
        Stage::Upsampler(0),
    ] {
        let job = quick(&unclip).on_step(|step| match step.stage == stage {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        });
        match job.run().unwrap_err() {
            Error::Cancelled {
                stage: found,
                step: 1,
                ..
            } => assert_eq!(found, stage.to_string()),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn steps_are_reported_once_each_and_in_order() {
    let unclip = unclip();
    let mut steps = Vec::new();
    let job = quick(&unclip).on_step(|step| {
        steps.push((step.stage, step.done, step.steps));
        ControlFlow::Continue(())
    });
    job.run().unwrap();
    let (prior, decoder, upsampler) = (Stage::Prior, Stage::Decoder, Stage::Upsampler(0));
    let expected = [
        (Stage::TextEncoder, 1, 1),
        (prior, 1, 2),
        (prior, 2, 2),
        (decoder, 1, 2),
        (decoder, 2, 2),
        (upsampler, 1, 2),
        (upsampler, 2, 2),
    ];
    assert_eq!(steps, expected);
}

/// A prior of one's own.
struct Zeros(usize);

impl Prior for Zeros {
    fn sample(&self, caption: Caption<'_>, _: &mut Run<'_>) -> Result<Tensor<2>> {
        Ok(Tensor::zeros(
            [caption.text.rows(), self.0],
            &Device::flex(),
        ))
    }
}

#[test]
fn a_missing_stage_is_named_and_can_be_replaced() {
    let copy = Copy::new();
    let index = fs::read(copy.path("model_index.json")).unwrap();
    let mut index: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&index).unwrap();
    index.remove("prior");
    fs::write(
        copy.path("model_index.json"),
        serde_json::to_vec(&index).unwrap(),
    )
    .unwrap();
    let without = copy.load().unwrap();
    let error = quick(&without).run().unwrap_err();
    assert!(
        matches!(&error, Error::MissingStage { stage, .. } if stage == "prior"),
        "{error}"
    );

    let width = quick(&unclip()).run().unwrap().image_embeddings.dims()[1];
    let given = quick(&without).image_embeddings(Tensor::zeros([1, width], &Device::flex()));
    let builder = UnClip::builder(&Device::flex()).checkpoint(copy.path(""));
    let own = builder.prior(Zeros(width)).build().unwrap();
    // The prior draws no noise in either case.
    let (given, own) = (given.run().unwrap(), quick(&own).run().unwrap());
    assert_eq!(given.images, own.images);
    let nothing = UnClip::builder(&Device::flex()).build().unwrap();
    assert!(matches!(
        quick(&nothing).run(),
        Err(Error::MissingStage { .. })
    ));
}

#[test]
fn every_way_of_running_gives_the_same_picture() {
    let folder = fixture_root().join("checkpoints/unclip");
    let builder = || UnClip::builder(&Device::flex()).checkpoint(&folder);
    let kept = builder().build().unwrap();
    let expected = quick(&kept).run().unwrap();
    assert_eq!(
        quick(&kept).run().unwrap().images,
        expected.images,
        "same seed"
    );
    let other = quick(&kept).seed(4).run().unwrap();
    assert_ne!(other.images, expected.images, "another seed");

    let lazy = builder().residency(Residency::OneAtATime).build().unwrap();
    assert_eq!(quick(&lazy).run().unwrap().images, expected.images);

    let separate = quick(&kept).separate_guidance().run().unwrap();
    let difference: f32 = (separate.small - expected.small.clone())
        .abs()
        .max()
        .into_scalar();
    assert!(difference < 1e-3, "{difference}");

    let small = quick(&kept).without_upsampling().run().unwrap();
    assert_eq!(small.pixels.dims(), expected.small.dims());
    let half = builder()
        .precision(Precision::HALF_WEIGHTS)
        .build()
        .unwrap();
    assert_ne!(quick(&half).run().unwrap().images, expected.images);
}

#[test]
fn pictures_carry_what_makes_them_again() {
    let folder = tempfile::tempdir().unwrap();
    let unclip = unclip();
    let output = quick(&unclip).images(2).run().unwrap();
    let paths = output.save_all(folder.path(), "cube").unwrap();
    assert_eq!(paths.len(), 2);
    let texts = unclip::core::image::png_texts(&paths[1]).unwrap();
    let text = |key: &str| &texts.iter().find(|(k, _)| k == key).unwrap().1;
    assert_eq!(text("Description"), "a red cube");
    assert_eq!(text("unclip-index"), "1");
    let settings: unclip::Settings = serde_json::from_str(text("unclip")).unwrap();
    assert_eq!(settings, output.settings);
    assert_eq!(settings.seed, Some(3));
    assert!(matches!(
        output.save(2, paths[0].as_path()),
        Err(Error::Setting { .. })
    ));
}

#[test]
fn other_stages_may_be_missing_too() {
    for (component, expected) in [("text_encoder", "text encoder"), ("decoder", "decoder")] {
        let copy = Copy::new();
        forget(&copy, component);
        let error = quick(&copy.load().unwrap()).run().unwrap_err();
        assert!(
            matches!(&error, Error::MissingStage { stage, .. } if stage == expected),
            "{error}"
        );
    }
    // Without upsamplers pictures are the decoder's; without a second one, the first does all.
    let copy = Copy::new();
    forget(&copy, "super_res_last");
    let first_only = quick(&copy.load().unwrap()).run().unwrap();
    forget(&copy, "super_res_first");
    let small = quick(&copy.load().unwrap()).run().unwrap();
    assert_eq!(small.pixels.dims(), first_only.small.dims());
    assert!(small.settings.upsamplers.is_empty());
    assert_eq!(
        first_only.pixels.dims(),
        quick(&unclip()).run().unwrap().pixels.dims()
    );
}

#[test]
fn separate_guidance_and_half_weights_are_near_the_plain_way() {
    let kept = unclip();
    let expected = quick(&kept).run().unwrap();
    let separate = quick(&kept).separate_guidance().run().unwrap();
    let difference = largest_difference(separate.small, expected.small.clone());
    assert!(difference < 1e-4, "{difference}");

    let folder = fixture_root().join("checkpoints/unclip");
    let builder = UnClip::builder(&Device::flex()).checkpoint(folder);
    let half = builder.precision(Precision::HALF_WEIGHTS).build().unwrap();
    let half = quick(&half).run().unwrap();
    assert_eq!(half.pixels.dtype(), unclip::burn::tensor::DType::F32);
    let difference = largest_difference(half.image_embeddings, expected.image_embeddings);
    assert!(difference > 0.0 && difference < 0.05, "{difference}");
    let mean: f32 = (half.small - expected.small).abs().mean().into_scalar();
    assert!(mean < 0.05, "{mean}");
}
