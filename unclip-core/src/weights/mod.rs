//! The only door to checkpoints.
//!
//! [`Checkpoint`] finds and indexes the weight files of a folder (one safetensors file, a sharded
//! set with its index, a variant such as `fp16`, or, with feature `pytorch`, `.bin` and `.pt`).
//! [`load`] puts its tensors into a Burn module by way of a [`KeyMap`], completely or not at all;
//! [`save`] writes one.

mod checkpoint;
mod key_map;
mod load;
mod mismatch;
#[cfg(feature = "pytorch")]
mod pytorch;
mod random;
mod safetensors_file;
mod save;
mod transpose;

pub use checkpoint::{Checkpoint, TensorInfo};
pub use key_map::KeyMap;
#[cfg(feature = "train")]
pub(crate) use load::ModulePath;
pub use load::{LoadOptions, Precision, load};
pub use mismatch::{Misfit, Mismatch};
pub use random::randomize;
pub(crate) use save::temporary;
pub use save::{save, write_whole};
