//! CLIP for unCLIP: tokenizer and text tower on Burn.
//!
//! - [`tokenizer`]: text → token ids
//! - [`TextTower`], configured by [`TextTowerConfig`]: the network
//! - [`ClipTextEncoder`]: the stage, a [`TextEncoder`](unclip_core::stage::TextEncoder)
//! - [`TransformersClipText`]: transformers' configuration
#![cfg_attr(docsrs, feature(doc_cfg))]

mod text_encoder;
mod text_format;
mod text_tower;
pub mod tokenizer;

pub use text_encoder::{ClipTextEncoder, load_text_tower};
pub use text_format::TransformersClipText;
pub use text_tower::{Pooling, TextOutput, TextTower, TextTowerConfig, text_tower_keys};
