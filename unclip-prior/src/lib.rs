//! The priors of unCLIP: from a caption's CLIP embeddings to an image embedding.
//!
//! - [`DiffusionPrior`]: by diffusion, the paper's choice; [`PriorModel`] is its network and
//!   [`DiffusersPrior`] diffusers' `PriorTransformer` configuration
//! - [`AutoregressivePrior`]: code by code; [`AutoregressiveModel`] is its network,
//!   [`EmbeddingCodec`] the codes, over the principal components that [`Pca`] finds
//! - [`NoPrior`], [`TextAsImage`]: what the paper compares them with
//! - [`BestOf`]: several samples of any of them, the best one kept
//!
//! All of them are a [`Prior`](unclip_core::stage::Prior).
#![cfg_attr(docsrs, feature(doc_cfg))]

mod ablation;
mod autoregressive;
mod best_of;
mod codec;
mod format;
mod model;
mod pca;
mod stage;
#[cfg(feature = "train")]
mod train;

pub use ablation::{NoPrior, TextAsImage};
pub use autoregressive::{
    AutoregressiveConfig, AutoregressiveInput, AutoregressiveModel, AutoregressivePrior, dot_edges,
    load_autoregressive_prior, save_autoregressive_prior,
};
pub use best_of::BestOf;
pub use codec::EmbeddingCodec;
pub use format::{DiffusersPrior, prior_keys, save_prior};
pub use model::{PriorConfig, PriorInput, PriorModel};
pub use pca::Pca;
pub use stage::{DiffusionPrior, load_prior};
#[cfg(feature = "train")]
pub use {
    autoregressive::{AutoregressiveExample, AutoregressiveTraining},
    train::{PriorExample, PriorTraining, embedding_statistics},
    unclip_core::train::EmbeddedCaption,
};
