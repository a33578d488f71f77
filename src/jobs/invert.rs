//! A picture as a bipartite latent: what CLIP sees in it, and the noise that holds the rest.

use burn::tensor::Tensor;
use image::DynamicImage;
use serde_json::{Value, json};
use unclip_core::{
    diffusion::{
        Sampler,
        sampler::{Ddim, Spacing},
    },
    error::Result,
    image::from_images,
    stage::{Caption, Conditioning, StageSettings},
};

use super::{
    chain::{Chain, Given},
    fit::{resized, scaled, size_of},
    job::{Bench, Job, Kind, Plan, PlanBox},
};
use crate::UnClip;

/// A picture as (z_i, x_T) (unCLIP §3): its CLIP image embedding, and the noise from which the
/// decoder makes it under that embedding.
#[derive(Clone, Debug)]
pub struct BipartiteLatents {
    /// z_i, `[1, d]`, in CLIP's own units.
    pub image_embedding: Tensor<2>,
    /// x_T, `[1, 3, h, w]`.
    pub noise: Tensor<4>,
    /// The caption the decoder was given.
    pub prompt: String,
    /// The sampler's steps.
    pub steps: usize,
}

impl BipartiteLatents {
    /// The sampler that leads back to the picture, with `eta` of fresh noise.
    pub fn sampler(&self, eta: f64) -> Sampler {
        Sampler::Ddim(Ddim {
            eta,
            ..inversion_ddim(self.steps)
        })
    }

    fn size(&self) -> [usize; 2] {
        let [_, _, height, width] = self.noise.dims();
        [height, width]
    }
}

/// The deterministic sampler of both ways.
pub(super) fn sampler_of(steps: usize) -> Sampler {
    Sampler::Ddim(inversion_ddim(steps))
}

/// DDIM that can be walked both ways: the same ε in both, nothing clipped.
fn inversion_ddim(steps: usize) -> Ddim {
    Ddim {
        spacing: Spacing::Leading { offset: 0 },
        is_noise_from_clipped: false,
        is_clipped: false,
        ..Ddim::new(steps)
    }
}

/// The job of [`UnClip::invert`]: like [`Job`], but what comes out is no picture.
#[must_use = "call `run`"]
pub struct Invert<'a> {
    job: Job<'a, ()>,
    pictures: Vec<DynamicImage>,
    prompt: String,
    steps: usize,
    rounds: usize,
}

impl<'a> Invert<'a> {
    pub(crate) fn new(unclip: &'a UnClip, picture: DynamicImage) -> Self {
        Self {
            job: Job::new(unclip, ()),
            pictures: vec![picture],
            prompt: String::new(),
            steps: 100,
            rounds: 1,
        }
    }

    /// Steps of DDIM, there and back: the more, the closer. Default: 100.
    pub fn steps(mut self, steps: usize) -> Self {
        self.steps = steps;
        self
    }

    /// How often the network is asked in each step; more come closer with fewer steps. Default: 1.
    pub fn rounds(mut self, rounds: usize) -> Self {
        self.rounds = rounds;
        self
    }

    /// A caption for the decoder. Default: none.
    pub fn prompt(mut self, prompt: impl Into<String>) -> Self {
        self.prompt = prompt.into();
        self
    }

    /// Called after every step; `ControlFlow::Break(())` cancels the job.
    pub fn on_step(
        mut self,
        watch: impl FnMut(unclip_core::stage::Step) -> std::ops::ControlFlow<()> + 'a,
    ) -> Self {
        self.job = self.job.on_step(watch);
        self
    }

    /// Finds the latents.
    ///
    /// # Errors
    /// A missing stage (an image encoder is needed, and a decoder that can be inverted), a setting
    /// out of range, cancellation, or values that are not finite.
    pub fn run(self) -> Result<BipartiteLatents> {
        let mut knobs = self.job.knobs;
        let unclip = self.job.unclip;
        unclip.image_encoder()?;
        knobs.decoder.sampler = Some(sampler_of(self.steps));
        knobs.decoder.guidance = Some(1.0);
        let stages = knobs.stages(unclip, false)?;
        let mut chain = Chain {
            unclip,
            stages,
            negative_prompt: String::new(),
            is_batched: true,
            candidates: 1,
            latents: [None, None, None],
            noise: unclip_core::noise::Noise::from_seed(0),
            watch: knobs.on_step,
        };
        let mut latents = invert_all(
            &mut chain,
            &self.pictures,
            &self.prompt,
            self.steps,
            self.rounds,
        )?;
        Ok(latents.remove(0))
    }
}

