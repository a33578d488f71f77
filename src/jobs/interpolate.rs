//! Pictures between pictures, by way of their CLIP embeddings.

use burn::tensor::Tensor;
use image::DynamicImage;
use serde_json::json;
use unclip_core::{
    error::{Error, Result},
    slerp::slerp,
};

use super::{
    chain::repeat_rows,
    invert::{BipartiteLatents, invert_all, plan_of, sampler_of},
    job::{Bench, Job, Kind, Plan, PlanBox},
};

/// The kind of [`UnClip::interpolate`](crate::UnClip::interpolate).
#[derive(Debug)]
pub struct Interpolate {
    pictures: Vec<DynamicImage>,
    frames: usize,
    inversion: Option<(usize, usize)>,
}

impl Interpolate {
    pub(crate) fn new(pictures: Vec<DynamicImage>) -> Self {
        Self {
            pictures,
            frames: 8,
            inversion: None,
        }
    }

    /// Where each frame lies: between which two pictures, and how far.
    fn places(&self) -> Vec<(usize, f64)> {
        let legs = self.pictures.len() - 1;
        (0..self.frames)
            .map(|i| {
                let at = (i * legs) as f64 / (self.frames - 1) as f64;
                let leg = (at.floor() as usize).min(legs - 1);
                (leg, at - leg as f64)
            })
            .collect()
    }
}

impl Job<'_, Interpolate> {
    /// Pictures in all, the first and the last at the ends. Default: 8.
    pub fn frames(mut self, frames: usize) -> Self {
        self.kind.frames = frames;
        self
    }

    /// Interpolates the noise too, from what inversion finds for each picture in `steps` steps of
    /// `rounds` network evaluations: the ends are then the pictures themselves. Default: all frames
    /// have the same noise, and the ends are variations of the pictures.
    pub fn inverted(mut self, steps: usize, rounds: usize) -> Self {
        self.kind.inversion = Some((steps, rounds));
        let sampler = sampler_of(steps);
        self.decoder_sampler(sampler).decoder_guidance(1.0)
    }
}

impl Kind for Interpolate {
    const NAME: &'static str = "interpolate";

    fn needs_prior(&self) -> bool {
        false
    }

    fn brings_noise(&self) -> bool {
        true
    }

    fn check(&self, bench: &Bench<'_>) -> Result<()> {
        bench.chain.unclip.image_encoder()?;
        for (name, count) in [("pictures", self.pictures.len()), ("frames", self.frames)] {
            if count < 2 {
                return Err(Error::setting(name, count, "at least 2 are needed"));
            }
        }
        Ok(())
    }

    fn plan(self, bench: &mut Bench<'_>) -> Result<PlanBox> {
        let places = self.places();
        let shares: Vec<_> = places
            .iter()
            .map(|(leg, share)| *leg as f64 + share)
            .collect();
        let details = json!({ "places": shares, "inverted": self.inversion });
        if let Some((steps, rounds)) = self.inversion {
            let ends = invert_all(&mut bench.chain, &self.pictures, "", steps, rounds)?;
            let frame = |(leg, share): (usize, f64)| -> Result<BipartiteLatents> {
                let (from, to) = (&ends[leg], &ends[leg + 1]);
                Ok(BipartiteLatents {
                    image_embedding: between(&from.image_embedding, &to.image_embedding, share)?,
                    noise: slerp(from.noise.clone(), to.noise.clone(), share)?,
                    ..from.clone()
                })
            };
            let frames = places.into_iter().map(frame).collect::<Result<Vec<_>>>()?;
            let mut plan = plan_of(frames, bench, details)?;
            plan.shares_noise = true;
            return Ok(PlanBox(plan));
        }
        let ends = bench.chain.embed(&self.pictures)?;
        let end = |i: usize| ends.clone().narrow(0, i, 1);
        let frame = |(leg, share): (usize, f64)| between(&end(leg), &end(leg + 1), share);
        let frames = places.into_iter().map(frame).collect::<Result<Vec<_>>>()?;
        let count = frames.len();
        let rows = Tensor::cat(frames, 0);
        Ok(PlanBox(Plan {
            embeddings: Some(repeat_rows(rows, bench.images)),
            shares_noise: true,
            details,
            ..Plan::new(vec![String::new(); count])
        }))
    }
}

fn between(from: &Tensor<2>, to: &Tensor<2>, share: f64) -> Result<Tensor<2>> {
    slerp(from.clone(), to.clone(), share)
}
