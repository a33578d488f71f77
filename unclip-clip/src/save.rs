//! Writing towers and whole CLIPs in transformers' layout.

use std::path::Path;

use burn::tensor::FloatDType;
use serde_json::{Value, json};
use unclip_core::{error::Result, json, weights::save};

use crate::{
    ClipImageProcessor, ClipModel, ClipModelConfig, Filter, Pooling, ResizeTo, TextTower,
    TextTowerConfig, VisionTower, VisionTowerConfig, clip_model_keys, text_tower::text_tower_keys,
    vision_tower::vision_tower_keys,
};

fn text_json(config: &TextTowerConfig) -> Value {
    let end = match config.pooling {
        Pooling::LargestId => 2,
        Pooling::FirstOf(id) => id,
    };
    json!({
        "architectures": ["CLIPTextModelWithProjection"], "model_type": "clip_text_model",
        "vocab_size": config.vocabulary, "max_position_embeddings": config.context,
        "hidden_size": config.width, "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads, "intermediate_size": config.hidden,
        "projection_dim": config.projection, "hidden_act": config.activation.name(),
        "layer_norm_eps": config.epsilon, "eos_token_id": end,
    })
}

fn vision_json(config: &VisionTowerConfig) -> Value {
    json!({
        "architectures": ["CLIPVisionModelWithProjection"], "model_type": "clip_vision_model",
        "image_size": config.image_size, "patch_size": config.patch_size, "num_channels": 3,
        "hidden_size": config.width, "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads, "intermediate_size": config.hidden,
        "projection_dim": config.projection, "hidden_act": config.activation.name(),
        "layer_norm_eps": config.epsilon,
    })
}

/// Writes a text tower into the folder that [`load_text_tower`](crate::load_text_tower) and
/// transformers read, floats as `dtype` or as they are kept. The tokenizer has a folder of its own.
///
/// # Errors
/// [`Error::Io`](unclip_core::Error::Io).
pub fn save_text_tower(
    tower: &TextTower,
    config: &TextTowerConfig,
    folder: &Path,
    dtype: Option<FloatDType>,
) -> Result<()> {
    json::write(&folder.join("config.json"), &text_json(config))?;
    save(
        tower,
        &folder.join("model.safetensors"),
        &text_tower_keys(),
        dtype,
    )
}

/// Writes a vision tower into the folder that [`load_vision_tower`](crate::load_vision_tower) and
/// transformers read.
///
/// # Errors
/// [`Error::Io`](unclip_core::Error::Io).
pub fn save_vision_tower(
    tower: &VisionTower,
    config: &VisionTowerConfig,
    folder: &Path,
    dtype: Option<FloatDType>,
) -> Result<()> {
    json::write(&folder.join("config.json"), &vision_json(config))?;
    save(
        tower,
        &folder.join("model.safetensors"),
        &vision_tower_keys(),
        dtype,
    )
}

/// Writes a whole CLIP into the folder that [`load_clip_model`](crate::load_clip_model) and
/// transformers read.
///
/// # Errors
/// [`Error::Io`](unclip_core::Error::Io).
pub fn save_clip_model(
    model: &ClipModel,
    config: &ClipModelConfig,
    folder: &Path,
    dtype: Option<FloatDType>,
) -> Result<()> {
    let text = json!({
        "architectures": ["CLIPModel"], "model_type": "clip",
        "projection_dim": config.text.projection, "logit_scale_init_value": config.logit_scale,
        "text_config": text_json(&config.text), "vision_config": vision_json(&config.vision),
    });
    json::write(&folder.join("config.json"), &text)?;
    save(
        model,
        &folder.join("model.safetensors"),
        &clip_model_keys(),
        dtype,
    )
}

impl ClipImageProcessor {
    /// Writes `preprocessor_config.json` into `folder`.
    ///
    /// # Errors
    /// [`Error::Io`](unclip_core::Error::Io).
    pub fn save(&self, folder: &Path) -> Result<()> {
        let mut text = json!({
            "image_processor_type": "CLIPImageProcessor", "do_convert_rgb": true,
            "do_resize": self.resize.is_some(), "do_center_crop": self.crop.is_some(),
            "do_rescale": self.rescale.is_some(), "do_normalize": self.normalize.is_some(),
        });
        if let Some((to, filter)) = self.resize {
            text["size"] = match to {
                ResizeTo::ShorterSide(side) => json!({ "shortest_edge": side }),
                ResizeTo::Exactly { height, width } => json!({ "height": height, "width": width }),
            };
            text["resample"] = json!(match filter {
                Filter::Nearest => 0,
                Filter::Lanczos => 1,
                Filter::Bilinear => 2,
                Filter::Bicubic => 3,
                Filter::Box => 4,
                Filter::Hamming => 5,
            });
        }
        if let Some([height, width]) = self.crop {
            text["crop_size"] = json!({ "height": height, "width": width });
        }
        if let Some(factor) = self.rescale {
            text["rescale_factor"] = json!(factor);
        }
        if let Some((mean, deviation)) = self.normalize {
            (text["image_mean"], text["image_std"]) = (json!(mean), json!(deviation));
        }
        json::write(&folder.join("preprocessor_config.json"), &text)
    }
}