impl std::fmt::Debug for Invert<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invert")
            .field("steps", &self.steps)
            .field("rounds", &self.rounds)
            .finish_non_exhaustive()
    }
}

/// The latents of pictures, each at the decoder's size with its own shape.
pub(super) fn invert_all(
    chain: &mut Chain<'_>,
    pictures: &[DynamicImage],
    prompt: &str,
    steps: usize,
    rounds: usize,
) -> Result<Vec<BipartiteLatents>> {
    let embeddings = chain.embed(pictures)?;
    let encoded = chain.encode(&[prompt.to_owned()], 1, false)?;
    let unclip = chain.unclip;
    let stage = unclip.decoder()?;
    let frame = chain.frames()?[0];
    let longer = frame.size[0].max(frame.size[1]);
    let settings = StageSettings {
        sampler: sampler_of(steps),
        guidance: 1.0,
    };
    let mut all = Vec::with_capacity(pictures.len());
    for (row, picture) in pictures.iter().enumerate() {
        let picture = picture.to_rgb8();
        let own = size_of(&picture)?;
        let size = scaled(own, longer).map(|n| n.next_multiple_of(frame.multiple));
        let pixels = from_images(&[resized(&picture, size)], &embeddings.device())?;
        let image_embedding = embeddings.clone().narrow(0, row, 1);
        let conditioning = Conditioning {
            image_embedding: image_embedding.clone(),
            caption: Caption {
                text: &encoded.text,
                unconditional: None,
            },
        };
        let given = Given {
            size: Some(size),
            ..Given::default()
        };
        let noise = stage.invert(
            pixels,
            &conditioning,
            rounds,
            &mut chain.run(settings, given),
        )?;
        all.push(BipartiteLatents {
            image_embedding,
            noise,
            prompt: prompt.to_owned(),
            steps,
        });
    }
    Ok(all)
}

/// The kind of [`UnClip::reconstruct`](crate::UnClip::reconstruct).
#[derive(Debug)]
pub struct Reconstruct {
    latents: Vec<BipartiteLatents>,
    details: Value,
}

impl Reconstruct {
    pub(crate) fn new(latents: BipartiteLatents) -> Self {
        Self {
            latents: vec![latents],
            details: Value::Null,
        }
    }
}

impl<'a> Job<'a, Reconstruct> {
    /// A job that leads every one of `latents` back to a picture, deterministically unless told
    /// otherwise.
    pub(crate) fn back(unclip: &'a UnClip, kind: Reconstruct) -> Self {
        let sampler = kind.latents[0].sampler(0.0);
        Job::new(unclip, kind)
            .decoder_sampler(sampler)
            .decoder_guidance(1.0)
    }

    /// Fresh noise in each step: 0 gives the picture again, up to 1 varies it more and more.
    /// Default: 0.
    pub fn eta(self, eta: f64) -> Self {
        let sampler = self.kind.latents[0].sampler(eta);
        self.decoder_sampler(sampler)
    }
}

impl Kind for Reconstruct {
    const NAME: &'static str = "reconstruct";

    fn needs_prior(&self) -> bool {
        false
    }

    fn brings_noise(&self) -> bool {
        true
    }

    fn check(&self, _: &Bench<'_>) -> Result<()> {
        Ok(())
    }

    fn plan(self, bench: &mut Bench<'_>) -> Result<PlanBox> {
        plan_of(self.latents, bench, self.details).map(PlanBox)
    }
}

/// A plan that makes a picture, `images` times, of each of these latents.
pub(super) fn plan_of(
    latents: Vec<BipartiteLatents>,
    bench: &Bench<'_>,
    details: Value,
) -> Result<Plan> {
    let size = latents[0].size();
    let rows = |latents: &BipartiteLatents| latents.noise.clone().repeat_dim(0, bench.images);
    let noise = Tensor::cat(latents.iter().map(rows).collect(), 0);
    let embeddings = |latents: &BipartiteLatents| {
        let embedding = latents.image_embedding.clone();
        embedding.repeat_dim(0, bench.images)
    };
    let frames = bench.chain.frames()?;
    let (small, large) = (frames[0].size, frames[frames.len() - 1].size);
    Ok(Plan {
        embeddings: Some(Tensor::cat(latents.iter().map(embeddings).collect(), 0)),
        decoder_latents: Some(noise.into_data()),
        size: Some([0, 1].map(|i| size[i] * large[i] / small[i])),
        details: match details {
            Value::Null => json!({ "steps": latents[0].steps }),
            details => details,
        },
        ..Plan::new(latents.iter().map(|l| l.prompt.clone()).collect())
    })
}
