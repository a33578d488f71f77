//! A whole CLIP folder as a pair of stages.

use std::path::Path;

use burn::tensor::Device;
use unclip_core::{error::Result, resident::Resident, weights::LoadOptions};

use crate::{
    contrastive::{ClipModel, load_clip_model},
    image_encoder::ClipImageEncoder,
    image_processor::ClipImageProcessor,
    matching::Matcher,
    text_encoder::ClipTextEncoder,
    tokenizer::ClipTokenizer,
};

/// Text and image encoder of one CLIP, with the factor on their cosines.
#[derive(Debug)]
pub struct ClipEncoders {
    /// Prompts → embeddings.
    pub text: ClipTextEncoder,
    /// Pictures → embeddings.
    pub image: ClipImageEncoder,
    /// The trained factor on cosines, 100 for OpenAI's.
    pub logit_factor: f32,
}

impl ClipEncoders {
    /// The parts of `model`, which is on `device`, as stages.
    ///
    /// # Errors
    /// [`Error::NotFinite`](unclip_core::Error::NotFinite) if the model's factor is damaged.
    pub fn new(
        model: ClipModel,
        tokenizer: ClipTokenizer,
        processor: ClipImageProcessor,
        device: &Device,
    ) -> Result<Self> {
        Ok(Self {
            logit_factor: model.logit_factor()?,
            text: ClipTextEncoder::new(tokenizer, Resident::Kept(model.text), device),
            image: ClipImageEncoder::new(processor, Resident::Kept(model.vision), device),
        })
    }

    /// Reads a folder as transformers writes it: a `CLIPModel`, its tokenizer and
    /// `preprocessor_config.json` beside each other.
    ///
    /// # Errors
    /// Missing or damaged files, unsupported settings, weights that do not fit.
    pub fn load(
        folder: &Path,
        variant: Option<&str>,
        device: &Device,
        options: LoadOptions,
    ) -> Result<Self> {
        // The small files first: what is wrong with them shows before the weights are read.
        let processor = ClipImageProcessor::load(folder)?;
        let tokenizer = ClipTokenizer::load(folder)?;
        let model = load_clip_model(folder, variant, device, options)?;
        Self::new(model, tokenizer, processor, device)
    }

    /// Matches texts with pictures.
    pub fn matcher(&self) -> Matcher<'_> {
        Matcher::new(&self.text, &self.image).with_logit_factor(self.logit_factor)
    }
}
