//! What every stage of unCLIP shares.
//!
//! - [`stage`]: the traits [`TextEncoder`](stage::TextEncoder), [`Prior`](stage::Prior),
//!   [`Decoder`](stage::Decoder), [`Upsampler`](stage::Upsampler) and the values between them
//! - [`diffusion`]: schedules, processes, guidance and samplers, on host f64 tables
//! - [`kernels`]: convolutions, norms, attention on CPUs and GPUs, faster than Burn's
//! - [`nn`]: the layers several stages use, above all the ADM U-Net
//! - [`weights`]: the only door to checkpoints
//! - [`noise`]: the only source of randomness, the numbers PyTorch gives for the same seed
//! - [`image`], [`mask`] and [`resample`]: pictures
//! - [`slerp`], [`nearest`]: between two latents, and the best of several embeddings
//! - [`resident`]: a network that is kept, or loaded for each use
#![cfg_attr(
    feature = "train",
    doc = "- [`train`]: the loop that trains a stage, its checkpoints and its data"
)]
//! - [`json`]: files of configurations
//! - [`error`]: the one error type
//!
//! # Feature flags
//! - `flex`, `cube`: kernels of our own for CPUs and for GPUs; `wgpu`, `vulkan`, `metal`, `cuda`, `rocm` turn on the
//!   second with their backend, and `fusion` goes with Burn's of that name
//! - `train`: training
//! - `pytorch`: read `.bin`, `.pt`, `.pth`, `.th` and `.ckpt` through Burn's tensor-only reader
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod diffusion;
pub mod error;
pub mod image;
pub mod json;
pub mod kernels;
pub mod mask;
pub mod nearest;
pub mod nn;
pub mod noise;
pub mod resample;
pub mod resident;
pub mod slerp;
pub mod stage;
#[cfg(feature = "train")]
pub mod train;
pub mod weights;

pub use error::{Error, Result};
