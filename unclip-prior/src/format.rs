//! diffusers' `PriorTransformer` configuration.

use std::path::Path;

use burn::tensor::FloatDType;
use serde::Deserialize;
use serde_json::json;
use unclip_core::{
    error::{Error, Result},
    json,
    nn::Activation,
    weights::{KeyMap, save},
};

use crate::{PriorConfig, PriorModel};

/// `config.json` of a `PriorTransformer`; missing keys have the reference's defaults.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct DiffusersPrior {
    #[serde(rename = "_class_name")]
    class_name: String,
    num_attention_heads: usize,
    attention_head_dim: usize,
    num_layers: usize,
    embedding_dim: usize,
    num_embeddings: usize,
    additional_embeddings: usize,
    time_embed_act_fn: String,
    norm_in_type: Option<String>,
    embedding_proj_norm_type: Option<String>,
    encoder_hid_proj_type: Option<String>,
    added_emb_type: Option<String>,
    time_embed_dim: Option<usize>,
    embedding_proj_dim: Option<usize>,
    clip_embed_dim: Option<usize>,
}

impl Default for DiffusersPrior {
    fn default() -> Self {
        Self {
            class_name: "PriorTransformer".into(),
            num_attention_heads: 32,
            attention_head_dim: 64,
            num_layers: 20,
            embedding_dim: 768,
            num_embeddings: 77,
            additional_embeddings: 4,
            time_embed_act_fn: "silu".into(),
            norm_in_type: None,
            embedding_proj_norm_type: None,
            encoder_hid_proj_type: Some("linear".into()),
            added_emb_type: Some("prd".into()),
            time_embed_dim: None,
            embedding_proj_dim: None,
            clip_embed_dim: None,
        }
    }
}

/// Renames from [`PriorModel`](crate::PriorModel) to `PriorTransformer`.
pub fn prior_keys() -> KeyMap {
    KeyMap::new(&[
        ("attn.to_out", "attn1.to_out.0"),
        ("attn", "attn1"),
        ("norm2", "norm3"),
        ("mlp.fc1", "ff.net.0.proj"),
        ("mlp.fc2", "ff.net.2"),
    ])
}

/// Writes a prior's network into the folder that [`load_prior`](crate::load_prior) and diffusers
/// read, floats as `dtype` or as they are kept.
///
/// # Errors
/// [`Error::Io`].
pub fn save_prior(
    model: &PriorModel,
    config: &PriorConfig,
    folder: &Path,
    dtype: Option<FloatDType>,
) -> Result<()> {
    let given = |width: usize| (width != 0).then_some(width);
    let named = |on: bool, name: &str| on.then(|| name.to_owned());
    let text = json!({
        "_class_name": "PriorTransformer", "num_attention_heads": config.heads,
        "attention_head_dim": config.head_dim, "num_layers": config.layers,
        "embedding_dim": config.embedding, "num_embeddings": config.context,
        "additional_embeddings": config.additional, "dropout": 0.0,
        "time_embed_act_fn": config.time_activation.name(),
        "norm_in_type": named(config.norm_in, "layer"),
        "embedding_proj_norm_type": named(config.text_norm, "layer"),
        "encoder_hid_proj_type": named(config.has_tokens, "linear"),
        "added_emb_type": named(config.has_query, "prd"),
        "time_embed_dim": given(config.time), "embedding_proj_dim": given(config.text_embedding),
        "clip_embed_dim": given(config.output),
    });
    json::write(&folder.join("config.json"), &text)?;
    let path = folder.join("diffusion_pytorch_model.safetensors");
    save(model, &path, &prior_keys(), dtype)
}

impl DiffusersPrior {
    /// Reads `config.json` in `folder`.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Json`], or [`Error::Config`] for a value not supported.
    pub fn load(folder: &Path) -> Result<PriorConfig> {
        let path = folder.join("config.json");
        let config: Self = json::read(&path)?;
        config.prior(&path.display().to_string())
    }

    /// The network this describes; `origin` names it in errors.
    ///
    /// # Errors
    /// [`Error::Config`] for a class or value that is not supported.
    pub fn prior(&self, origin: &str) -> Result<PriorConfig> {
        if self.class_name != "PriorTransformer" {
            return Err(Error::config(
                origin,
                "_class_name",
                &self.class_name,
                "expected PriorTransformer",
            ));
        }
        let switch = |key: &str, value: &Option<String>, on: &str| match value.as_deref() {
            None => Ok(false),
            Some(v) if v == on => Ok(true),
            Some(v) => Err(Error::config(
                origin,
                key,
                v,
                format!("expected {on} or null"),
            )),
        };
        let Some(activation) = Activation::from_name(&self.time_embed_act_fn) else {
            return Err(Error::config(
                origin,
                "time_embed_act_fn",
                &self.time_embed_act_fn,
                "expected silu or gelu",
            ));
        };
        for (key, value) in [
            ("num_attention_heads", self.num_attention_heads),
            ("attention_head_dim", self.attention_head_dim),
            ("embedding_dim", self.embedding_dim),
            ("num_embeddings", self.num_embeddings),
        ] {
            if !(1..=1 << 20).contains(&value) {
                return Err(Error::config(
                    origin,
                    key,
                    value,
                    "expected a positive number",
                ));
            }
        }
        if self.num_layers > 1024 {
            return Err(Error::config(
                origin,
                "num_layers",
                self.num_layers,
                "expected at most 1024",
            ));
        }
        let config = PriorConfig::new(
            self.embedding_dim,
            self.num_attention_heads,
            self.attention_head_dim,
            self.num_layers,
            self.num_embeddings,
        );
        Ok(config
            .with_additional(self.additional_embeddings)
            .with_text_embedding(self.embedding_proj_dim.unwrap_or(0))
            .with_output(self.clip_embed_dim.unwrap_or(0))
            .with_time(self.time_embed_dim.unwrap_or(0))
            .with_time_activation(activation)
            .with_has_tokens(switch(
                "encoder_hid_proj_type",
                &self.encoder_hid_proj_type,
                "linear",
            )?)
            .with_has_query(switch("added_emb_type", &self.added_emb_type, "prd")?)
            .with_text_norm(switch(
                "embedding_proj_norm_type",
                &self.embedding_proj_norm_type,
                "layer",
            )?)
            .with_norm_in(switch("norm_in_type", &self.norm_in_type, "layer")?))
    }
}
