//! The builder of every job: a kind, and the knobs that all kinds have.

use std::ops::ControlFlow;

use burn::tensor::{Tensor, TensorData};
use serde_json::Value;
use unclip_core::{
    diffusion::Sampler,
    error::{Error, Result},
    noise::Noise,
    stage::Step,
};

use super::{
    chain::Chain,
    fit::Fitted,
    knobs::{Knobs, fresh_seed},
};
use crate::{Output, Settings, UnClip};

/// A job of [`UnClip`]: set what you like, then [`run`](Job::run). Settings left alone are the
/// checkpoint's own.
#[must_use = "call `run`"]
pub struct Job<'a, K> {
    pub(super) unclip: &'a UnClip,
    pub(super) kind: K,
    pub(super) knobs: Knobs<'a>,
}

/// What a job makes, once its kind has done its part.
pub(crate) struct Plan {
    /// What the pictures show; each is made `images` times.
    pub prompts: Vec<String>,
    /// CLIP image embeddings in place of the prior's, a row for each picture.
    pub embeddings: Option<Tensor<2>>,
    /// A picture to start from or to keep parts of.
    pub canvas: Option<Fitted>,
    /// The decoder's x_T.
    pub decoder_latents: Option<TensorData>,
    /// Height and width of the finished pictures, if not the stages' own.
    pub size: Option<[usize; 2]>,
    /// Every picture from the same noise.
    pub shares_noise: bool,
    /// What else is needed to make the pictures again.
    pub details: Value,
}

impl Plan {
    pub(super) fn new(prompts: Vec<String>) -> Self {
        Self {
            prompts,
            embeddings: None,
            canvas: None,
            decoder_latents: None,
            size: None,
            shares_noise: false,
            details: Value::Null,
        }
    }
}

/// A kind of job. Not for use outside: its type is public because jobs are named by it.
pub trait Kind {
    #[doc(hidden)]
    const NAME: &'static str;

    /// Whether the prior has to run.
    #[doc(hidden)]
    fn needs_prior(&self) -> bool;

    /// Whether all pictures of an input come from the same noise.
    #[doc(hidden)]
    fn brings_noise(&self) -> bool {
        false
    }

    /// Checks what can be checked before any work.
    #[doc(hidden)]
    fn check(&self, bench: &Bench<'_>) -> Result<()>;

    /// Does what comes before the stages.
    #[doc(hidden)]
    fn plan(self, bench: &mut Bench<'_>) -> Result<PlanBox>;
}

/// Keeps [`Plan`] out of the public interface.
#[doc(hidden)]
pub struct PlanBox(pub(super) Plan);

impl std::fmt::Debug for PlanBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PlanBox")
    }
}

/// What a kind may use.
#[doc(hidden)]
pub struct Bench<'b> {
    pub(super) chain: Chain<'b>,
    pub(super) images: usize,
}

impl std::fmt::Debug for Bench<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bench")
    }
}

impl<'a, K> Job<'a, K> {
    pub(crate) fn new(unclip: &'a UnClip, kind: K) -> Self {
        Self {
            unclip,
            kind,
            knobs: Knobs::default(),
        }
    }

    /// Pictures of each prompt or input. Default: 1.
    pub fn images(mut self, count: usize) -> Self {
        self.knobs.images = count;
        self
    }

    /// Pictures that prior and decoder make for each one wanted; the one whose CLIP embedding is
    /// nearest to the prompt's is kept and goes to the upsamplers. Without a prompt it is the one
    /// nearest to the image embedding it was made from. Default: 1.
    ///
    /// The paper does not do this; DALL·E did (arXiv 2102.12092, section 2.6). It takes the image
    /// encoder, and the time and activations of as many pictures up to the decoder. Latents of
    /// one's own have a row for each candidate, next to each other. An error for jobs whose pictures
    /// come from one noise, as there the candidates would be equal.
    pub fn candidates(mut self, count: usize) -> Self {
        self.knobs.candidates = count;
        self
    }

    /// Seed of all noise: the same seed is the same picture on every device, and the noise that
    /// `torch.Generator().manual_seed(seed)` gives on a CPU. Default: another one each time, kept
    /// in the output's settings.
    pub fn seed(mut self, seed: u64) -> Self {
        self.knobs.seed = Some(seed);
        self
    }

    /// Noise of one's own instead of a seed, for instance [`Noise::recorded`].
    pub fn noise(mut self, noise: Noise) -> Self {
        self.knobs.noise = Some(noise);
        self
    }

    /// What guidance leads away from. Default: the empty prompt.
    pub fn negative_prompt(mut self, prompt: impl Into<String>) -> Self {
        self.knobs.negative_prompt = prompt.into();
        self
    }

    /// The prior's steps. Default: the stage's (25).
    pub fn prior_steps(mut self, steps: usize) -> Self {
        self.knobs.prior.steps = Some(steps);
        self
    }

    /// The decoder's steps. Default: the stage's (25).
    pub fn decoder_steps(mut self, steps: usize) -> Self {
        self.knobs.decoder.steps = Some(steps);
        self
    }

    /// The upsamplers' steps. Default: the stage's (7).
    pub fn upsampler_steps(mut self, steps: usize) -> Self {
        self.knobs.upsampler.steps = Some(steps);
        self
    }

