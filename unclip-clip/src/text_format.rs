//! transformers' CLIP text configuration.

use std::path::Path;

use serde::Deserialize;
use unclip_core::{error::Result, json};

use crate::{
    text_tower::{Pooling, TextTowerConfig},
    tower_format::{activation, check_class, check_sizes, check_transformer},
};

/// `config.json` of a `CLIPTextModelWithProjection`; missing keys have the reference's defaults.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct TransformersClipText {
    architectures: Option<Vec<String>>,
    model_type: String,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    projection_dim: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    hidden_act: String,
    layer_norm_eps: f64,
    eos_token_id: u32,
}

impl Default for TransformersClipText {
    fn default() -> Self {
        Self {
            architectures: None,
            model_type: "clip_text_model".into(),
            vocab_size: 49_408,
            hidden_size: 512,
            intermediate_size: 2048,
            projection_dim: 512,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: "quick_gelu".into(),
            layer_norm_eps: 1e-5,
            eos_token_id: 49_407,
        }
    }
}

impl TransformersClipText {
    /// Reads `config.json` in `folder`.
    ///
    /// # Errors
    /// [`Error::NotFound`](unclip_core::Error::NotFound), [`Error::Json`](unclip_core::Error::Json),
    /// or [`Error::Config`](unclip_core::Error::Config) for a value not supported.
    pub fn load(folder: &Path) -> Result<TextTowerConfig> {
        let path = folder.join("config.json");
        let config: Self = json::read(&path)?;
        config.tower(&path.display().to_string())
    }

    /// The tower this describes; `origin` names it in errors.
    ///
    /// # Errors
    /// [`Error::Config`](unclip_core::Error::Config) for a value that is not supported.
    pub fn tower(&self, origin: &str) -> Result<TextTowerConfig> {
        check_class(
            origin,
            self.architectures.as_deref(),
            "CLIPTextModelWithProjection",
            &self.model_type,
            "clip_text_model",
        )?;
        let activation = activation(origin, &self.hidden_act)?;
        check_sizes(
            origin,
            &[
                ("vocab_size", self.vocab_size),
                ("hidden_size", self.hidden_size),
                ("intermediate_size", self.intermediate_size),
                ("projection_dim", self.projection_dim),
                ("num_attention_heads", self.num_attention_heads),
                ("max_position_embeddings", self.max_position_embeddings),
            ],
        )?;
        check_transformer(
            origin,
            self.num_hidden_layers,
            self.hidden_size,
            self.num_attention_heads,
        )?;
        let pooling = match self.eos_token_id {
            // All of OpenAI's files say 2, which is not the end token's id.
            2 => Pooling::LargestId,
            id => Pooling::FirstOf(id),
        };
        Ok(TextTowerConfig::new(
            self.vocab_size,
            self.max_position_embeddings,
            self.hidden_size,
            self.num_hidden_layers,
            self.num_attention_heads,
            self.intermediate_size,
            self.projection_dim,
            activation,
            pooling,
        )
        .with_epsilon(self.layer_norm_eps))
    }
}
