//! transformers' configuration of a whole CLIP.

use std::path::Path;

use serde::Deserialize;
use unclip_core::{
    error::{Error, Result},
    json,
};

use crate::{
    contrastive::ClipModelConfig,
    text_format::TransformersClipText,
    tower_format::{check_class, check_sizes},
    vision_format::TransformersClipVision,
};

/// `config.json` of a `CLIPModel`; missing keys have the reference's defaults.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct TransformersClip {
    architectures: Option<Vec<String>>,
    model_type: String,
    text_config: Option<TransformersClipText>,
    vision_config: Option<TransformersClipVision>,
    text_config_dict: Option<TransformersClipText>,
    vision_config_dict: Option<TransformersClipVision>,
    projection_dim: usize,
    logit_scale_init_value: f64,
}

impl Default for TransformersClip {
    fn default() -> Self {
        Self {
            architectures: None,
            model_type: "clip".into(),
            text_config: None,
            vision_config: None,
            text_config_dict: None,
            vision_config_dict: None,
            projection_dim: 512,
            logit_scale_init_value: 2.6592,
        }
    }
}

impl TransformersClip {
    /// Reads `config.json` in `folder`.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Json`], or [`Error::Config`] for a value not supported.
    pub fn load(folder: &Path) -> Result<ClipModelConfig> {
        let path = folder.join("config.json");
        let config: Self = json::read(&path)?;
        config.model(&path.display().to_string())
    }

    /// The model this describes; `origin` names it in errors.
    ///
    /// # Errors
    /// [`Error::Config`] for a value that is not supported.
    pub fn model(&self, origin: &str) -> Result<ClipModelConfig> {
        check_class(
            origin,
            self.architectures.as_deref(),
            "CLIPModel",
            &self.model_type,
            "clip",
        )?;
        check_sizes(origin, &[("projection_dim", self.projection_dim)])?;
        if !self.logit_scale_init_value.is_finite() {
            return Err(Error::config(
                origin,
                "logit_scale_init_value",
                self.logit_scale_init_value,
                "expected a number",
            ));
        }
        // In files of 2022 a tower's settings stand a second time, and the reference lets these
        // win with all their defaults.
        let text = self.text_config_dict.as_ref().or(self.text_config.as_ref());
        let vision = self.vision_config_dict.as_ref();
        let vision = vision.or(self.vision_config.as_ref());
        let text = text.cloned().unwrap_or_default();
        let vision = vision.cloned().unwrap_or_default();
        let mut text = text.tower(&format!("{origin}, text_config"))?;
        let mut vision = vision.tower(&format!("{origin}, vision_config"))?;
        // A tower's own projection_dim is for the tower alone.
        text.projection = self.projection_dim;
        vision.projection = self.projection_dim;
        Ok(ClipModelConfig::new(text, vision).with_logit_scale(self.logit_scale_init_value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ClipModelConfig> {
        let config: TransformersClip = serde_json::from_str(text).unwrap();
        config.model("here")
    }

    #[test]
    fn the_projection_is_the_whole_models() {
        let config = read(
            r#"{"model_type": "clip", "projection_dim": 48,
                "text_config": {"projection_dim": 1, "hidden_size": 64},
                "vision_config": {"patch_size": 16}}"#,
        )
        .unwrap();
        assert_eq!((config.text.projection, config.vision.projection), (48, 48));
        assert_eq!((config.text.width, config.vision.patch_size), (64, 16));
    }

    #[test]
    fn old_files_state_a_tower_twice() {
        let config = read(
            r#"{"text_config": {"hidden_size": 64, "num_hidden_layers": 3},
                "text_config_dict": {"hidden_size": 128}, "vision_config_dict": null}"#,
        )
        .unwrap();
        assert_eq!((config.text.width, config.text.layers), (128, 12));
    }

    #[test]
    fn errors_name_the_tower() {
        match read(r#"{"vision_config": {"hidden_act": "relu"}}"#) {
            Err(Error::Config { origin, key, .. }) => {
                assert_eq!(
                    (origin.as_str(), key.as_str()),
                    ("here, vision_config", "hidden_act")
                );
            }
            other => panic!("{other:?}"),
        }
        for (key, value) in [
            ("architectures", "[\"CLIPTextModelWithProjection\"]"),
            ("model_type", "\"siglip\""),
            ("projection_dim", "0"),
        ] {
            match read(&format!("{{\"{key}\": {value}}}")) {
                Err(Error::Config { key: found, .. }) => assert_eq!(found, key),
                other => panic!("{key} {value}: {other:?}"),
            }
        }
    }
}
