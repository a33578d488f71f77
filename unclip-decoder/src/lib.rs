//! The unCLIP decoder: from a CLIP image embedding and a caption to pixels.
//!
//! - [`TextProjection`]: what the U-Net is told, from image embedding and caption
//! - [`DecoderModel`]: text projection and U-Net, to train or to inspect
//! - [`EmbeddingNormalizer`]: noise on image embeddings, as Stable unCLIP has it
//! - [`DiffusionDecoder`]: the stage, a [`Decoder`](unclip_core::stage::Decoder)
#![cfg_attr(docsrs, feature(doc_cfg))]

mod format;
mod model;
mod noise_augmentation;
mod projection;
mod stage;
#[cfg(feature = "train")]
mod train;

pub use format::{DiffusersTextProjection, load_decoder, load_text_projection, save_decoder};
pub use model::{DecoderConfig, DecoderModel};
pub use noise_augmentation::{
    EmbeddingNormalizer, EmbeddingNormalizerConfig, load_embedding_normalizer,
};
pub use projection::{DecoderCondition, TextProjection, TextProjectionConfig};
pub use stage::DiffusionDecoder;
#[cfg(feature = "train")]
pub use train::{DecoderExample, DecoderTraining};
