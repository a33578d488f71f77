//! Choosing what an [`UnClip`] is made of.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use unclip_clip::tokenizer::Exclamation;
use unclip_core::{
    error::Result,
    stage::{Decoder, ImageEncoder, Prior, TextEncoder, Upsampler},
    weights::{LoadOptions, Precision},
};

use crate::{
    UnClip,
    checkpoint::{CheckpointFolder, clip_vision},
};

/// How long networks stay in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Residency {
    /// All are loaded at once and stay: for several jobs, with the memory for it.
    #[default]
    Keep,
    /// Each is loaded when its stage runs and dropped after it: a whole checkpoint in the memory
    /// of its largest network. Files are checked when the checkpoint is opened.
    OneAtATime,
}

/// Builds an [`UnClip`]: from a checkpoint, with stages of your own, or of these alone.
///
/// ```no_run
/// # fn main() -> Result<(), unclip::Error> {
/// use unclip::{Precision, Residency, UnClip, burn::tensor::Device};
/// let unclip = UnClip::builder(&Device::flex())
///     .checkpoint("karlo-v1-alpha")
///     .precision(Precision::HALF_WEIGHTS)
///     .residency(Residency::OneAtATime)
///     .build()?;
/// # Ok(()) }
/// ```
#[must_use = "call `build`"]
pub struct Builder {
    pub(crate) checkpoint: Option<PathBuf>,
    clip_vision: Option<PathBuf>,
    pub(crate) options: LoadOptions,
    pub(crate) residency: Residency,
    pub(crate) variant: Option<String>,
    pub(crate) exclamation: Exclamation,
    pub(crate) text_encoder_device: Device,
    pub(crate) image_encoder_device: Device,
    pub(crate) prior_device: Device,
    pub(crate) decoder_device: Device,
    pub(crate) upsampler_device: Device,
    text_encoder: Option<Box<dyn TextEncoder>>,
    image_encoder: Option<Box<dyn ImageEncoder>>,
    prior: Option<Box<dyn Prior>>,
    decoder: Option<Box<dyn Decoder>>,
    upsamplers: Option<Vec<Box<dyn Upsampler>>>,
}

impl Builder {
    pub(crate) fn new(device: &Device) -> Self {
        Self {
            checkpoint: None,
            clip_vision: None,
            options: LoadOptions::default(),
            residency: Residency::default(),
            variant: None,
            exclamation: Exclamation::default(),
            text_encoder_device: device.clone(),
            image_encoder_device: device.clone(),
            prior_device: device.clone(),
            decoder_device: device.clone(),
            upsampler_device: device.clone(),
            text_encoder: None,
            image_encoder: None,
            prior: None,
            decoder: None,
            upsamplers: None,
        }
    }

    /// The folder of a CLIP, or of its vision tower, in transformers' layout: the image encoder for
    /// a checkpoint that has none. It has to be the CLIP whose embeddings the decoder was trained
    /// on (for Karlo OpenAI's ViT-L/14).
    pub fn clip_vision(mut self, folder: impl AsRef<Path>) -> Self {
        self.clip_vision = Some(folder.as_ref().to_owned());
        self
    }

    /// The folder (with `model_index.json`) of every stage that is not given otherwise.
    pub fn checkpoint(mut self, folder: impl AsRef<Path>) -> Self {
        self.checkpoint = Some(folder.as_ref().to_owned());
        self
    }

    /// Types of weights and arithmetic. Default: f32 for both.
    pub fn precision(mut self, precision: Precision) -> Self {
        self.options.precision = precision;
        self
    }

    /// Refuse weights with NaN or infinite values. Default: off, since it reads everything twice.
    pub fn check_finite(mut self, on: bool) -> Self {
        self.options.check_finite = on;
        self
    }

    /// How long networks stay in memory. Default: [`Residency::Keep`].
    pub fn residency(mut self, residency: Residency) -> Self {
        self.residency = residency;
        self
    }

    /// Which variant of the weight files to read, such as `fp16`. Default: the plain ones, or the
    /// only ones.
    pub fn variant(mut self, variant: impl Into<String>) -> Self {
        self.variant = Some(variant.into());
        self
    }

    /// How "!" in a prompt is read. Default: as the word it is; diffusers reads Karlo's as
    /// padding.
    pub fn exclamation(mut self, exclamation: Exclamation) -> Self {
        self.exclamation = exclamation;
        self
    }

