//! What the examples share: choosing a device, precision, and progress bars.
#![allow(dead_code, unreachable_pub)]

use std::{collections::HashMap, ops::ControlFlow};

use clap::ValueEnum;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use unclip::{Precision, Stage, Step, burn::tensor::Device};

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
    #[cfg(feature = "cuda")]
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
        #[cfg(feature = "cuda")]
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

/// A progress bar for each stage, made when the stage makes its first step.
#[derive(Default)]
pub struct StageBars {
    all: MultiProgress,
    bars: HashMap<Stage, ProgressBar>,
}

impl StageBars {
    /// Shows a step; for `on_step`.
    pub fn show(&mut self, step: Step) -> ControlFlow<()> {
        let bar = self.bars.entry(step.stage).or_insert_with(|| {
            let style = ProgressStyle::with_template(
                "{prefix:>13} {bar:32} {pos:>3}/{len:<3} {elapsed} (left {eta})",
            );
            self.all.add(
                ProgressBar::new(step.steps as u64)
                    .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
                    .with_prefix(step.stage.to_string()),
            )
        });
        bar.set_position(step.done as u64);
        if step.done == step.steps {
            bar.finish();
        }
        ControlFlow::Continue(())
    }
}

/// The most memory this process has held since the last [`reset_peak_memory`], in MiB, where the
/// system tells (Linux).
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    line.split_whitespace()
        .nth(1)?
        .parse::<u64>()
        .ok()
        .map(|kib| kib / 1024)
}

/// Starts [`peak_memory`] anew, where the system can (Linux).
pub fn reset_peak_memory() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
