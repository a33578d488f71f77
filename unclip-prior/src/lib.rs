//! The diffusion prior of unCLIP: from a caption's CLIP embeddings to an image embedding.
//!
//! - [`PriorModel`], configured by [`PriorConfig`]: the network, to train or to inspect
//! - [`DiffusionPrior`]: the stage, a [`Prior`](unclip_core::stage::Prior)
//! - [`DiffusersPrior`]: diffusers' `PriorTransformer` configuration
#![cfg_attr(docsrs, feature(doc_cfg))]

mod format;
mod model;
mod stage;

pub use format::{DiffusersPrior, prior_keys};
pub use model::{PriorConfig, PriorInput, PriorModel};
pub use stage::{DiffusionPrior, load_prior};