    /// Where the checkpoint's text encoder runs. Default: the builder's device.
    pub fn text_encoder_on(mut self, device: &Device) -> Self {
        self.text_encoder_device = device.clone();
        self
    }

    /// Where the image encoder runs. Default: the builder's device.
    pub fn image_encoder_on(mut self, device: &Device) -> Self {
        self.image_encoder_device = device.clone();
        self
    }

    /// Where the checkpoint's prior runs. Default: the builder's device.
    pub fn prior_on(mut self, device: &Device) -> Self {
        self.prior_device = device.clone();
        self
    }

    /// Where the checkpoint's decoder runs. Default: the builder's device.
    pub fn decoder_on(mut self, device: &Device) -> Self {
        self.decoder_device = device.clone();
        self
    }

    /// Where the checkpoint's upsamplers run. Default: the builder's device.
    pub fn upsamplers_on(mut self, device: &Device) -> Self {
        self.upsampler_device = device.clone();
        self
    }

    /// A text encoder instead of the checkpoint's, which is then not read.
    pub fn text_encoder(mut self, stage: impl TextEncoder + 'static) -> Self {
        self.text_encoder = Some(Box::new(stage));
        self
    }

    /// An image encoder instead of the checkpoint's, which is then not read.
    pub fn image_encoder(mut self, stage: impl ImageEncoder + 'static) -> Self {
        self.image_encoder = Some(Box::new(stage));
        self
    }

    /// A prior instead of the checkpoint's, which is then not read.
    pub fn prior(mut self, stage: impl Prior + 'static) -> Self {
        self.prior = Some(Box::new(stage));
        self
    }

    /// A decoder instead of the checkpoint's, which is then not read.
    pub fn decoder(mut self, stage: impl Decoder + 'static) -> Self {
        self.decoder = Some(Box::new(stage));
        self
    }

    /// Upsamplers instead of the checkpoint's, which are then not read; an empty list keeps
    /// pictures at the decoder's size.
    pub fn upsamplers(mut self, stages: Vec<Box<dyn Upsampler>>) -> Self {
        self.upsamplers = Some(stages);
        self
    }

    /// Opens and loads what was chosen.
    ///
    /// # Errors
    /// Everything that is missing, damaged, unsupported or does not fit, by name. Nothing stays
    /// loaded then.
    pub fn build(mut self) -> Result<UnClip> {
        let (mut text_encoder, mut prior) = (self.text_encoder.take(), self.prior.take());
        let (mut decoder, mut upsamplers) = (self.decoder.take(), self.upsamplers.take());
        let mut image_encoder = self.image_encoder.take();
        if let Some(folder) = &self.clip_vision {
            let load = || clip_vision(folder, &self).map(Some);
            image_encoder = or_load(image_encoder, load)?;
        }
        if let Some(path) = self.checkpoint.take() {
            let folder = CheckpointFolder::open(&path, &self)?;
            folder.check_widths(|part| match part {
                "text_encoder" => text_encoder.is_none(),
                "image_encoder" => image_encoder.is_none(),
                "prior" => prior.is_none(),
                _ => decoder.is_none(),
            })?;
            text_encoder = or_load(text_encoder, || folder.text_encoder())?;
            image_encoder = or_load(image_encoder, || folder.image_encoder())?;
            prior = or_load(prior, || folder.prior())?;
            decoder = or_load(decoder, || folder.decoder())?;
            if upsamplers.is_none() {
                upsamplers = Some(folder.upsamplers()?);
            }
            self.checkpoint = Some(path);
        }
        Ok(UnClip {
            text_encoder,
            image_encoder,
            prior,
            decoder,
            upsamplers: upsamplers.unwrap_or_default(),
            precision: self.options.precision,
            exclamation: self.exclamation,
            checkpoint: self
                .checkpoint
                .and_then(|p| Some(p.file_name()?.to_string_lossy().into_owned())),
        })
    }
}

fn or_load<S: ?Sized>(
    own: Option<Box<S>>,
    load: impl FnOnce() -> Result<Option<Box<S>>>,
) -> Result<Option<Box<S>>> {
    own.map_or_else(load, |stage| Ok(Some(stage)))
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("checkpoint", &self.checkpoint)
            .field("options", &self.options)
            .field("residency", &self.residency)
            .finish_non_exhaustive()
    }
}
