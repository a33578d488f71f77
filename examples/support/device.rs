//! `--device` and `--dtype`.

use clap::ValueEnum;
use unclip::{Precision, burn::tensor::Device};

/// Names that `--device` takes in this build.
pub const DEVICES: &[&str] = &[
    #[cfg(feature = "flex")]
    "flex",
    #[cfg(feature = "ndarray")]
    "ndarray",
    #[cfg(feature = "wgpu-plain")]
    "wgpu",
    #[cfg(feature = "vulkan")]
    "vulkan",
    #[cfg(feature = "metal")]
    "metal",
    #[cfg(feature = "cuda-plain")]
    "cuda",
    #[cfg(feature = "rocm")]
    "rocm",
];

/// Reads `--device`: a name, and for GPUs optionally `:NUMBER`.
///
/// # Errors
/// A sentence for the user.
pub fn parse_device(text: &str) -> Result<Device, String> {
    let (name, index) = match text.split_once(':') {
        None => (text, 0),
        Some((name, index)) => (
            name,
            index
                .parse::<usize>()
                .map_err(|_| format!("`{index}` is not the number of a device"))?,
        ),
    };
    #[cfg(any(feature = "wgpu-plain", feature = "vulkan", feature = "metal"))]
    let kind = match index {
        0 => unclip::burn::tensor::DeviceKind::DefaultDevice,
        n => unclip::burn::tensor::DeviceKind::DiscreteGpu(n),
    };
    let _ = index;
    match name {
        #[cfg(feature = "flex")]
        "flex" | "cpu" => Ok(Device::flex()),
        #[cfg(feature = "ndarray")]
        #[allow(deprecated)]
        "ndarray" => Ok(Device::ndarray()),
        #[cfg(feature = "wgpu-plain")]
        "wgpu" => Ok(Device::wgpu(kind)),
        #[cfg(feature = "vulkan")]
        "vulkan" => Ok(Device::vulkan(kind)),
        #[cfg(feature = "metal")]
        "metal" => Ok(Device::metal(kind)),
        #[cfg(feature = "cuda-plain")]
        "cuda" => Ok(Device::cuda(index)),
        #[cfg(feature = "rocm")]
        "rocm" => Ok(Device::rocm(index)),
        _ => Err(format!(
            "this build has {}; others need a cargo feature, for instance `--features wgpu`",
            DEVICES.join(", ")
        )),
    }
}

/// `--dtype`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// f32 weights and arithmetic.
    F32,
    /// f16 weights, f32 arithmetic: half the memory, for a CPU.
    F16Weights,
    /// f16 weights and arithmetic, for a GPU.
    F16,
    /// bf16 weights and arithmetic, for a GPU that has it.
    Bf16,
}

impl From<Dtype> for Precision {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::FULL,
            Dtype::F16Weights => Self::HALF_WEIGHTS,
            Dtype::F16 => Self::HALF,
            Dtype::Bf16 => Self::uniform(unclip::burn::tensor::FloatDType::BF16),
        }
    }
}
