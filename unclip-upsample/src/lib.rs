//! The unCLIP upsamplers: diffusion super-resolution.
//!
//! - [`UpsamplerConfig`]: presets and diffusers' `super_res_*` folders
//! - [`Degradation`]: what small pictures suffer before an upsampler learns from them
//! - [`DiffusionUpsampler`]: the stage, an [`Upsampler`](unclip_core::stage::Upsampler)
#![cfg_attr(docsrs, feature(doc_cfg))]

mod config;
mod degradation;
mod stage;
#[cfg(feature = "train")]
mod train;

pub use config::{UpsamplerConfig, load_upsampler, save_upsampler};
pub use degradation::Degradation;
pub use stage::DiffusionUpsampler;
#[cfg(feature = "train")]
pub use train::{UpsamplerExample, UpsamplerTraining};
