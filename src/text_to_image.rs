//! Text → picture, through all stages.

use std::{
    ops::ControlFlow,
    time::{SystemTime, UNIX_EPOCH},
};

use burn::tensor::{Tensor, TensorData};
use unclip_core::{
    diffusion::Sampler,
    error::{Error, Result},
    image::{to_host, to_images},
    noise::Noise,
    stage::{Caption, Conditioning, Run, Stage, StageSettings, Step, TextEncoding, report},
};

use crate::{Output, Settings, UnClip};

/// Overrides of a stage's own settings.
#[derive(Clone, Default)]
struct Overrides {
    sampler: Option<Sampler>,
    steps: Option<usize>,
    guidance: Option<f64>,
    latents: Option<TensorData>,
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

/// The job of [`UnClip::text_to_image`]. Settings left alone are the checkpoint's own.
#[must_use = "call `run`"]
pub struct TextToImage<'a> {
    unclip: &'a UnClip,
    prompts: Vec<String>,
    negative_prompt: String,
    images: usize,
    seed: Option<u64>,
    noise: Option<Noise>,
    prior: Overrides,
    decoder: Overrides,
    upsampler: Overrides,
    embeddings: Option<Tensor<2>>,
    is_upsampled: bool,
    is_batched: bool,
    on_step: Option<Box<dyn FnMut(Step) -> ControlFlow<()> + 'a>>,
}

impl<'a> TextToImage<'a> {
    pub(crate) fn new(unclip: &'a UnClip, prompts: Vec<String>) -> Self {
        Self {
            unclip,
            prompts,
            negative_prompt: String::new(),
            images: 1,
            seed: None,
            noise: None,
            prior: Overrides::default(),
            decoder: Overrides::default(),
            upsampler: Overrides::default(),
            embeddings: None,
            is_upsampled: true,
            is_batched: true,
            on_step: None,
        }
    }

    /// Pictures of each prompt. Default: 1.
    pub fn images(mut self, count: usize) -> Self {
        self.images = count;
        self
    }

    /// Seed of all noise: the same seed is the same picture on every device, and the noise that
    /// `torch.Generator().manual_seed(seed)` gives on a CPU. Default: another one each time, kept
    /// in the output's settings.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Noise of one's own instead of a seed, for instance [`Noise::recorded`].
    pub fn noise(mut self, noise: Noise) -> Self {
        self.noise = Some(noise);
        self
    }

    /// What guidance leads away from. Default: the empty prompt.
    pub fn negative_prompt(mut self, prompt: impl Into<String>) -> Self {
        self.negative_prompt = prompt.into();
        self
    }

    /// The prior's steps. Default: the stage's (25).
    pub fn prior_steps(mut self, steps: usize) -> Self {
        self.prior.steps = Some(steps);
        self
    }

    /// The decoder's steps. Default: the stage's (25).
    pub fn decoder_steps(mut self, steps: usize) -> Self {
        self.decoder.steps = Some(steps);
        self
    }

    /// The upsamplers' steps. Default: the stage's (7).
    pub fn upsampler_steps(mut self, steps: usize) -> Self {
        self.upsampler.steps = Some(steps);
        self
    }

    /// The prior's sampler. Default: the stage's.
    pub fn prior_sampler(mut self, sampler: Sampler) -> Self {
        self.prior.sampler = Some(sampler);
        self
    }

    /// The decoder's sampler. Default: the stage's.
    pub fn decoder_sampler(mut self, sampler: Sampler) -> Self {
        self.decoder.sampler = Some(sampler);
        self
    }

    /// The upsamplers' sampler. Default: the stage's.
    pub fn upsampler_sampler(mut self, sampler: Sampler) -> Self {
        self.upsampler.sampler = Some(sampler);
        self
    }

    /// The prior's guidance scale. Default: the stage's (4).
    pub fn prior_guidance(mut self, scale: f64) -> Self {
        self.prior.guidance = Some(scale);
        self
    }