    /// The prior's sampler. Default: the stage's.
    pub fn prior_sampler(mut self, sampler: Sampler) -> Self {
        self.knobs.prior.sampler = Some(sampler);
        self
    }

    /// The decoder's sampler. Default: the stage's.
    pub fn decoder_sampler(mut self, sampler: Sampler) -> Self {
        self.knobs.decoder.sampler = Some(sampler);
        self
    }

    /// The upsamplers' sampler. Default: the stage's.
    pub fn upsampler_sampler(mut self, sampler: Sampler) -> Self {
        self.knobs.upsampler.sampler = Some(sampler);
        self
    }

    /// The prior's guidance scale. Default: the stage's (4).
    pub fn prior_guidance(mut self, scale: f64) -> Self {
        self.knobs.prior.guidance = Some(scale);
        self
    }

    /// The decoder's guidance scale. Default: the checkpoint's, or 8.
    ///
    /// As in the reference, guidance is off only if both scales are at most 1; otherwise both
    /// stages are guided, each with its scale.
    pub fn decoder_guidance(mut self, scale: f64) -> Self {
        self.knobs.decoder.guidance = Some(scale);
        self
    }

    /// The prior's x_T instead of noise, `[pictures, d]`.
    pub fn prior_latents(mut self, latents: Tensor<2>) -> Self {
        self.knobs.prior.latents = Some(latents.into_data());
        self
    }

    /// The decoder's x_T instead of noise, `[pictures, 3, h, w]`.
    pub fn decoder_latents(mut self, latents: Tensor<4>) -> Self {
        self.knobs.decoder.latents = Some(latents.into_data());
        self
    }

    /// The first upsampler's x_T instead of noise, `[pictures, 3, h, w]`.
    pub fn upsampler_latents(mut self, latents: Tensor<4>) -> Self {
        self.knobs.upsampler.latents = Some(latents.into_data());
        self
    }

    /// Stops after the decoder, at its size (64 × 64).
    pub fn without_upsampling(mut self) -> Self {
        self.knobs.is_upsampled = false;
        self
    }

    /// Runs guidance in two calls instead of one batch: slower, and half the activations.
    pub fn separate_guidance(mut self) -> Self {
        self.knobs.is_batched = false;
        self
    }

    /// Called after every step of every stage; `ControlFlow::Break(())` cancels the job.
    pub fn on_step(mut self, watch: impl FnMut(Step) -> ControlFlow<()> + 'a) -> Self {
        self.knobs.on_step = Some(Box::new(watch));
        self
    }
}

impl<K: Kind> Job<'_, K> {
    /// Makes the pictures.
    ///
    /// # Errors
    /// A missing stage, a setting out of range, a picture or tensor of the wrong shape,
    /// cancellation, or values that are not finite.
    pub fn run(self) -> Result<Output> {
        let Self {
            unclip,
            kind,
            mut knobs,
        } = self;
        const MOST: usize = 1 << 16;
        if !(1..=MOST).contains(&knobs.images) {
            let expected = format!("from 1 to {MOST}");
            return Err(Error::setting("images", knobs.images, expected));
        }
        let candidates = knobs.candidates;
        let refused = match candidates {
            0 => Some("at least 1 is needed"),
            1 => None,
            _ if kind.brings_noise() => {
                Some("1, as all pictures of this job come from the same noise")
            }
            _ => unclip.image_encoder().map(|_| None)?,
        };
        if let Some(expected) = refused {
            return Err(Error::setting("candidates", candidates, expected));
        }
        let stages = knobs.stages(unclip, kind.needs_prior())?;
        let (noise, seed) = match (knobs.noise.take(), knobs.seed) {
            (Some(noise), _) => (noise, None),
            (None, seed) => {
                let seed = seed.unwrap_or_else(fresh_seed);
                (Noise::from_seed(seed), Some(seed))
            }
        };
        let images = knobs.images;
        let mut bench = Bench {
            chain: Chain {
                unclip,
                stages,
                negative_prompt: knobs.negative_prompt,
                is_batched: knobs.is_batched,
                candidates,
                latents: [
                    knobs.prior.latents,
                    knobs.decoder.latents,
                    knobs.upsampler.latents,
                ],
                noise,
                watch: knobs.on_step,
            },
            images,
        };
        kind.check(&bench)?;
        let PlanBox(plan) = kind.plan(&mut bench)?;
        let settings = Settings {
            version: env!("CARGO_PKG_VERSION").into(),
            job: K::NAME.into(),
            checkpoint: unclip.checkpoint.clone(),
            precision: unclip.precision,
            exclamation: unclip.exclamation,
            prompts: plan.prompts.clone(),
            negative_prompt: bench.chain.negative_prompt.clone(),
            images,
            candidates,
            seed,
            prior: bench
                .chain
                .stages
                .prior
                .filter(|_| plan.embeddings.is_none()),
            decoder: bench.chain.stages.decoder,
            upsamplers: bench.chain.stages.upsamplers.clone(),
            details: plan.details.clone(),
        };
        bench.chain.make(plan, images, settings)
    }
}

impl<K: std::fmt::Debug> std::fmt::Debug for Job<'_, K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("kind", &self.kind)
            .field("images", &self.knobs.images)
            .finish_non_exhaustive()
    }
}
