//! What the paper compares its priors with (unCLIP §5.1, figure 8).

use burn::tensor::{Device, Tensor};
use unclip_core::{
    error::Result,
    stage::{Caption, Prior, Run, Stage},
};

/// No prior: the image embedding is zero, and the decoder has nothing but the caption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoPrior;

/// The text embedding in place of an image embedding.
///
/// CLIP's two kinds of embeddings lie apart, so that a decoder trained on the one sees in the other
/// something it has never seen; that it works at all is one of the paper's findings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextAsImage;

impl Prior for NoPrior {
    fn sample(&self, caption: Caption<'_>, run: &mut Run<'_>) -> Result<Tensor<2>> {
        let text = &caption.text.embedding;
        let device: Device = text.device();
        run.report(Stage::Prior, 1, 1)?;
        Ok(Tensor::zeros(text.dims(), &device))
    }
}

impl Prior for TextAsImage {
    fn sample(&self, caption: Caption<'_>, run: &mut Run<'_>) -> Result<Tensor<2>> {
        run.report(Stage::Prior, 1, 1)?;
        Ok(caption.text.embedding.clone())
    }
}
