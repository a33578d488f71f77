//! Where training data come from: folders and shards of captioned pictures, files of embeddings, memory.
//!
//! | source | item | reads |
//! |---|---|---|
//! | [`PictureFolder`] | [`Captioned`](super::Captioned) | pictures with `.txt` beside them, a `.csv`, or a `metadata.jsonl` |
//! | [`Shards`] | [`Captioned`](super::Captioned) | webdataset tar files, as img2dataset and `make_dataset` write them |
//! | [`Embeddings`] | [`EmbeddedCaption`](super::EmbeddedCaption) | `.npy` and safetensors with captions |
//! | [`InMemory`] | any | nothing |
//!
//! [`open`] recognises the first two. Opening makes an index; what a sample holds is read and decoded
//! when it is asked for, in the loader's threads. A sample that cannot be read is an error of
//! [`Samples::get`](super::Samples::get), which the loader names, counts and leaves out; only what
//! leaves no samples at all is an error of opening.

mod captions;
mod embeddings;
mod folder;
mod lists;
mod memory;
mod npy;
mod open;
mod picture;
mod shards;

pub use embeddings::{Embeddings, write_embeddings};
pub use folder::PictureFolder;
pub use memory::InMemory;
pub use open::{Layout, layout, open};
pub use shards::Shards;
