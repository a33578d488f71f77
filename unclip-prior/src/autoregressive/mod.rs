//! The autoregressive prior (unCLIP §2.2): codes of an image embedding, one after the other.

mod format;
mod model;
mod stage;
#[cfg(feature = "train")]
mod train;

pub use format::{load_autoregressive_prior, save_autoregressive_prior};
pub use model::{AutoregressiveConfig, AutoregressiveInput, AutoregressiveModel};
pub use stage::{AutoregressivePrior, dot_edges};
#[cfg(feature = "train")]
pub use train::{AutoregressiveExample, AutoregressiveTraining};
