//! DALL·E 2 (unCLIP) on [Burn](https://burn.dev): text to image from open unCLIP checkpoints, on a
//! CPU or any GPU, with no Python.
//!
//! # A first picture
//!
//! A checkpoint is a folder in diffusers' layout, the one with `model_index.json` (Karlo is one).
//! [`UnClip::load`] reads it, [`UnClip::text_to_image`] starts a job, and
//! [`run`](Job::run) makes the pictures:
//!
//! ```no_run
//! # fn main() -> Result<(), unclip::Error> {
//! use unclip::{UnClip, burn::tensor::Device};
//!
//! let unclip = UnClip::load("karlo-v1-alpha", &Device::flex())?;
//! let output = unclip.text_to_image("a red bicycle").seed(42).run()?;
//! output.save(0, "bicycle.png")?;
//! # Ok(()) }
//! ```
//!
//! [`Output`] holds the pictures as [`image::RgbImage`], the tensors between the stages, and the
//! [`Settings`] that make it again, which [`Output::save`] also writes into the PNG.
//!
//! # More pictures, other settings
//!
//! What a job is not told is the checkpoint's own. Everything else is a method of [`Job`]:
//!
//! ```no_run
//! # fn main() -> Result<(), unclip::Error> {
//! # let unclip = unclip::UnClip::builder(&unclip::burn::tensor::Device::flex()).build()?;
//! use std::ops::ControlFlow;
//!
//! let output = unclip
//!     .texts_to_images(["a red bicycle", "a blue bicycle"])
//!     .images(2)
//!     .negative_prompt("blurry")
//!     .prior_steps(25)
//!     .decoder_steps(50)
//!     .decoder_guidance(4.0)
//!     .on_step(|step| {
//!         println!("{}: {} of {}", step.stage, step.done, step.steps);
//!         ControlFlow::Continue(()) // or Break, to cancel
//!     })
//!     .run()?;
//! output.save_all("out", "bicycle")?;
//! output.save_contact_sheet("out/sheet.png", 2)?;
//! # Ok(()) }
//! ```
//!
//! # Less memory, other devices
//!
//! ```no_run
//! # fn main() -> Result<(), unclip::Error> {
//! use unclip::{Precision, Residency, UnClip, burn::tensor::Device};
//!
//! let unclip = UnClip::builder(&Device::flex())
//!     .checkpoint("karlo-v1-alpha")
//!     .precision(Precision::HALF_WEIGHTS) // f16 in memory, f32 arithmetic
//!     .residency(Residency::OneAtATime) // one network in memory at a time
//!     .build()?;
//! # Ok(()) }
//! ```
//!
//! A device is always the caller's choice: `Device::wgpu(..)`, `Device::cuda(0)` and so on exist
//! with the features of their names, and [`Builder`] puts each stage on a device of its own.
//!
//! # From pictures
//!
//! [`UnClip::variations`], [`UnClip::edit`] and its kin start from a picture. All of them are a
//! [`Job`], with the same knobs as text to image:
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let unclip = unclip::UnClip::builder(&unclip::burn::tensor::Device::flex()).build()?;
//! use unclip::{Mask, image};
//!
//! let photo = image::open("photo.jpg")?;
//! let output = unclip.variations(&photo).images(4).seed(42).run()?;
//!
//! let (width, height) = (photo.width() as usize, photo.height() as usize);
//! let mask = Mask::rectangle(width, height, [100, 80], [60, 90]);
//! let output = unclip.edit(&photo, &mask, "a red armchair").run()?;
//! # Ok(()) }
//! ```
//!
//! # A stage of one's own
//!
//! [`TextEncoder`], [`ImageEncoder`], [`Prior`], [`Decoder`] and [`Upsampler`] are object-safe
//! traits. The builder takes any of them instead of the checkpoint's; [`UnClip::prior`] and its kin
//! give them out for use alone.
//!
//! ```no_run
//! # fn main() -> Result<(), unclip::Error> {
//! use unclip::{
//!     Prior, Result, UnClip,
//!     burn::tensor::{Device, Tensor},
//!     core::stage::{Caption, Run},
//! };
//!
//! /// The text embedding in place of an image embedding: one of the paper's ablations.
//! struct TextAsImage;
//!
//! impl Prior for TextAsImage {
//!     fn sample(&self, caption: Caption<'_>, _: &mut Run<'_>) -> Result<Tensor<2>> {
//!         Ok(caption.text.embedding.clone())
//!     }
//! }
//!
//! let unclip = UnClip::builder(&Device::flex())
//!     .checkpoint("karlo-v1-alpha")
//!     .prior(TextAsImage)
//!     .build()?;
//! # Ok(()) }
//! ```
//!
//! # Errors
//!
//! Whatever comes from outside (files, prompts, settings, a cancel) gives an [`Error`] that names
//! the thing and, where there is one, the remedy. A checkpoint loads completely or not at all.
//! A shape mistake in a program's own use of a network panics, as Burn's layers do.
//!
//! # The family
//!
//! - [`core`]: traits, diffusion, layers, weights, noise
//! - [`clip`], [`prior`], [`decoder`], [`upsample`]: a stage each, usable without this crate
//!
//! # Feature flags
//!
//! - `flex` (default): pure-Rust CPU backend with SIMD and threads
//! - `wgpu`, `vulkan`, `metal`, `cuda`, `rocm`: GPUs, with kernel fusion and autotuning
//! - `wgpu-plain`, `cuda-plain`: without these, to diagnose a driver or to start sooner
//! - `cuda-without-llvm`: lets `cuda` be built where LLVM cannot be downloaded
//! - `ndarray`: a CPU backend Burn has deprecated
//! - `pytorch`: read `.bin` and `.pt` checkpoints
//! - `train`: train and fine-tune every stage
#![cfg_attr(docsrs, feature(doc_cfg))]

mod builder;
mod checkpoint;
mod dataset;
mod jobs;
mod output;
mod unclip;

pub use builder::{Builder, Residency};
pub use dataset::{Dataset, Made};
pub use jobs::{
    BipartiteLatents, Edit, Extend, ImageToImage, Interpolate, Invert, Job, Reconstruct, TextDiff,
    TextToImage, Variations,
};
pub use output::{Output, Settings};
pub use unclip::UnClip;

pub use unclip_clip as clip;
pub use unclip_clip::tokenizer::Exclamation;
pub use unclip_core as core;
pub use unclip_core::{
    diffusion::{Sampler, Tables},
    error::{Error, Result},
    mask::Mask,
    noise::Noise,
    stage::{Decoder, ImageEncoder, Prior, Stage, StageSettings, Step, TextEncoder, Upsampler},
    weights::Precision,
};
pub use unclip_decoder as decoder;
pub use unclip_prior as prior;
pub use unclip_upsample as upsample;

// What appears in our own signatures.
pub use burn;
pub use image;

/// The README's examples, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

// The book's pages whose examples are whole programs, compiled.

#[cfg(doctest)]
#[doc = include_str!("../docs/src/clip.md")]
struct ClipPage;

#[cfg(doctest)]
#[doc = include_str!("../docs/src/data.md")]
struct DataPage;

#[cfg(doctest)]
#[doc = include_str!("../docs/src/pictures.md")]
struct PicturesPage;

#[cfg(doctest)]
#[doc = include_str!("../docs/src/priors.md")]
struct PriorsPage;

#[cfg(doctest)]
#[doc = include_str!("../docs/src/samplers.md")]
struct SamplersPage;

#[cfg(all(doctest, feature = "train"))]
#[doc = include_str!("../docs/src/training.md")]
struct TrainingPage;
