//! A picture redrawn from a noisy version of itself (SDEdit, arXiv 2108.01073).

use image::DynamicImage;
use serde_json::json;
use unclip_core::error::Result;

use super::{
    fit::{Fit, Fitted},
    job::{Bench, Job, Kind, Plan, PlanBox},
};

/// The kind of [`UnClip::image_to_image`](crate::UnClip::image_to_image).
#[derive(Debug)]
pub struct ImageToImage {
    picture: DynamicImage,
    prompt: String,
    strength: f64,
    fit: Fit,
}

impl ImageToImage {
    pub(crate) fn new(picture: DynamicImage, prompt: String) -> Self {
        Self {
            picture,
            prompt,
            strength: 0.6,
            fit: Fit::Trained,
        }
    }

    fn fitted(&self, bench: &Bench<'_>) -> Result<Fitted> {
        let picture = self.picture.to_rgb8();
        let mut fitted = Fitted::new(&bench.chain, &picture, None, self.fit)?;
        fitted.strength = self.strength;
        Ok(fitted)
    }
}

impl Job<'_, ImageToImage> {
    /// Share of the decoder's steps that are made: little stays close to the picture, 1 forgets
    /// it. Default: 0.6.
    pub fn strength(mut self, strength: f64) -> Self {
        self.kind.strength = strength;
        self
    }

    /// Works on the picture at its own size. Default: scaled to the trained size.
    pub fn at_own_size(mut self) -> Self {
        self.kind.fit = Fit::Own;
        self
    }
}

impl Kind for ImageToImage {
    const NAME: &'static str = "image_to_image";

    fn needs_prior(&self) -> bool {
        true
    }

    fn check(&self, bench: &Bench<'_>) -> Result<()> {
        let fitted = self.fitted(bench)?;
        bench.chain.sizes(Some(fitted.size()))?;
        fitted.check()
    }

    fn plan(self, bench: &mut Bench<'_>) -> Result<PlanBox> {
        let fitted = self.fitted(bench)?;
        Ok(PlanBox(Plan {
            size: Some(fitted.size()),
            canvas: Some(fitted),
            details: json!({ "strength": self.strength }),
            ..Plan::new(vec![self.prompt])
        }))
    }
}
