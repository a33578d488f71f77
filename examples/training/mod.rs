//! What the training examples share: flags, the loop with its progress bar, networks to start from, and
//! sheets of samples.
#![allow(dead_code, unused_imports, unreachable_pub)]

mod codes;
mod own;
mod pace;
mod run;
mod sheets;
mod start;

pub use codes::Autoregressive;
pub use own::Own;
pub use run::Flags;
pub use sheets::{DecoderSheet, UpsamplerSheet};
pub use start::Start;
