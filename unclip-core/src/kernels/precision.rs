//! How precisely convolutions, linear layers and attention multiply.

use std::sync::atomic::{AtomicBool, Ordering};

static IS_BF16: AtomicBool = AtomicBool::new(false);
static IS_TF32: AtomicBool = AtomicBool::new(false);

/// The values that convolutions multiply, on GPUs linear layers and attention too; sums, and all else, are f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// f32, as the tensors are.
    #[default]
    F32,
    /// f32 values rounded to TF32 (11 bits of precision), on GPUs that have matrix units for it.
    Tf32,
    /// f32 values rounded to bf16 (8 bits of precision), where the processor has matrix units for it.
    Bf16,
}

/// Lets convolutions multiply in `precision`, in this whole process, from the next one on: what PyTorch
/// calls the precision of f32 matrix products.
///
/// With [`Precision::Bf16`] and Intel's AMX on Linux a CPU's take a fraction of the time; with
/// [`Precision::Tf32`] those of a GPU with tensor cores. Elsewhere nothing changes. Both are meant for
/// training, which bears the rounding; results differ in the third digit.
///
/// Returns whether this can be: for a CPU, whether the processor has the units, for GPUs, whether
/// kernels for them were built.
pub fn set_precision(precision: Precision) -> bool {
    #[cfg(feature = "flex")]
    let has_bf16 = super::tiles::Tiles::exist();
    #[cfg(not(feature = "flex"))]
    let has_bf16 = false;
    IS_BF16.store(precision == Precision::Bf16 && has_bf16, Ordering::Relaxed);
    IS_TF32.store(precision == Precision::Tf32, Ordering::Relaxed);
    match precision {
        Precision::F32 => true,
        Precision::Tf32 => cfg!(feature = "cube"),
        Precision::Bf16 => has_bf16,
    }
}

/// Whether CPUs multiply bf16.
#[cfg(feature = "flex")]
pub(super) fn is_bf16() -> bool {
    IS_BF16.load(Ordering::Relaxed)
}

/// Whether GPUs multiply TF32.
#[cfg(feature = "cube")]
pub(super) fn is_tf32() -> bool {
    IS_TF32.load(Ordering::Relaxed)
}
