//! The stages of a checkpoint together.

use std::path::Path;

use burn::tensor::Device;
use unclip_clip::tokenizer::Exclamation;
use unclip_core::{
    error::{Error, Result},
    stage::{Decoder, Prior, TextEncoder, Upsampler},
    weights::Precision,
};

use crate::{Builder, TextToImage};

/// The stages of unCLIP, ready for jobs.
///
/// Load a checkpoint folder with [`UnClip::load`], or choose everything with
/// [`UnClip::builder`]. A job that needs a stage that is not there says which.
pub struct UnClip {
    pub(crate) text_encoder: Option<Box<dyn TextEncoder>>,
    pub(crate) prior: Option<Box<dyn Prior>>,
    pub(crate) decoder: Option<Box<dyn Decoder>>,
    pub(crate) upsamplers: Vec<Box<dyn Upsampler>>,
    /// Name of the checkpoint, for the record in each picture.
    pub(crate) checkpoint: Option<String>,
    pub(crate) precision: Precision,
    pub(crate) exclamation: Exclamation,
}

impl UnClip {
    /// Loads a checkpoint folder in diffusers' layout onto `device`, in f32, all of it.
    ///
    /// # Errors
    /// Everything that is missing, damaged, unsupported or does not fit, by name.
    pub fn load(folder: impl AsRef<Path>, device: &Device) -> Result<Self> {
        Self::builder(device).checkpoint(folder).build()
    }

    /// Chooses checkpoint, stages, devices, precision and residency.
    pub fn builder(device: &Device) -> Builder {
        Builder::new(device)
    }

    /// A picture of `prompt`; set what you like, then [`run`](TextToImage::run).
    pub fn text_to_image(&self, prompt: impl Into<String>) -> TextToImage<'_> {
        TextToImage::new(self, vec![prompt.into()])
    }

    /// Pictures of several prompts in one batch.
    pub fn texts_to_images<S: Into<String>>(
        &self,
        prompts: impl IntoIterator<Item = S>,
    ) -> TextToImage<'_> {
        TextToImage::new(self, prompts.into_iter().map(Into::into).collect())
    }

    /// The text encoder, for use on its own.
    ///
    /// # Errors
    /// [`Error::MissingStage`].
    pub fn text_encoder(&self) -> Result<&dyn TextEncoder> {
        self.text_encoder
            .as_deref()
            .ok_or_else(|| missing("text encoder"))
    }

    /// The prior, for use on its own.
    ///
    /// # Errors
    /// [`Error::MissingStage`].
    pub fn prior(&self) -> Result<&dyn Prior> {
        self.prior.as_deref().ok_or_else(|| missing("prior"))
    }

    /// The decoder, for use on its own.
    ///
    /// # Errors
    /// [`Error::MissingStage`].
    pub fn decoder(&self) -> Result<&dyn Decoder> {
        self.decoder.as_deref().ok_or_else(|| missing("decoder"))
    }

    /// The upsamplers in order; none if pictures stay at the decoder's size.
    pub fn upsamplers(&self) -> impl ExactSizeIterator<Item = &dyn Upsampler> {
        self.upsamplers.iter().map(|u| &**u)
    }
}

fn missing(stage: &str) -> Error {
    Error::MissingStage {
        stage: stage.to_owned(),
        hint: "load a checkpoint that has one, or give the builder one of yours".into(),
    }
}

impl std::fmt::Debug for UnClip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnClip")
            .field("checkpoint", &self.checkpoint)
            .field("text_encoder", &self.text_encoder.is_some())
            .field("prior", &self.prior.is_some())
            .field("decoder", &self.decoder.is_some())
            .field("upsamplers", &self.upsamplers.len())
            .finish()
    }
}
