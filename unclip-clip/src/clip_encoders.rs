//! A whole CLIP folder as a pair of stages.

use std::path::Path;

use burn::tensor::Device;
use unclip_core::{
    error::{Error, Result},
    resident::Resident,
    weights::LoadOptions,
};

use crate::{
    contrastive::{ClipModel, load_clip_model},
    image_encoder::{ClipImageEncoder, load_vision_tower},
    image_processor::ClipImageProcessor,
    matching::{Matcher, OPENAI_LOGIT_FACTOR},
    text_encoder::{ClipTextEncoder, load_text_tower},
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
    /// `preprocessor_config.json` beside each other. Or the folder of a pipeline, the one with
    /// `model_index.json`: of it the towers are read, with OpenAI's factor, as none is kept there.
    ///
    /// # Errors
    /// Missing or damaged files, unsupported settings, weights that do not fit. A pipeline without
    /// one of `text_encoder`, `image_encoder`, `tokenizer` and `feature_extractor`.
    pub fn load(
        folder: &Path,
        variant: Option<&str>,
        device: &Device,
        options: LoadOptions,
    ) -> Result<Self> {
        if folder.join("model_index.json").exists() {
            return Self::of_pipeline(folder, variant, device, options);
        }
        // The small files first: what is wrong with them shows before the weights are read.
        let processor = ClipImageProcessor::load(folder)?;
        let tokenizer = ClipTokenizer::load(folder)?;
        let model = load_clip_model(folder, variant, device, options)?;
        Self::new(model, tokenizer, processor, device)
    }

    fn of_pipeline(
        folder: &Path,
        variant: Option<&str>,
        device: &Device,
        options: LoadOptions,
    ) -> Result<Self> {
        let part = |name: &str| {
            let part = folder.join(name);
            match part.is_dir() {
                true => Ok(part),
                false => Err(Error::NotFound {
                    path: part,
                    hint: "texts and pictures are compared with both of a pipeline's encoders; \
                           give the folder of a CLIP that has them"
                        .into(),
                }),
            }
        };
        // Pipelines keep the preprocessing of pictures under either name.
        let processor = part("feature_extractor")
            .or_else(|error| part("image_processor").map_err(|_| error))?;
        let processor = ClipImageProcessor::load(&processor)?;
        let tokenizer = ClipTokenizer::load(&part("tokenizer")?)?;
        let (text, vision) = (part("text_encoder")?, part("image_encoder")?);
        let text = load_text_tower(&text, variant, device, options)?;
        let vision = load_vision_tower(&vision, variant, device, options)?;
        Ok(Self {
            text: ClipTextEncoder::new(tokenizer, Resident::Kept(text), device),
            image: ClipImageEncoder::new(processor, Resident::Kept(vision), device),
            logit_factor: OPENAI_LOGIT_FACTOR,
        })
    }

    /// Matches texts with pictures.
    pub fn matcher(&self) -> Matcher<'_> {
        Matcher::new(&self.text, &self.image).with_logit_factor(self.logit_factor)
    }
}
