//! Picture → other pictures of the same: what CLIP keeps stays, the rest is drawn anew.

use image::DynamicImage;
use serde_json::json;
use unclip_core::error::{Error, Result};

use super::{
    chain::repeat_rows,
    job::{Bench, Job, Kind, Plan, PlanBox},
};

/// The kind of [`UnClip::variations`](crate::UnClip::variations).
#[derive(Debug)]
pub struct Variations {
    pictures: Vec<DynamicImage>,
    embeddings: Option<burn::tensor::Tensor<2>>,
    prompt: String,
    shares_noise: bool,
}

impl Variations {
    pub(crate) fn new(pictures: Vec<DynamicImage>) -> Self {
        Self {
            pictures,
            embeddings: None,
            prompt: String::new(),
            shares_noise: false,
        }
    }

    pub(crate) fn of_embeddings(embeddings: burn::tensor::Tensor<2>) -> Self {
        Self {
            pictures: Vec::new(),
            embeddings: Some(embeddings),
            prompt: String::new(),
            shares_noise: false,
        }
    }
}

impl Job<'_, Variations> {
    /// A caption for the decoder. Default: none.
    pub fn prompt(mut self, prompt: impl Into<String>) -> Self {
        self.kind.prompt = prompt.into();
        self
    }

    /// Makes every picture from the same noise, so that only the embeddings differ.
    pub fn shared_noise(mut self) -> Self {
        self.kind.shares_noise = true;
        self
    }
}

impl Kind for Variations {
    const NAME: &'static str = "variations";

    fn needs_prior(&self) -> bool {
        false
    }

    fn brings_noise(&self) -> bool {
        self.shares_noise
    }

    fn check(&self, bench: &Bench<'_>) -> Result<()> {
        match &self.embeddings {
            Some(_) => Ok(()),
            None if self.pictures.is_empty() => {
                Err(Error::setting("pictures", 0, "at least 1 is needed"))
            }
            None => bench.chain.unclip.image_encoder().map(|_| ()),
        }
    }

    fn plan(self, bench: &mut Bench<'_>) -> Result<PlanBox> {
        let embeddings = match self.embeddings {
            Some(embeddings) => embeddings,
            None => bench.chain.embed(&self.pictures)?,
        };
        let count = embeddings.dims()[0];
        Ok(PlanBox(Plan {
            embeddings: Some(repeat_rows(embeddings, bench.images)),
            shares_noise: self.shares_noise,
            details: json!({ "pictures": count, "shared_noise": self.shares_noise }),
            ..Plan::new(vec![self.prompt; count])
        }))
    }
}