    /// The decoder's guidance scale. Default: the stage's (8).
    ///
    /// As in the reference, guidance is off only if both scales are at most 1; otherwise both
    /// stages are guided, each with its scale.
    pub fn decoder_guidance(mut self, scale: f64) -> Self {
        self.decoder.guidance = Some(scale);
        self
    }

    /// CLIP image embeddings instead of the prior's, `[prompts × images, d]`.
    pub fn image_embeddings(mut self, embeddings: Tensor<2>) -> Self {
        self.embeddings = Some(embeddings);
        self
    }

    /// The prior's x_T instead of noise, `[prompts × images, d]`.
    pub fn prior_latents(mut self, latents: Tensor<2>) -> Self {
        self.prior.latents = Some(latents.into_data());
        self
    }

    /// The decoder's x_T instead of noise, `[prompts × images, 3, h, w]`.
    pub fn decoder_latents(mut self, latents: Tensor<4>) -> Self {
        self.decoder.latents = Some(latents.into_data());
        self
    }

    /// The first upsampler's x_T instead of noise, `[prompts × images, 3, h, w]`.
    pub fn upsampler_latents(mut self, latents: Tensor<4>) -> Self {
        self.upsampler.latents = Some(latents.into_data());
        self
    }

    /// Stops after the decoder, at its size (64 × 64).
    pub fn without_upsampling(mut self) -> Self {
        self.is_upsampled = false;
        self
    }

    /// Runs guidance in two calls instead of one batch: slower, and half the activations.
    pub fn separate_guidance(mut self) -> Self {
        self.is_batched = false;
        self
    }

    /// Called after every step of every stage; `ControlFlow::Break(())` cancels the job.
    pub fn on_step(mut self, watch: impl FnMut(Step) -> ControlFlow<()> + 'a) -> Self {
        self.on_step = Some(Box::new(watch));
        self
    }

    /// Makes the pictures.
    ///
    /// # Errors
    /// A missing stage, a setting out of range, a tensor of the wrong shape, cancellation, or
    /// values that are not finite.
    pub fn run(mut self) -> Result<Output> {
        let settings = self.resolve()?;
        let mut noise = match (self.noise.take(), settings.seed) {
            (Some(noise), _) => noise,
            (None, seed) => Noise::from_seed(seed.unwrap_or_default()),
        };
        let is_guided = settings.decoder.guidance > 1.0
            || settings.prior.is_some_and(|prior| prior.guidance > 1.0);
        let (text, unconditional) = self.encode(is_guided)?;
        let caption = Caption {
            text: &text,
            unconditional: unconditional.as_ref(),
        };

        let image_embedding = match (self.embeddings.take(), settings.prior) {
            (Some(embeddings), _) => embeddings,
            (None, Some(prior)) => {
                let latents = self.prior.latents.take();
                let stage = self.unclip.prior()?;
                stage.sample(caption, &mut self.stage_run(prior, latents, &mut noise))?
            }
            (None, None) => unreachable!("without embeddings the prior has settings"),
        };
        to_host(image_embedding.clone(), "prior")?;

        let latents = self.decoder.latents.take();
        let conditioning = Conditioning {
            image_embedding: image_embedding.clone(),
            caption,
        };
        let stage = self.unclip.decoder()?;
        let small = stage.decode(
            &conditioning,
            &mut self.stage_run(settings.decoder, latents, &mut noise),
        )?;

        let mut pixels = small.clone();
        let unclip = self.unclip;
        for (stage, upsampler) in unclip.upsamplers().zip(&settings.upsamplers) {
            let latents = self.upsampler.latents.take();
            pixels =
                stage.upsample(pixels, &mut self.stage_run(*upsampler, latents, &mut noise))?;
        }
        Ok(Output {
            images: to_images(pixels.clone())?,
            pixels,
            small,
            image_embeddings: image_embedding,
            settings,
        })
    }

