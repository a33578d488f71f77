//! Configuration of the ADM U-Net.

use burn::{
    config::Config,
    nn::{
        GroupNormConfig, PaddingConfig2d,
        conv::{Conv2d, Conv2dConfig},
    },
    tensor::Device,
};

use super::{
    ContextAttentionConfig, DownBlock, MidBlock, Resample, ResidualBlock, ResidualBlockConfig,
    TimeEmbeddingConfig, UNet, UpBlock,
};
use crate::weights::KeyMap;

/// Configuration of [`UNet`].
#[derive(Config, Debug)]
pub struct UNetConfig {
    /// Channels in.
    pub in_channels: usize,
    /// Channels out.
    pub out_channels: usize,
    /// Channels of each level, the full-size one first.
    pub channels: Vec<usize>,
    /// Residual blocks of each level on the way down; one more on the way up.
    pub layers: usize,
    /// Levels that attend on the way down.
    pub down_attention: Vec<bool>,
    /// Levels that attend on the way up, the smallest first.
    pub up_attention: Vec<bool>,
    /// Whether the middle attends.
    pub mid_attention: bool,
    /// Width of the context tokens; 0 where nothing attends.
    pub context: usize,
    /// Whether time scales and shifts the norms, or is added before them.
    pub scale_shift: bool,
    /// Channels per head. Default: 64
    #[config(default = 64)]
    pub head_dim: usize,
    /// Groups of the norms. Default: 32
    #[config(default = 32)]
    pub groups: usize,
    /// Epsilon of the norms of residual blocks and output. Default: 1e-5
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// Width of the time embedding; 4 × the first level's channels if 0. Default: 0
    #[config(default = 0)]
    pub time: usize,
    /// Sinusoid as `[cos | sin]`. Default: true
    #[config(default = true)]
    pub cos_first: bool,
    /// Shift of the sinusoid's divisor. Default: 0
    #[config(default = 0.0)]
    pub freq_shift: f64,
    /// The middle's residual sums are divided by this. Default: 1
    #[config(default = 1.0)]
    pub mid_scale: f64,
    /// Whether the input is mapped from [0, 1] to [-1, 1] first. Default: false
    #[config(default = false)]
    pub center_input: bool,
}

/// Renames from [`UNet`] to diffusers' `UNet2DModel` and `UNet2DConditionModel`.
pub fn unet_keys() -> KeyMap {
    KeyMap::new(&[("to_out", "to_out.0")])
}

impl UNetConfig {
    /// Width of the time embedding.
    pub fn time_width(&self) -> usize {
        if self.time == 0 {
            4 * self.channels[0]
        } else {
            self.time
        }
    }

    /// Height and width of a picture must be multiples of this.
    pub fn size_multiple(&self) -> usize {
        1 << (self.channels.len() - 1)
    }

    /// Whether pictures of this height and width are of use to the network, and of a size that
    /// can be meant: a configuration comes from outside.
    pub fn allows_size(&self, size: usize) -> bool {
        (1..=8192).contains(&size) && size.is_multiple_of(self.size_multiple())
    }

    /// A new network on `device`. Parameters take memory when they are first used.
    ///
    /// # Panics
    /// If the lists differ in length or channels do not split into groups and heads.
    pub fn init(&self, device: &Device) -> UNet {
        let levels = self.channels.len();
        assert!(
            levels > 0 && levels == self.down_attention.len() && levels == self.up_attention.len(),
            "every level needs channels and both attention switches"
        );
        let first = self.channels[0];
        let down_blocks = (0..levels)
            .map(|i| self.down_block(i, device))
            .collect::<Vec<_>>();
        let up_blocks = (0..levels)
            .map(|i| self.up_block(i, device))
            .collect::<Vec<_>>();
        UNet {
            conv_in: conv3x3(self.in_channels, first, device),
            time_embedding: TimeEmbeddingConfig::new(first, self.time_width(), self.time_width())
                .with_cos_first(self.cos_first)
                .with_shift(self.freq_shift)
                .init(device),
            down_blocks,
            mid_block: self.mid_block(device),
            up_blocks,
            conv_norm_out: GroupNormConfig::new(self.groups, first)
                .with_epsilon(self.epsilon)
                .init(device),
            conv_out: conv3x3(first, self.out_channels, device),
            center_input: self.center_input,
        }
    }

    fn residual(
        &self,
        from: usize,
        to: usize,
        resample: Resample,
        scale: f64,
        device: &Device,
    ) -> ResidualBlock {
        ResidualBlockConfig::new(from, to, self.time_width(), resample, self.scale_shift)
            .with_groups(self.groups)
            .with_epsilon(self.epsilon)
            .with_output_scale(scale)
            .init(device)
    }

    fn attentions(
        &self,
        channels: usize,
        count: usize,
        device: &Device,
    ) -> Vec<super::ContextAttention> {
        let config = ContextAttentionConfig::new(channels, self.context, self.head_dim)
            .with_groups(self.groups);
        (0..count).map(|_| config.init(device)).collect()
    }

    fn down_block(&self, level: usize, device: &Device) -> DownBlock {
        let to = self.channels[level];
        let from = self.channels[level.saturating_sub(1)];
        let is_last = level + 1 == self.channels.len();
        let resnets = (0..self.layers)
            .map(|i| {
                self.residual(
                    if i == 0 { from } else { to },
                    to,
                    Resample::Keep,
                    1.0,
                    device,
                )
            })
            .collect();
        let attentions = if self.down_attention[level] {
            self.layers
        } else {
            0
        };
        let downsamplers = (!is_last).then(|| self.residual(to, to, Resample::Down, 1.0, device));
        DownBlock {
            resnets,
            attentions: self.attentions(to, attentions, device),
            downsamplers: downsamplers.into_iter().collect(),
        }
    }

    fn mid_block(&self, device: &Device) -> MidBlock {
        let channels = self.channels[self.channels.len() - 1];
        let resnets = (0..2)
            .map(|_| self.residual(channels, channels, Resample::Keep, self.mid_scale, device))
            .collect();
        MidBlock {
            resnets,
            attentions: self.attentions(channels, usize::from(self.mid_attention), device),
        }
    }

    /// `index` counts from the smallest level.
    fn up_block(&self, index: usize, device: &Device) -> UpBlock {
        let levels = self.channels.len();
        let channels = |i: usize| self.channels[levels - 1 - i.min(levels - 1)];
        let (previous, to, next) = (
            channels(index.saturating_sub(1)),
            channels(index),
            channels(index + 1),
        );
        let count = self.layers + 1;
        let resnets = (0..count)
            .map(|i| {
                let below = if i == 0 { previous } else { to };
                let skip = if i + 1 == count { next } else { to };
                self.residual(below + skip, to, Resample::Keep, 1.0, device)
            })
            .collect();
        let attentions = if self.up_attention[index] { count } else { 0 };
        let upsamplers =
            (index + 1 != levels).then(|| self.residual(to, to, Resample::Up, 1.0, device));
        UpBlock {
            resnets,
            attentions: self.attentions(to, attentions, device),
            upsamplers: upsamplers.into_iter().collect(),
        }
    }
}

fn conv3x3(from: usize, to: usize, device: &Device) -> Conv2d {
    Conv2dConfig::new([from, to], [3, 3])
        .with_padding(PaddingConfig2d::Same)
        .init(device)
}
