//! The residual block of the ADM U-Net.

use burn::{
    config::Config,
    module::Module,
    nn::{
        GroupNorm, GroupNormConfig, Linear, LinearConfig, PaddingConfig2d,
        conv::{Conv2d, Conv2dConfig},
    },
    tensor::{Device, Tensor},
};
use serde::{Deserialize, Serialize};

use super::layers::{conv2d, linear};
use crate::kernels::{double, group_norm, halve};

/// What a residual block does to the picture's size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resample {
    /// Nothing.
    #[default]
    Keep,
    /// Halves it by 2 × 2 means.
    Down,
    /// Doubles it by repeating pixels.
    Up,
}

/// Configuration of [`ResidualBlock`].
#[derive(Config, Debug)]
pub struct ResidualBlockConfig {
    /// Channels in.
    pub channels_in: usize,
    /// Channels out.
    pub channels_out: usize,
    /// Width of the time embedding.
    pub time: usize,
    /// Change of size.
    pub resample: Resample,
    /// Whether time scales and shifts the second norm (true), or is added before it.
    pub scale_shift: bool,
    /// Groups of both norms. Default: 32
    #[config(default = 32)]
    pub groups: usize,
    /// Epsilon of both norms. Default: 1e-5
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// The sum is divided by this. Default: 1
    #[config(default = 1.0)]
    pub output_scale: f64,
}

/// Norm, SiLU, resample, convolve; add time; norm, SiLU, convolve; add the input.
///
/// As in Dhariwal and Nichol (arXiv 2105.05233), with the parameter names of diffusers'
/// `ResnetBlock2D`. Should be created with [`ResidualBlockConfig`].
#[derive(Module, Debug)]
pub struct ResidualBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Linear,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
    #[module(skip)]
    resample: Resample,
    scale_shift: bool,
    output_scale: f64,
}

impl ResidualBlockConfig {
    /// A new block on `device`.
    ///
    /// # Panics
    /// If the channels are not multiples of `groups`.
    pub fn init(&self, device: &Device) -> ResidualBlock {
        let norm = |channels| {
            GroupNormConfig::new(self.groups, channels)
                .with_epsilon(self.epsilon)
                .init(device)
        };
        let conv = |from, to, kernel: usize| {
            Conv2dConfig::new([from, to], [kernel; 2])
                .with_padding(PaddingConfig2d::Same)
                .init(device)
        };
        let time_out = if self.scale_shift { 2 } else { 1 } * self.channels_out;
        ResidualBlock {
            norm1: norm(self.channels_in),
            conv1: conv(self.channels_in, self.channels_out, 3),
            time_emb_proj: LinearConfig::new(self.time, time_out).init(device),
            norm2: norm(self.channels_out),
            conv2: conv(self.channels_out, self.channels_out, 3),
            conv_shortcut: (self.channels_in != self.channels_out)
                .then(|| conv(self.channels_in, self.channels_out, 1)),
            resample: self.resample,
            scale_shift: self.scale_shift,
            output_scale: self.output_scale,
        }
    }
}

impl ResidualBlock {
    /// Applies the block. `time` is the time embedding after SiLU, which all blocks share.
    ///
    /// # Shapes
    /// - `x`: `[b, channels_in, h, w]`
    /// - `time`: `[b, time]`
    /// - output: `[b, channels_out, h', w']`, where h' is h, h / 2 or 2 · h
    pub fn forward(&self, x: Tensor<4>, time: Tensor<2>) -> Tensor<4> {
        let h = group_norm(&self.norm1, x.clone(), None, true);
        let (x, h) = match self.resample {
            Resample::Keep => (x, h),
            Resample::Down => (halve(x), halve(h)),
            Resample::Up => (double(x), double(h)),
        };
        let h = conv2d(&self.conv1, h);
        let time = linear(&self.time_emb_proj, time);
        let h = if self.scale_shift {
            group_norm(&self.norm2, h, Some(time), true)
        } else {
            let [batch, width] = time.dims();
            group_norm(
                &self.norm2,
                h + time.reshape([batch, width, 1, 1]),
                None,
                true,
            )
        };
        let h = conv2d(&self.conv2, h);
        let x = match &self.conv_shortcut {
            Some(shortcut) => conv2d(shortcut, x),
            None => x,
        };
        let sum = x + h;
        if self.output_scale == 1.0 {
            sum
        } else {
            sum / self.output_scale
        }
    }
}
