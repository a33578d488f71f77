//! What the training examples share: flags, the loop with its progress bar, networks to start from, and
//! sheets of samples.
#![allow(dead_code, unused_imports, unreachable_pub)]

mod codes;
mod own;
mod run;
mod sheets;
mod start;

/// Training takes and gives back the same large blocks in every step; the usual allocator returns them to
/// the system, which then clears them each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub use codes::Autoregressive;
pub use own::Own;
pub use run::Flags;
pub use sheets::{DecoderSheet, UpsamplerSheet};
pub use start::Start;
