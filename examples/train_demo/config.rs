//! The demo model's sizes, and how each stage of it is trained.

use serde_json::{Value, json};
use unclip::{
    Result,
    clip::{ClipModelConfig, Pooling, TextTowerConfig, VisionTowerConfig},
    core::{
        diffusion::{Scheduler, SchedulerConfig},
        nn::{Activation, UNetConfig},
        train::TrainSettings,
    },
    decoder::{DecoderConfig, TextProjectionConfig},
    prior::PriorConfig,
    upsample::UpsamplerConfig,
};

/// Width of embeddings and of the caption's tokens.
pub const WIDTH: usize = 128;
/// Longest caption in tokens.
pub const CONTEXT: usize = 40;
/// Side of the decoder's pictures, and of CLIP's.
pub const SMALL: usize = 64;
/// The decoder's guidance scale. With 8, the reference's, fewer captions were right.
pub const GUIDANCE: f64 = 4.0;

/// CLIP: 4 blocks over 8 × 8 patches, 3 over tokens.
pub fn clip(vocabulary: usize, end: u32) -> ClipModelConfig {
    let act = Activation::QuickGelu;
    let (heads, hidden) = (4, 4 * WIDTH);
    let pooling = Pooling::FirstOf(end);
    let text = TextTowerConfig::new(
        vocabulary, CONTEXT, WIDTH, 3, heads, hidden, WIDTH, act, pooling,
    );
    let vision = VisionTowerConfig::new(SMALL, 8, WIDTH, 4, heads, hidden, WIDTH, act);
    ClipModelConfig::new(text, vision)
}

/// Both priors.
pub fn prior() -> PriorConfig {
    PriorConfig::new(WIDTH, 4, 32, 4, CONTEXT)
}

/// The decoder.
pub fn decoder() -> DecoderConfig {
    let unet = UNetConfig::new(
        3,
        3,
        vec![24, 48, 96, 144],
        1,
        vec![false, false, true, true],
        vec![true, true, false, false],
        true,
        WIDTH,
        true,
    );
    let unet = unet.with_groups(8).with_head_dim(48);
    DecoderConfig::new(
        TextProjectionConfig::new(WIDTH, 4 * unet.channels[0], WIDTH),
        unet,
        SMALL,
    )
}

/// The upsamplers: 64 → 256 and 256 → 1024.
pub fn upsampler(number: usize) -> UpsamplerConfig {
    let (channels, size): (Vec<usize>, usize) = match number {
        1 => (vec![24, 48, 64], 256),
        _ => (vec![16, 24, 32], 1024),
    };
    let off = vec![false; channels.len()];
    let unet = UNetConfig::new(6, 3, channels, 1, off.clone(), off, false, 0, true);
    UpsamplerConfig::new(unet.with_groups(8), size)
}

/// The scheduler of a stage as diffusers writes it.
pub fn scheduler_json(stage: &str) -> Value {
    // What stands where is settled where the noise is highest, and there ε hardly depends on it: so all
    // networks predict x₀, with which small ones also do better in few steps.
    let range = if stage == "prior" { 5.0 } else { 1.0 };
    json!({
        "_class_name": "UnCLIPScheduler", "beta_schedule": "squaredcos_cap_v2",
        "num_train_timesteps": 1000, "prediction_type": "sample", "variance_type": "fixed_small_log",
        "clip_sample": true, "clip_sample_range": range,
    })
}

/// The scheduler of a stage.
pub fn scheduler(stage: &str) -> Result<Scheduler> {
    let config: SchedulerConfig = match serde_json::from_value(scheduler_json(stage)) {
        Ok(config) => config,
        Err(error) => {
            return Err(unclip::Error::setting(
                "scheduler",
                stage,
                error.to_string(),
            ));
        }
    };
    config.scheduler(stage)
}

/// How a stage is trained: steps, batch and learning rate that two cores can bear for a few hours; a
/// GPU takes more steps (`--steps`, `--batch`).
pub fn settings(stage: &str) -> TrainSettings {
    let (steps, batch, rate, every) = match stage {
        // A multiple of the twins that stand together.
        "clip" => (10_000, 72, 1e-3, 500),
        "prior" => (8_000, 128, 6e-4, 250),
        "autoregressive" => (8_000, 128, 6e-4, 250),
        "decoder" => (40_000, 16, 5e-4, 1_000),
        "upsampler-256" => (12_000, 16, 5e-4, 500),
        _ => (6_000, 8, 5e-4, 500),
    };
    TrainSettings {
        learning_rate: rate,
        save_every: every,
        ema: 0.999,
        weight_decay: 0.01,
        spike: None,
        ..TrainSettings::new(steps, batch)
    }
}
