//! The ADM U-Net: decoder, GLIDE and upsamplers are configurations of it.

use burn::{
    module::{Module, Param},
    nn::{GroupNorm, conv::Conv2d},
    tensor::{Bool, DType, Tensor, activation::silu},
};

use super::{
    DownBlock, MidBlock, TimeEmbedding, Times, UpBlock,
    layers::{as_compute, conv2d},
    unet_blocks::Conditions,
};
use crate::kernels::group_norm;

/// The U-Net of Dhariwal and Nichol (arXiv 2105.05233) with GLIDE's attention to context tokens.
///
/// Should be created with [`UNetConfig`](super::UNetConfig). Parameter names are those of
/// diffusers' `UNet2DConditionModel`, up to [`unet_keys`](super::unet_keys).
#[derive(Module, Debug)]
pub struct UNet {
    pub(super) conv_in: Conv2d,
    pub(super) time_embedding: TimeEmbedding,
    pub(super) down_blocks: Vec<DownBlock>,
    pub(super) mid_block: MidBlock,
    pub(super) up_blocks: Vec<UpBlock>,
    pub(super) conv_norm_out: GroupNorm,
    pub(super) conv_out: Conv2d,
    pub(super) center_input: bool,
}

/// What a [`UNet`] is given.
#[derive(Debug)]
pub struct UNetInput<'a> {
    /// Noisy picture, `[b, in_channels, h, w]`.
    pub sample: Tensor<4>,
    /// The time of each element of the batch.
    pub times: Times<'a>,
    /// Added to the time embedding, `[b, time]`.
    pub added_time: Option<Tensor<2>>,
    /// Context tokens, `[b, n, context]`.
    pub context: Option<Tensor<3>>,
    /// Which context tokens count, `[b, n]`, true = keep.
    pub context_mask: Option<Tensor<2, Bool>>,
}

impl UNet {
    /// The same network with `count` further input channels behind those it has. Their weights are 0, so
    /// that it begins as it was.
    pub fn with_more_inputs(mut self, count: usize) -> Self {
        let weight = self.conv_in.weight.val();
        let [out, _, height, width] = weight.dims();
        let zeros = Tensor::zeros([out, count, height, width], &weight.device());
        let zeros = as_compute(zeros, weight.dtype());
        self.conv_in.weight = Param::from_tensor(Tensor::cat(vec![weight, zeros], 1));
        self
    }

    /// Predicts from a noisy picture. Input and output are f32, whatever the network computes in.
    ///
    /// # Shapes
    /// output: `[b, out_channels, h, w]`
    ///
    /// # Panics
    /// If h and w are not multiples of [`size_multiple`](super::UNetConfig::size_multiple), or if
    /// the network attends and there is no context.
    pub fn forward(&self, input: UNetInput<'_>) -> Tensor<4> {
        let compute = self.compute_dtype();
        let mut x = as_compute(input.sample, compute);
        if self.center_input {
            x = x * 2.0 - 1.0;
        }
        let mut time = self.time_embedding.forward(input.times, &x);
        if let Some(added) = input.added_time {
            time = time + as_compute(added, compute);
        }
        let conditions = Conditions {
            time: silu(time),
            context: input
                .context
                .map(|context| (as_compute(context, compute), input.context_mask)),
        };

        x = conv2d(&self.conv_in, x);
        let mut skips = vec![x.clone()];
        for block in &self.down_blocks {
            x = block.forward(x, &conditions, &mut skips);
        }
        x = self.mid_block.forward(x, &conditions);
        for block in &self.up_blocks {
            x = block.forward(x, &conditions, &mut skips);
        }
        let x = conv2d(
            &self.conv_out,
            group_norm(&self.conv_norm_out, x, None, true),
        );
        as_compute(x, DType::F32)
    }

    /// How it is told the time.
    pub fn time_embedding(&self) -> &TimeEmbedding {
        &self.time_embedding
    }

    /// The type the network computes in: that of its biases and norms.
    fn compute_dtype(&self) -> DType {
        match &self.conv_out.bias {
            Some(bias) => bias.val().dtype(),
            None => DType::F32,
        }
    }
}
