//! A picture changed in the direction between two captions (unCLIP §3.3).

use image::DynamicImage;
use serde_json::json;
use unclip_core::{
    error::{Error, Result},
    slerp::{normalize_rows, slerp},
};

use super::{
    invert::{BipartiteLatents, invert_all, plan_of, sampler_of},
    job::{Bench, Job, Kind, PlanBox},
};

/// The kind of [`UnClip::text_diff`](crate::UnClip::text_diff).
#[derive(Debug)]
pub struct TextDiff {
    picture: DynamicImage,
    from: String,
    to: String,
    frames: usize,
    theta: f64,
    steps: usize,
    rounds: usize,
}

impl TextDiff {
    pub(crate) fn new(picture: DynamicImage, from: String, to: String) -> Self {
        Self {
            picture,
            from,
            to,
            frames: 5,
            theta: 0.5,
            steps: 100,
            rounds: 1,
        }
    }
}

impl Job<'_, TextDiff> {
    /// Pictures from θ = 0, the picture itself, to the last θ. Default: 5.
    pub fn frames(mut self, frames: usize) -> Self {
        self.kind.frames = frames;
        self
    }

    /// The last θ, from 0 to 1; the paper goes to between 0.25 and 0.5. Default: 0.5.
    pub fn theta(mut self, theta: f64) -> Self {
        self.kind.theta = theta;
        self
    }

    /// Steps of DDIM, there and back, and network evaluations in each step there. Default: 100, 1.
    pub fn inverted(mut self, steps: usize, rounds: usize) -> Self {
        (self.kind.steps, self.kind.rounds) = (steps, rounds);
        self.decoder_sampler(sampler_of(steps))
    }
}

impl Kind for TextDiff {
    const NAME: &'static str = "text_diff";

    fn needs_prior(&self) -> bool {
        false
    }

    fn brings_noise(&self) -> bool {
        true
    }

    fn check(&self, bench: &Bench<'_>) -> Result<()> {
        bench.chain.unclip.image_encoder()?;
        if self.frames == 0 {
            return Err(Error::setting("frames", 0, "at least 1 is needed"));
        }
        match (0.0..=1.0).contains(&self.theta) {
            true => Ok(()),
            false => Err(Error::setting("theta", self.theta, "a number from 0 to 1")),
        }
    }

    fn plan(self, bench: &mut Bench<'_>) -> Result<PlanBox> {
        let captions = [self.to.clone(), self.from.clone()];
        let text = bench.chain.encode(&captions, 1, false)?.text.embedding;
        let direction = text.clone().narrow(0, 0, 1) - text.narrow(0, 1, 1);
        let picture = std::slice::from_ref(&self.picture);
        let latents = invert_all(&mut bench.chain, picture, "", self.steps, self.rounds)?.remove(0);
        // A rotation: the direction gets the embedding's length.
        let start = latents.image_embedding.clone();
        let length = start.clone().powi_scalar(2).sum_dim(1).sqrt();
        let direction = normalize_rows(direction.to_device(&start.device())) * length;
        let thetas: Vec<f64> = (0..self.frames)
            .map(|i| self.theta * i as f64 / (self.frames - 1).max(1) as f64)
            .collect();
        let frame = |theta: &f64| -> Result<BipartiteLatents> {
            Ok(BipartiteLatents {
                image_embedding: slerp(start.clone(), direction.clone(), *theta)?,
                ..latents.clone()
            })
        };
        let frames = thetas.iter().map(frame).collect::<Result<Vec<_>>>()?;
        let details = json!({
            "from": self.from,
            "to": self.to,
            "thetas": thetas,
            "steps": self.steps,
        });
        let mut plan = plan_of(frames, bench, details)?;
        plan.shares_noise = true;
        Ok(PlanBox(plan))
    }
}
