#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod builder;
mod checkpoint;
mod output;
mod text_to_image;
mod unclip;

pub use builder::{Builder, Residency};
pub use output::{Output, Settings};
pub use text_to_image::TextToImage;
pub use unclip::UnClip;

pub use unclip_clip as clip;
pub use unclip_clip::tokenizer::Exclamation;
pub use unclip_core as core;
pub use unclip_core::{
    diffusion::{Sampler, Tables},
    error::{Error, Result},
    noise::Noise,
    stage::{Decoder, Prior, Stage, StageSettings, Step, TextEncoder, Upsampler},
    weights::Precision,
};
pub use unclip_decoder as decoder;
pub use unclip_prior as prior;
pub use unclip_upsample as upsample;

// What appears in our own signatures.
pub use burn;
pub use image;