    /// Checks what can be checked before any work, and fixes what was left open.
    fn resolve(&self) -> Result<Settings> {
        let positive = |name: &str, count: usize| match count {
            0 => Err(Error::setting(name, 0, "at least 1 is needed")),
            _ => Ok(()),
        };
        positive("images", self.images)?;
        positive("prompts", self.prompts.len())?;
        for (name, guidance) in [
            ("prior guidance", self.prior.guidance),
            ("decoder guidance", self.decoder.guidance),
        ] {
            if let Some(scale) = guidance.filter(|scale| !scale.is_finite()) {
                return Err(Error::setting(name, scale, "a finite number is needed"));
            }
        }
        self.unclip.text_encoder()?;
        let prior = match &self.embeddings {
            Some(_) => None,
            None => Some(self.prior.settings(self.unclip.prior()?.defaults())),
        };
        let decoder = self.decoder.settings(self.unclip.decoder()?.defaults());
        let upsamplers: Vec<_> = match self.is_upsampled {
            true => self
                .unclip
                .upsamplers()
                .map(|stage| self.upsampler.settings(stage.defaults()))
                .collect(),
            false => Vec::new(),
        };
        if let Some(prior) = &prior {
            self.unclip.prior()?.check(prior)?;
        }
        self.unclip.decoder()?.check(&decoder)?;
        for (stage, settings) in self.unclip.upsamplers().zip(&upsamplers) {
            stage.check(settings)?;
        }
        if let Some(embeddings) = &self.embeddings {
            let (dims, rows) = (embeddings.dims(), self.prompts.len() * self.images);
            if dims[0] != rows {
                let expected = format!("[{rows}, d], a row for each picture");
                return Err(Error::shape("the image embeddings", &dims, expected));
            }
        }
        Ok(Settings {
            version: env!("CARGO_PKG_VERSION").into(),
            checkpoint: self.unclip.checkpoint.clone(),
            precision: self.unclip.precision,
            exclamation: self.unclip.exclamation,
            prompts: self.prompts.clone(),
            negative_prompt: self.negative_prompt.clone(),
            images: self.images,
            seed: match self.noise {
                Some(_) => None,
                None => Some(self.seed.unwrap_or_else(fresh_seed)),
            },
            prior,
            decoder,
            upsamplers,
        })
    }

    /// The prompts' encoding, a row for each picture, and the negative prompt's if needed.
    fn encode(&mut self, is_guided: bool) -> Result<(TextEncoding, Option<TextEncoding>)> {
        let encoder = self.unclip.text_encoder()?;
        let mut prompts: Vec<&str> = self.prompts.iter().map(String::as_str).collect();
        let count = prompts.len();
        // One call for both: a network that is loaded for each use is loaded once.
        if is_guided {
            prompts.push(&self.negative_prompt);
        }
        let all = encoder.encode_text(&prompts)?;
        let step = Step {
            stage: Stage::TextEncoder,
            done: 1,
            steps: 1,
        };
        report(self.on_step.as_deref_mut(), step)?;
        let text = all.narrow_rows(0, count).repeat_rows(self.images);
        let unconditional =
            is_guided.then(|| all.narrow_rows(count, 1).repeat_rows(count * self.images));
        Ok((text, unconditional))
    }

    fn stage_run<'r>(
        &'r mut self,
        settings: StageSettings,
        latents: Option<TensorData>,
        noise: &'r mut Noise,
    ) -> Run<'r> {
        let mut run = Run::new(settings.sampler, noise);
        run.guidance = settings.guidance;
        run.is_batched = self.is_batched;
        run.latents = latents;
        if let Some(watch) = &mut self.on_step {
            run.watch = Some(&mut **watch);
        }
        run
    }
}

/// A seed of 32 bits, which is all the generator uses.
fn fresh_seed() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    (now.as_nanos() as u64 ^ u64::from(std::process::id()).rotate_left(16)) & 0xffff_ffff
}

impl std::fmt::Debug for TextToImage<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextToImage")
            .field("prompts", &self.prompts)
            .field("images", &self.images)
            .finish_non_exhaustive()
    }
}
