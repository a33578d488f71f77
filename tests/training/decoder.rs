//! The decoder's recipe: from nothing, and fine-tuned for inpainting.

use unclip::{
    ImageEncoder, Result,
    burn::tensor::{Device, Tensor, TensorData},
    core::{
        diffusion::{BetaSchedule, Process, Target, Variance},
        nn::UNetConfig,
        noise::Noise,
        train::{Recipe, TimestepSampler, TrainSettings, Weighting, initialized},
    },
    decoder::{DecoderConfig, DecoderModel, DecoderTraining, TextProjectionConfig},
    image::{DynamicImage, imageops},
};

use crate::{Letters, check_gradients, check_recording, discs, mean_loss, train};

const WIDTH: usize = 12;

/// A picture as twelve colours.
struct Colours;

impl ImageEncoder for Colours {
    fn encode_images(&self, images: &[DynamicImage]) -> Result<Tensor<2>> {
        let colours = |image: &DynamicImage| imageops::thumbnail(&image.to_rgb8(), 2, 2).into_raw();
        let values = images.iter().flat_map(colours);
        let values: Vec<f32> = values.map(|v| f32::from(v) / 64.0 - 2.0).collect();
        let data = TensorData::new(values, [images.len(), WIDTH]);
        Ok(Tensor::from_data(data, &Device::flex()))
    }
}

fn config(channels: usize) -> DecoderConfig {
    let unet = UNetConfig::new(
        channels,
        6,
        vec![16, 32],
        1,
        vec![false, true],
        vec![true, false],
        true,
        20,
        true,
    );
    let unet = unet.with_groups(8).with_head_dim(8);
    DecoderConfig::new(TextProjectionConfig::new(WIDTH, 64, 20), unet, 16)
}

pub fn model(channels: usize, zero: &[&str]) -> DecoderModel {
    initialized(config(channels).init(&Device::flex()), 1, zero).unwrap()
}

pub fn recipe(channels: usize) -> DecoderTraining {
    let variance = Variance::LearnedRange;
    let process = Process::new(BetaSchedule::SquaredCosine, 1000, Target::Epsilon, variance);
    let text = Letters {
        width: WIDTH,
        tokens: 5,
    };
    DecoderTraining::new(
        &config(channels),
        process,
        Box::new(text),
        Box::new(Colours),
    )
}

fn settings(steps: usize) -> TrainSettings {
    TrainSettings {
        learning_rate: 2e-3,
        ..TrainSettings::new(steps, 16)
    }
}

#[test]
fn it_learns_a_few_pictures() {
    let (_, rows) = train(
        recipe(3),
        model(3, &["conv_out"]),
        discs(4, 16),
        settings(200),
    );
    let (before, after) = (mean_loss(&rows[..10]), mean_loss(&rows[180..]));
    assert!(after < 0.3 * before, "{before} {after}");
}

#[test]
fn it_learns_to_inpaint_with_every_option() {
    let recipe = recipe(7)
        .with_weighting(Weighting::MinSnr(5.0))
        .with_timesteps(TimestepSampler::loss_aware(1000))
        .with_dropout(0.2, 0.2);
    let (_, rows) = train(recipe, model(7, &["conv_out"]), discs(4, 16), settings(120));
    let (before, after) = (mean_loss(&rows[..10]), mean_loss(&rows[100..]));
    assert!(after < 0.5 * before, "{before} {after}");
}

#[test]
fn recorded_steps_are_the_steps() {
    let model = model(7, &["conv_out"]);
    let recipe = || recipe(7).with_weighting(Weighting::MinSnr(5.0));
    let settings = TrainSettings {
        batch: 4,
        ema: 0.9,
        ..settings(8)
    };
    check_recording(recipe, &model, &discs(6, 16), &settings);
}

#[test]
fn gradients_are_the_losses() {
    // The mean is detached in the bound, so that a difference of the loss sees more than the
    // gradient: without learned variances they are the same.
    let mut config = config(3);
    config.unet.out_channels = 3;
    let model = initialized(config.init(&Device::flex()), 5, &[]).unwrap();
    let variance = Variance::FixedSmall;
    for target in [Target::Epsilon, Target::Sample, Target::Velocity] {
        let process = Process::new(BetaSchedule::SquaredCosine, 1000, target, variance);
        let text = Letters {
            width: WIDTH,
            tokens: 5,
        };
        let recipe = DecoderTraining::new(&config, process, Box::new(text), Box::new(Colours))
            .with_weighting(Weighting::P2(1.0))
            .with_dropout(0.5, 0.5);
        check_gradients(recipe, model.clone(), discs(4, 16));
    }
}

#[test]
fn shares_that_are_none_are_refused() {
    let wrong = [
        ("embedding dropout", recipe(3).with_dropout(-0.1, 0.5)),
        ("caption dropout", recipe(3).with_dropout(0.1, 1.5)),
        ("embedding noise", recipe(3).with_embedding_noise(f32::NAN)),
        ("embedding noise", recipe(3).with_embedding_noise(-1.0)),
    ];
    for (name, recipe) in wrong {
        let error = recipe.prepare(discs(2, 16), &mut Noise::from_seed(1));
        let error = error.err().unwrap().to_string();
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn embeddings_without_a_caption_stay_exact() {
    let losses = |noise: f32, caption_dropout: f32| {
        let recipe = recipe(3)
            .with_dropout(0.0, caption_dropout)
            .with_embedding_noise(noise);
        let examples = recipe
            .prepare(discs(4, 16), &mut Noise::from_seed(1))
            .unwrap();
        let examples: Vec<_> = examples.iter().collect();
        let losses = recipe.loss(&model(3, &[]), &examples, &Device::flex());
        losses.unwrap().into_data().try_to_vec::<f32>().unwrap()
    };
    assert_eq!(losses(0.0, 1.0), losses(1.0, 1.0));
    assert_ne!(losses(0.0, 0.0), losses(1.0, 0.0));
}
