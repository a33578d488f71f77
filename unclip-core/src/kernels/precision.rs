//! How precisely convolutions multiply.

use std::sync::atomic::{AtomicBool, Ordering};

static IS_BF16: AtomicBool = AtomicBool::new(false);

/// The values that the CPU's convolutions multiply; sums, and all else, are f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// f32, as the tensors are.
    #[default]
    F32,
    /// f32 values rounded to bf16 (8 bits of precision), where the processor has matrix units for it.
    Bf16,
}

/// Lets the CPU's convolutions multiply in `precision`, in this whole process, from the next one on:
/// what PyTorch calls the precision of f32 matrix products.
///
/// With [`Precision::Bf16`] and Intel's AMX on Linux they take a fraction of the time; elsewhere
/// nothing changes. It is meant for training, which bears the rounding; results differ in the third
/// digit.
///
/// Returns whether this processor can.
pub fn set_precision(precision: Precision) -> bool {
    #[cfg(feature = "flex")]
    let can = super::tiles::Tiles::exist();
    #[cfg(not(feature = "flex"))]
    let can = false;
    IS_BF16.store(precision == Precision::Bf16 && can, Ordering::Relaxed);
    precision == Precision::F32 || can
}

/// Whether to multiply bf16.
#[cfg(feature = "flex")]
pub(super) fn is_bf16() -> bool {
    IS_BF16.load(Ordering::Relaxed)
}
