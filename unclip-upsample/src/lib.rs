//! The unCLIP upsamplers: diffusion super-resolution.
//!
//! - [`UpsamplerConfig`]: presets and diffusers' `super_res_*` folders
//! - [`DiffusionUpsampler`]: the stage, an [`Upsampler`](unclip_core::stage::Upsampler)
#![cfg_attr(docsrs, feature(doc_cfg))]

mod config;
mod stage;

pub use config::{UpsamplerConfig, load_upsampler};
pub use stage::DiffusionUpsampler;
