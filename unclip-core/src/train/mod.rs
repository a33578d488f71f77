//! Training, whatever is trained: data in a seeded order, AdamW, averages of the weights, checkpoints
//! that a run can be killed at and resumed from without a trace.
//!
//! A [`Recipe`] says what is trained and on what loss; each stage's crate has its own. A [`Trainer`]
//! runs it:
//!
//! - [`Samples`] gives the data, [`data`] has them of files; [`Loader`] reads them in worker threads, names what is broken and
//!   goes on
//! - every random number of a step follows from the seed and the step's number, and every reading
//!   order from the seed, so that a resumed run repeats a run that was never stopped to the bit
//! - [`TrainSettings`] has the optimiser's numbers and when to save

mod ahead;
mod captioned;
mod checkpoint;
#[cfg(feature = "flex")]
mod cores;
mod curve;
pub mod data;
mod diffusion_loss;
mod dropout;
mod init;
mod inputs;
mod loader;
mod log;
mod lora;
mod optimizer;
mod order;
mod pattern;
mod recipe;
mod recorded;
mod recording;
mod settings;
mod timesteps;
mod trainer;

pub use captioned::{Captioned, EmbeddedCaption, TextRow, pictures, pixel_values, square, stack};
pub use checkpoint::{checkpoints, latest_checkpoint};
pub use curve::loss_curve;
pub use diffusion_loss::{DiffusionLoss, Noised, Weighting};
pub use dropout::kept_conditions;
pub use init::initialized;
pub use inputs::{Given, Inputs};
pub use loader::{Batch, Broken, Loader, Samples};
pub use log::{LogRow, read_log};
pub use lora::{frozen, merged, with_lora};
pub use optimizer::Optimizer;
pub use order::Order;
pub use recipe::{Pass, Recipe, Recordable, accumulate, shared};
pub use settings::TrainSettings;
pub use timesteps::TimestepSampler;
pub use trainer::{Progress, Trainer};
