//! transformers' CLIP vision configuration.

use std::path::Path;

use serde::Deserialize;
use unclip_core::{
    error::{Error, Result},
    json,
};

use crate::{
    tower_format::{activation, check_class, check_sizes, check_transformer},
    vision_tower::VisionTowerConfig,
};

/// Largest side of a picture: beyond any tower, and small enough for its square not to overflow.
const LARGEST_SIDE: usize = 4096;

/// `config.json` of a `CLIPVisionModelWithProjection`; missing keys have the reference's defaults.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct TransformersClipVision {
    architectures: Option<Vec<String>>,
    model_type: String,
    hidden_size: usize,
    intermediate_size: usize,
    projection_dim: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_channels: usize,
    image_size: usize,
    patch_size: usize,
    hidden_act: String,
    layer_norm_eps: f64,
}

impl Default for TransformersClipVision {
    fn default() -> Self {
        Self {
            architectures: None,
            model_type: "clip_vision_model".into(),
            hidden_size: 768,
            intermediate_size: 3072,
            projection_dim: 512,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 32,
            hidden_act: "quick_gelu".into(),
            layer_norm_eps: 1e-5,
        }
    }
}

impl TransformersClipVision {
    /// Reads `config.json` in `folder`.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Json`], or [`Error::Config`] for a value not supported.
    pub fn load(folder: &Path) -> Result<VisionTowerConfig> {
        let path = folder.join("config.json");
        let config: Self = json::read(&path)?;
        config.tower(&path.display().to_string())
    }

    /// The tower this describes; `origin` names it in errors.
    ///
    /// # Errors
    /// [`Error::Config`] for a value that is not supported.
    pub fn tower(&self, origin: &str) -> Result<VisionTowerConfig> {
        check_class(
            origin,
            self.architectures.as_deref(),
            "CLIPVisionModelWithProjection",
            &self.model_type,
            "clip_vision_model",
        )?;
        let activation = activation(origin, &self.hidden_act)?;
        check_sizes(
            origin,
            &[
                ("hidden_size", self.hidden_size),
                ("intermediate_size", self.intermediate_size),
                ("projection_dim", self.projection_dim),
                ("num_attention_heads", self.num_attention_heads),
            ],
        )?;
        check_transformer(
            origin,
            self.num_hidden_layers,
            self.hidden_size,
            self.num_attention_heads,
        )?;
        let refuse = |key: &str, value: usize, expected: String| {
            Err(Error::config(origin, key, value, expected))
        };
        if self.num_channels != 3 {
            let expected = "expected 3: pictures are red, green and blue";
            return refuse("num_channels", self.num_channels, expected.into());
        }
        if !(1..=LARGEST_SIDE).contains(&self.image_size) {
            let expected = format!("expected 1 to {LARGEST_SIDE} pixels");
            return refuse("image_size", self.image_size, expected);
        }
        if !(1..=self.image_size).contains(&self.patch_size) {
            let expected = format!("expected 1 to {} pixels, the image_size", self.image_size);
            return refuse("patch_size", self.patch_size, expected);
        }
        Ok(VisionTowerConfig::new(
            self.image_size,
            self.patch_size,
            self.hidden_size,
            self.num_hidden_layers,
            self.num_attention_heads,
            self.intermediate_size,
            self.projection_dim,
            activation,
        )
        .with_epsilon(self.layer_norm_eps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<VisionTowerConfig> {
        let config: TransformersClipVision = serde_json::from_str(text).unwrap();
        config.tower("here")
    }

    #[test]
    fn missing_keys_have_the_class_defaults() {
        // ViT-B/32: what an empty file means.
        let config = read("{}").unwrap();
        assert_eq!(
            (config.image_size, config.patch_size, config.tokens()),
            (224, 32, 50)
        );
        assert_eq!((config.width, config.projection), (768, 512));
    }

    #[test]
    fn values_without_sense_are_named() {
        for (key, value) in [
            ("architectures", "[\"CLIPModel\"]"),
            ("model_type", "\"clip\""),
            ("hidden_act", "\"relu\""),
            ("hidden_size", "0"),
            ("hidden_size", "770"),
            ("num_hidden_layers", "5000"),
            ("num_channels", "4"),
            ("image_size", "0"),
            ("image_size", "4294967296"),
            ("patch_size", "0"),
            ("patch_size", "225"),
        ] {
            match read(&format!("{{\"{key}\": {value}}}")) {
                Err(Error::Config { key: found, .. }) => assert_eq!(found, key),
                other => panic!("{key} {value}: {other:?}"),
            }
        }
    }
}
