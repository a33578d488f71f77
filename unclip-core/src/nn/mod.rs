//! Layers that several stages use.
//!
//! Every layer computes in the type of its input: weights kept in another type (see
//! [`Precision`](crate::weights::Precision)) are converted when they are used.

mod activation;
mod attention;
mod layers;
mod residual;
mod time_embedding;
mod transformer;
mod unet;
mod unet_blocks;
mod unet_config;
mod unet_format;

pub use activation::Activation;
pub use attention::{ContextAttention, ContextAttentionConfig, attend};
pub use layers::{as_compute, conv2d, linear};
pub use residual::{Resample, ResidualBlock, ResidualBlockConfig};
pub use time_embedding::{TimeEmbedding, TimeEmbeddingConfig, Times, sinusoid};
pub use transformer::{
    KvCache, Mlp, SelfAttention, TransformerBlock, TransformerBlockConfig, causal_mask,
};
pub use unet::{UNet, UNetInput};
pub use unet_blocks::{DownBlock, MidBlock, UpBlock};
pub use unet_config::{UNetConfig, unet_keys};
pub use unet_format::DiffusersUNet;
