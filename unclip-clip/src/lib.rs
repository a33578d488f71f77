//! CLIP for unCLIP: tokenizer, both towers and image preprocessing, on Burn.
//!
//! Text:
//! - [`tokenizer`]: text → token ids
//! - [`TextTower`], configured by [`TextTowerConfig`]: the network
//! - [`ClipTextEncoder`]: the stage, a [`TextEncoder`](unclip_core::stage::TextEncoder)
//! - [`TransformersClipText`]: transformers' configuration
#![cfg_attr(docsrs, feature(doc_cfg))]

mod contrastive;
mod contrastive_format;
mod format_checks;
mod image_encoder;
mod image_processor;
mod image_processor_format;
mod pillow_resize;
mod text_encoder;
mod text_format;
mod text_tower;
pub mod tokenizer;
mod vision_format;
mod vision_tower;

pub use contrastive::{
    ClipModel, ClipModelConfig, ClipOutput, clip_model_keys, contrastive_loss, cosine_similarity,
    load_clip_model, normalize, similarity_logits,
};
pub use contrastive_format::TransformersClip;
pub use image_encoder::{ClipImageEncoder, load_vision_tower};
pub use image_processor::{ClipImageProcessor, ResizeTo};
pub use image_processor_format::TransformersClipImageProcessor;
pub use pillow_resize::Filter;
pub use text_encoder::{ClipTextEncoder, load_text_tower};
pub use text_format::TransformersClipText;
pub use text_tower::{Pooling, TextOutput, TextTower, TextTowerConfig, text_tower_keys};
pub use vision_format::TransformersClipVision;
pub use vision_tower::{VisionOutput, VisionTower, VisionTowerConfig, vision_tower_keys};
