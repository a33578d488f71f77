//! Tokenizer and text tower as a stage.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use unclip_core::{
    error::Result,
    resident::Resident,
    stage::{TextEncoder, TextEncoding},
    weights::{Checkpoint, LoadOptions, load},
};

use crate::{
    text_format::TransformersClipText,
    text_tower::{TextTower, text_tower_keys},
    tokenizer::ClipTokenizer,
};

/// CLIP's text encoder: prompts → embeddings, tokens and mask.
#[derive(Debug)]
pub struct ClipTextEncoder {
    /// The tokenizer.
    pub tokenizer: ClipTokenizer,
    /// The network.
    pub tower: Resident<TextTower>,
    device: Device,
}

impl ClipTextEncoder {
    /// A stage of parts; the tower is on `device`.
    pub fn new(tokenizer: ClipTokenizer, tower: Resident<TextTower>, device: &Device) -> Self {
        Self {
            tokenizer,
            tower,
            device: device.clone(),
        }
    }
}

/// Loads a `CLIPTextModelWithProjection` from its folder.
///
/// # Errors
/// Missing or damaged files, unsupported settings, weights that do not fit.
pub fn load_text_tower(
    folder: &Path,
    variant: Option<&str>,
    device: &Device,
    options: LoadOptions,
) -> Result<TextTower> {
    let config = TransformersClipText::load(folder)?;
    let checkpoint = Checkpoint::open(folder, variant)?;
    load(
        config.init(device),
        &checkpoint,
        &text_tower_keys(),
        options,
    )
}

impl TextEncoder for ClipTextEncoder {
    fn encode_text(&self, prompts: &[&str]) -> Result<TextEncoding> {
        let batch = self.tokenizer.encode_batch(prompts)?;
        let output = self.tower.hold()?.forward(&batch.ids, batch.rows, None)?;
        let mask = TensorData::new(batch.mask, [batch.rows, batch.length]);
        Ok(TextEncoding {
            embedding: output.embedding,
            tokens: output.tokens,
            mask: Tensor::from_data(mask, &self.device),
        })
    }
}
