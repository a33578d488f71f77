//! diffusers' layout of the decoder: folders `decoder` and `text_proj`.

use std::path::Path;

use burn::tensor::{Device, FloatDType};
use serde::Deserialize;
use serde_json::json;
use unclip_core::{
    error::{Error, Result},
    json,
    nn::{DiffusersUNet, unet_keys},
    weights::{Checkpoint, KeyMap, LoadOptions, load, save},
};

use crate::{DecoderConfig, DecoderModel, TextProjection, TextProjectionConfig};

/// `config.json` of a `UnCLIPTextProjModel`; missing keys have the reference's defaults.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct DiffusersTextProjection {
    #[serde(rename = "_class_name")]
    class_name: String,
    clip_extra_context_tokens: usize,
    clip_embeddings_dim: usize,
    time_embed_dim: usize,
    cross_attention_dim: usize,
}

impl Default for DiffusersTextProjection {
    fn default() -> Self {
        // The reference has no default for the last two; Karlo's stand in for a config that
        // lacks them, and weights of another width are then refused by name.
        Self {
            class_name: "UnCLIPTextProjModel".into(),
            clip_extra_context_tokens: 4,
            clip_embeddings_dim: 768,
            time_embed_dim: 1280,
            cross_attention_dim: 1536,
        }
    }
}

impl DiffusersTextProjection {
    /// Reads `config.json` in `folder`.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Json`], or [`Error::Config`] for a value not supported.
    pub fn load(folder: &Path) -> Result<TextProjectionConfig> {
        let path = folder.join("config.json");
        let config: Self = json::read(&path)?;
        if config.class_name != "UnCLIPTextProjModel" {
            return Err(Error::config(
                path.display(),
                "_class_name",
                config.class_name,
                "expected UnCLIPTextProjModel",
            ));
        }
        for (key, value) in [
            (
                "clip_extra_context_tokens",
                config.clip_extra_context_tokens,
            ),
            ("clip_embeddings_dim", config.clip_embeddings_dim),
            ("time_embed_dim", config.time_embed_dim),
            ("cross_attention_dim", config.cross_attention_dim),
        ] {
            if !(1..=1 << 20).contains(&value) {
                let expected = "expected a positive number";
                return Err(Error::config(path.display(), key, value, expected));
            }
        }
        Ok(TextProjectionConfig::new(
            config.clip_embeddings_dim,
            config.time_embed_dim,
            config.cross_attention_dim,
        )
        .with_extra_tokens(config.clip_extra_context_tokens))
    }
}

impl DecoderConfig {
    /// Reads the configurations of a `text_proj` and a `decoder` folder.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Json`], or [`Error::Config`] for a value not supported or
    /// for two that do not belong together.
    pub fn load_diffusers(text_proj: &Path, decoder: &Path) -> Result<Self> {
        let projection = DiffusersTextProjection::load(text_proj)?;
        let (unet, json) = DiffusersUNet::load(decoder)?;
        let origin = decoder.join("config.json");
        let size = json.sample_size.ok_or_else(|| {
            Error::config(
                origin.display(),
                "sample_size",
                "null",
                "expected the size of the decoder's pictures",
            )
        })?;
        if !unet.allows_size(size) {
            return Err(Error::config(
                origin.display(),
                "sample_size",
                size,
                format!("expected a multiple of {} up to 8192", unet.size_multiple()),
            ));
        }
        for (key, ours, theirs) in [
            ("cross_attention_dim", unet.context, projection.context),
            ("block_out_channels", unet.time_width(), projection.time),
        ] {
            if ours != theirs {
                return Err(Error::config(
                    origin.display(),
                    key,
                    ours,
                    format!("but {} makes {theirs}", text_proj.display()),
                ));
            }
        }
        Ok(Self::new(projection, unet, size))
    }
}

/// Loads a `UnCLIPTextProjModel` from its folder.
///
/// # Errors
/// Missing or damaged files, unsupported settings, weights that do not fit.
pub fn load_text_projection(
    folder: &Path,
    variant: Option<&str>,
    device: &Device,
    options: LoadOptions,
) -> Result<TextProjection> {
    let config = DiffusersTextProjection::load(folder)?;
    let checkpoint = Checkpoint::open(folder, variant)?;
    load(
        config.init(device),
        &checkpoint,
        &KeyMap::default(),
        options,
    )
}

/// Writes both networks of a decoder into the two folders that [`load_decoder`] and diffusers read,
/// floats as `dtype` or as they are kept.
///
/// # Errors
/// [`Error::Io`].
pub fn save_decoder(
    model: &DecoderModel,
    config: &DecoderConfig,
    text_proj: &Path,
    decoder: &Path,
    dtype: Option<FloatDType>,
) -> Result<()> {
    let projection = json!({
        "_class_name": "UnCLIPTextProjModel",
        "clip_extra_context_tokens": config.projection.extra_tokens,
        "clip_embeddings_dim": config.projection.embedding,
        "time_embed_dim": config.projection.time,
        "cross_attention_dim": config.projection.context,
    });
    json::write(&text_proj.join("config.json"), &projection)?;
    json::write(
        &decoder.join("config.json"),
        &config.unet.diffusers(config.size),
    )?;
    let to = |folder: &Path| folder.join("diffusion_pytorch_model.safetensors");
    save(&model.projection, &to(text_proj), &KeyMap::default(), dtype)?;
    save(&model.unet, &to(decoder), &unet_keys(), dtype)
}

/// Loads both networks of a decoder from their folders.
///
/// # Errors
/// Missing or damaged files, unsupported settings, weights that do not fit.
pub fn load_decoder(
    text_proj: &Path,
    decoder: &Path,
    variant: Option<&str>,
    device: &Device,
    options: LoadOptions,
) -> Result<DecoderModel> {
    let config = DecoderConfig::load_diffusers(text_proj, decoder)?;
    let checkpoint = Checkpoint::open(decoder, variant)?;
    Ok(DecoderModel {
        projection: load_text_projection(text_proj, variant, device, options)?,
        unet: load(config.unet.init(device), &checkpoint, &unet_keys(), options)?,
    })
}
