//! CLIP for unCLIP: tokenizer, both towers, image preprocessing and matching, on Burn.
//!
//! Text:
//! - [`tokenizer`]: text → token ids
//! - [`TextTower`], configured by [`TextTowerConfig`]: the network
//! - [`ClipTextEncoder`]: the stage, a [`TextEncoder`](unclip_core::stage::TextEncoder)
//! - [`TransformersClipText`]: transformers' configuration
//!
//! Pictures:
//! - [`ClipImageProcessor`]: picture → pixel values, the bytes that Pillow gives
//! - [`VisionTower`], configured by [`VisionTowerConfig`]: the network
//! - [`ClipImageEncoder`]: the stage, an [`ImageEncoder`](unclip_core::stage::ImageEncoder)
//! - [`TransformersClipVision`], [`TransformersClipImageProcessor`]: transformers' configurations
//!
//! Both:
//! - [`ClipModel`], configured by [`ClipModelConfig`]: two towers and the factor on their cosines
//! - [`contrastive_loss`]: what trains it
//! - [`ClipEncoders`]: the stages of a whole CLIP's folder
//! - [`Matcher`]: captions ranked for a picture, pictures for a caption, zero-shot classification
//! - [`TransformersClip`]: transformers' configuration
//!
//! # The best caption of a picture
//!
//! ```no_run
//! # fn main() -> Result<(), unclip_core::Error> {
//! # let device = burn::tensor::Device::flex();
//! # let picture = image::DynamicImage::new_rgb8(1, 1);
//! use std::path::Path;
//!
//! use unclip_clip::ClipEncoders;
//! use unclip_core::weights::LoadOptions;
//!
//! let folder = Path::new("clip-vit-large-patch14");
//! let clip = ClipEncoders::load(folder, None, &device, LoadOptions::default())?;
//! let captions = ["a cat on a sofa", "a dog in the snow"];
//! let ranked = clip.matcher().rank_captions(&picture, &captions)?;
//! println!("{}", captions[ranked[0].index]);
//! # Ok(()) }
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]

mod clip_encoders;
mod contrastive;
mod contrastive_format;
mod image_encoder;
mod image_processor;
mod image_processor_format;
mod matching;
mod pillow_resize;
mod save;
mod text_encoder;
mod text_format;
mod text_tower;
pub mod tokenizer;
mod tower_format;
#[cfg(feature = "train")]
mod train;
mod vision_format;
mod vision_tower;

pub use clip_encoders::ClipEncoders;
pub use contrastive::{
    ClipModel, ClipModelConfig, ClipOutput, clip_model_keys, contrastive_loss, cosine_similarity,
    load_clip_model, normalize, similarity_logits,
};
pub use contrastive_format::TransformersClip;
pub use image_encoder::{ClipImageEncoder, load_vision_tower};
pub use image_processor::{ClipImageProcessor, ResizeTo};
pub use image_processor_format::TransformersClipImageProcessor;
pub use matching::{Match, Matcher, OPENAI_LOGIT_FACTOR, PHOTO_TEMPLATES};
pub use pillow_resize::Filter;
pub use save::{save_clip_model, save_text_tower, save_vision_tower};
pub use text_encoder::{ClipTextEncoder, load_text_tower};
pub use text_format::TransformersClipText;
pub use text_tower::{Pooling, TextOutput, TextTower, TextTowerConfig, text_tower_keys};
#[cfg(feature = "train")]
pub use train::{ClipExample, ClipTraining};
pub use vision_format::TransformersClipVision;
pub use vision_tower::{VisionOutput, VisionTower, VisionTowerConfig, vision_tower_keys};
