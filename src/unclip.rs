//! The stages of a checkpoint together.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use image::DynamicImage;
use unclip_clip::tokenizer::Exclamation;
use unclip_core::{
    error::{Error, Result},
    mask::Mask,
    stage::{Decoder, ImageEncoder, Prior, TextEncoder, Upsampler},
    weights::Precision,
};

use crate::{
    BipartiteLatents, Builder, Edit, Extend, ImageToImage, Interpolate, Invert, Job, Reconstruct,
    TextDiff, TextToImage, Variations,
};

/// The stages of unCLIP, ready for jobs.
///
/// Load a checkpoint folder with [`UnClip::load`], or choose everything with
/// [`UnClip::builder`]. A job that needs a stage that is not there says which.
pub struct UnClip {
    pub(crate) text_encoder: Option<Box<dyn TextEncoder>>,
    pub(crate) image_encoder: Option<Box<dyn ImageEncoder>>,
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

    /// A picture of `prompt`; set what you like, then [`run`](Job::run).
    pub fn text_to_image(&self, prompt: impl Into<String>) -> Job<'_, TextToImage> {
        self.texts_to_images([prompt])
    }

    /// Pictures of several prompts in one batch.
    pub fn texts_to_images<S: Into<String>>(
        &self,
        prompts: impl IntoIterator<Item = S>,
    ) -> Job<'_, TextToImage> {
        let prompts = prompts.into_iter().map(Into::into).collect();
        Job::new(self, TextToImage::new(prompts))
    }

    /// Other pictures of what `picture` shows: its CLIP embedding, decoded from fresh noise.
    pub fn variations(&self, picture: &DynamicImage) -> Job<'_, Variations> {
        self.variations_of([picture.clone()])
    }

    /// Variations of several pictures in one batch.
    pub fn variations_of(
        &self,
        pictures: impl IntoIterator<Item = DynamicImage>,
    ) -> Job<'_, Variations> {
        Job::new(self, Variations::new(pictures.into_iter().collect()))
    }

    /// Pictures of CLIP image embeddings, `[pictures, d]` in CLIP's own units.
    pub fn decode_embeddings(&self, embeddings: Tensor<2>) -> Job<'_, Variations> {
        Job::new(self, Variations::of_embeddings(embeddings))
    }

    /// Paints what `mask` covers anew as `prompt` says; every other pixel comes out unchanged
    /// (text-guided inpainting).
    pub fn edit(
        &self,
        picture: &DynamicImage,
        mask: &Mask,
        prompt: impl Into<String>,
    ) -> Job<'_, Edit> {
        Job::new(
            self,
            Edit::inside(picture.clone(), mask.clone(), prompt.into()),
        )
    }

    /// Paints over what `mask` covers with background.
    pub fn remove(&self, picture: &DynamicImage, mask: &Mask) -> Job<'_, Edit> {
        self.edit(picture, mask, "")
    }

    /// Paints what lies around `picture`.
    pub fn outpaint(
        &self,
        picture: &DynamicImage,
        extend: Extend,
        prompt: impl Into<String>,
    ) -> Job<'_, Edit> {
        Job::new(self, Edit::around(picture.clone(), extend, prompt.into()))
    }

    /// Redraws `picture` as `prompt` says, from a noisy version of it.
    pub fn image_to_image(
        &self,
        picture: &DynamicImage,
        prompt: impl Into<String>,
    ) -> Job<'_, ImageToImage> {
        Job::new(self, ImageToImage::new(picture.clone(), prompt.into()))
    }

    /// `picture` as a CLIP embedding and the noise that holds the rest (DDIM inversion).
    pub fn invert(&self, picture: &DynamicImage) -> Invert<'_> {
        Invert::new(self, picture.clone())
    }

    /// The picture that was [inverted](Self::invert), or variations of it that keep what the noise
    /// holds.
    pub fn reconstruct(&self, latents: &BipartiteLatents) -> Job<'_, Reconstruct> {
        Job::back(self, Reconstruct::new(latents.clone()))
    }

    /// Pictures on the way from each of `pictures` to the next.
    pub fn interpolate(
        &self,
        pictures: impl IntoIterator<Item = DynamicImage>,
    ) -> Job<'_, Interpolate> {
        Job::new(self, Interpolate::new(pictures.into_iter().collect()))
    }

    /// `picture` changed in the direction that leads from the caption `from` to the caption `to`.
    pub fn text_diff(
        &self,
        picture: &DynamicImage,
        from: impl Into<String>,
        to: impl Into<String>,
    ) -> Job<'_, TextDiff> {
        Job::new(self, TextDiff::new(picture.clone(), from.into(), to.into()))
            .inverted(100, 1)
            .decoder_guidance(1.0)
    }

    /// The image encoder, for use on its own.
    ///
    /// # Errors
    /// [`Error::MissingStage`].
    pub fn image_encoder(&self) -> Result<&dyn ImageEncoder> {
        self.image_encoder
            .as_deref()
            .ok_or_else(|| Error::MissingStage {
                stage: "image encoder".into(),
                hint: "load a variation checkpoint, give the builder a CLIP vision tower's folder \
                   with `clip_vision`, or an encoder of yours"
                    .into(),
            })
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

    /// Puts another prior in the place of the one there is, and gives that back: to compare priors
    /// on one loaded checkpoint.
    pub fn replace_prior(&mut self, prior: Box<dyn Prior>) -> Option<Box<dyn Prior>> {
        self.prior.replace(prior)
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
            .field("image_encoder", &self.image_encoder.is_some())
            .field("prior", &self.prior.is_some())
            .field("decoder", &self.decoder.is_some())
            .field("upsamplers", &self.upsamplers.len())
            .finish()
    }
}
