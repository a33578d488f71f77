//! Text → picture, through all stages.

use burn::tensor::Tensor;
use serde_json::json;
use unclip_core::error::{Error, Result};

use super::job::{Bench, Job, Kind, Plan, PlanBox};

/// The kind of [`UnClip::text_to_image`](crate::UnClip::text_to_image).
#[derive(Debug)]
pub struct TextToImage {
    prompts: Vec<String>,
    embeddings: Option<Tensor<2>>,
    size: Option<[usize; 2]>,
}

impl TextToImage {
    pub(crate) fn new(prompts: Vec<String>) -> Self {
        Self {
            prompts,
            embeddings: None,
            size: None,
        }
    }
}

impl Job<'_, TextToImage> {
    /// CLIP image embeddings instead of the prior's, `[prompts × images, d]`.
    pub fn image_embeddings(mut self, embeddings: Tensor<2>) -> Self {
        self.kind.embeddings = Some(embeddings);
        self
    }

    /// Width and height of the finished pictures. Default: what the stages were trained for, which
    /// is also what they do best. Both have to be multiples of what the U-Nets and upsamplers
    /// divide by (32 for Karlo).
    pub fn size(mut self, width: usize, height: usize) -> Self {
        self.kind.size = Some([height, width]);
        self
    }
}

impl Kind for TextToImage {
    const NAME: &'static str = "text_to_image";

    fn needs_prior(&self) -> bool {
        self.embeddings.is_none()
    }

    fn check(&self, bench: &Bench<'_>) -> Result<()> {
        if self.prompts.is_empty() {
            return Err(Error::setting("prompts", 0, "at least 1 is needed"));
        }
        if let Some(embeddings) = &self.embeddings {
            let (dims, rows) = (embeddings.dims(), self.prompts.len() * bench.images);
            if dims[0] != rows {
                let expected = format!("[{rows}, d], a row for each picture");
                return Err(Error::shape("the image embeddings", &dims, expected));
            }
        }
        bench.chain.sizes(self.size).map(|_| ())
    }

    fn plan(self, _: &mut Bench<'_>) -> Result<PlanBox> {
        let size = self.size.map(|[height, width]| [width, height]);
        Ok(PlanBox(Plan {
            embeddings: self.embeddings,
            size: self.size,
            details: json!({ "size": size }),
            ..Plan::new(self.prompts)
        }))
    }
}
