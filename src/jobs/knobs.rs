//! Settings that every job has.

use std::{
    ops::ControlFlow,
    time::{SystemTime, UNIX_EPOCH},
};

use burn::tensor::TensorData;
use unclip_core::{
    diffusion::Sampler,
    error::{Error, Result},
    noise::Noise,
    stage::{StageSettings, Step},
};

use crate::UnClip;

/// Overrides of a stage's own settings.
#[derive(Default)]
pub(super) struct Overrides {
    pub sampler: Option<Sampler>,
    pub steps: Option<usize>,
    pub guidance: Option<f64>,
    pub latents: Option<TensorData>,
}

impl Overrides {
    fn settings(&self, defaults: StageSettings) -> StageSettings {
        let sampler = self.sampler.unwrap_or(defaults.sampler);
        StageSettings {
            sampler: self
                .steps
                .map_or(sampler, |steps| sampler.with_steps(steps)),
            guidance: self.guidance.unwrap_or(defaults.guidance),
        }
    }
}

pub(super) struct Knobs<'a> {
    pub negative_prompt: String,
    pub images: usize,
    pub candidates: usize,
    pub seed: Option<u64>,
    pub noise: Option<Noise>,
    pub prior: Overrides,
    pub decoder: Overrides,
    pub upsampler: Overrides,
    pub is_upsampled: bool,
    pub is_batched: bool,
    pub on_step: Option<Box<dyn FnMut(Step) -> ControlFlow<()> + 'a>>,
}

impl Default for Knobs<'_> {
    fn default() -> Self {
        Self {
            negative_prompt: String::new(),
            images: 1,
            candidates: 1,
            seed: None,
            noise: None,
            prior: Overrides::default(),
            decoder: Overrides::default(),
            upsampler: Overrides::default(),
            is_upsampled: true,
            is_batched: true,
            on_step: None,
        }
    }
}

/// The settings each stage runs with.
#[derive(Clone, Debug)]
pub(super) struct Stages {
    pub prior: Option<StageSettings>,
    pub decoder: StageSettings,
    pub upsamplers: Vec<StageSettings>,
}

impl Stages {
    /// As in the reference, guidance is on for both stages if it is for one.
    pub(super) fn is_guided(&self) -> bool {
        self.decoder.guidance > 1.0 || self.prior.is_some_and(|prior| prior.guidance > 1.0)
    }
}

impl Knobs<'_> {
    /// Every stage's settings, checked before any of them runs.
    pub(super) fn stages(&self, unclip: &UnClip, needs_prior: bool) -> Result<Stages> {
        for (name, guidance) in [
            ("prior guidance", self.prior.guidance),
            ("decoder guidance", self.decoder.guidance),
        ] {
            if let Some(scale) = guidance.filter(|scale| !scale.is_finite()) {
                return Err(Error::setting(name, scale, "a finite number is needed"));
            }
        }
        unclip.text_encoder()?;
        let prior = match needs_prior {
            false => None,
            true => {
                let stage = unclip.prior()?;
                let settings = self.prior.settings(stage.defaults());
                stage.check(&settings)?;
                Some(settings)
            }
        };
        let stage = unclip.decoder()?;
        let decoder = self.decoder.settings(stage.defaults());
        stage.check(&decoder)?;
        let mut upsamplers = Vec::new();
        for stage in unclip.upsamplers().take_while(|_| self.is_upsampled) {
            let settings = self.upsampler.settings(stage.defaults());
            stage.check(&settings)?;
            upsamplers.push(settings);
        }
        Ok(Stages {
            prior,
            decoder,
            upsamplers,
        })
    }
}

/// A seed of 32 bits, which is all the generator uses.
pub(super) fn fresh_seed() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    (now.as_nanos() as u64 ^ u64::from(std::process::id()).rotate_left(16)) & 0xffff_ffff
}
