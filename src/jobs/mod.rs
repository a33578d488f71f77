//! One file for each thing a person comes for; what they share is in `job`, `knobs` and `chain`.

mod candidates;
mod chain;
mod edit;
mod fit;
mod image_to_image;
mod interpolate;
mod invert;
mod job;
mod knobs;
mod text_diff;
mod text_to_image;
mod variations;

pub use edit::{Edit, Extend};
pub use image_to_image::ImageToImage;
pub use interpolate::Interpolate;
pub use invert::{BipartiteLatents, Invert, Reconstruct};
pub use job::Job;
pub use text_diff::TextDiff;
pub use text_to_image::TextToImage;
pub use variations::Variations;
