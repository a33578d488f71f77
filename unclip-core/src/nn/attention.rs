//! Attention, through Burn's fused operation where there is no kernel.

use burn::{
    config::Config,
    module::Module,
    nn::{GroupNorm, GroupNormConfig, Linear, LinearConfig},
    tensor::{Bool, Device, Tensor, module, ops::AttentionModuleOptions},
};

use super::layers::linear;
use crate::kernels::{attention, group_norm};

/// Scaled dot-product attention with several heads; the scale is 1 / √(head width).
///
/// `mask` is true where a key must not be seen.
///
/// # Shapes
/// - `query`: `[b, n, heads · d]`; `key`, `value`: `[b, m, heads · d]`
/// - `mask`: `[b, 1, 1 or n, m]`
/// - output: `[b, n, heads · d]`
///
/// # Panics
/// If the width is not a multiple of `heads`.
pub fn attend(
    query: Tensor<3>,
    key: Tensor<3>,
    value: Tensor<3>,
    heads: usize,
    mask: Option<Tensor<4, Bool>>,
    is_causal: bool,
) -> Tensor<3> {
    if let Some(out) = attention(&query, &key, &value, heads, mask.as_ref(), is_causal) {
        return out;
    }
    let [batch, n, width] = query.dims();
    let [_, m, _] = key.dims();
    let split = |x: Tensor<3>, length: usize| {
        x.reshape([batch, length, heads, width / heads])
            .swap_dims(1, 2)
    };
    // Not every backend broadcasts a mask inside its fused kernel.
    let mask = mask.map(|mask| mask.expand([batch, heads, n, m]));
    // No explicit scale: CubeCL leaves its flash kernels when one is set.
    let options = AttentionModuleOptions {
        scale: None,
        softcap: None,
        is_causal,
    };
    module::attention(
        split(query, n),
        split(key, m),
        split(value, m),
        mask,
        None,
        options,
    )
    .swap_dims(1, 2)
    .reshape([batch, n, width])
}

/// Configuration of [`ContextAttention`].
#[derive(Config, Debug)]
pub struct ContextAttentionConfig {
    /// Channels of the picture.
    pub channels: usize,
    /// Width of the context tokens.
    pub context: usize,
    /// Channels per head.
    pub head_dim: usize,
    /// Groups of the norm. Default: 32
    #[config(default = 32)]
    pub groups: usize,
}

/// Attention of a picture's pixels to themselves and to context tokens, as GLIDE and unCLIP have
/// it: queries, keys and values from the group-normed pixels; further keys and values from the
/// context, put first; the result is added to the pixels.
///
/// Parameter names are those of diffusers' `Attention` with `added_kv_proj_dim`.
/// Should be created with [`ContextAttentionConfig`].
#[derive(Module, Debug)]
pub struct ContextAttention {
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    add_k_proj: Linear,
    add_v_proj: Linear,
    to_out: Linear,
    heads: usize,
}

impl ContextAttentionConfig {
    /// A new layer on `device`.
    ///
    /// # Panics
    /// If `channels` is not a multiple of `head_dim` and of `groups`.
    pub fn init(&self, device: &Device) -> ContextAttention {
        assert!(
            self.channels.is_multiple_of(self.head_dim),
            "{} channels do not split into heads of {}",
            self.channels,
            self.head_dim
        );
        let square = LinearConfig::new(self.channels, self.channels);
        let added = LinearConfig::new(self.context, self.channels);
        ContextAttention {
            // The norm's epsilon is 1e-5 whatever the U-Net's own is.
            group_norm: GroupNormConfig::new(self.groups, self.channels)
                .with_epsilon(1e-5)
                .init(device),
            to_q: square.init(device),
            to_k: square.init(device),
            to_v: square.init(device),
            add_k_proj: added.init(device),
            add_v_proj: added.init(device),
            to_out: square.init(device),
            heads: self.channels / self.head_dim,
        }
    }
}

impl ContextAttention {
    /// Applies the layer.
    ///
    /// # Shapes
    /// - `x`: `[b, channels, h, w]`, also the output
    /// - `context`: `[b, n, context]`
    /// - `mask`: `[b, n]`, true = keep
    pub fn forward(
        &self,
        x: Tensor<4>,
        context: Tensor<3>,
        mask: Option<Tensor<2, Bool>>,
    ) -> Tensor<4> {
        let [batch, channels, height, width] = x.dims();
        let pixels = height * width;
        let [_, tokens, _] = context.dims();
        let h = group_norm(&self.group_norm, x.clone(), None, false)
            .reshape([batch, channels, pixels])
            .swap_dims(1, 2)
            // Three layers read it: moved once, not by each.
            .reshape([batch * pixels, channels])
            .reshape([batch, pixels, channels]);
        let key = Tensor::cat(
            vec![
                linear(&self.add_k_proj, context.clone()),
                linear(&self.to_k, h.clone()),
            ],
            1,
        );
        let value = Tensor::cat(
            vec![
                linear(&self.add_v_proj, context),
                linear(&self.to_v, h.clone()),
            ],
            1,
        );
        let mask = mask.map(|keep| {
            let seen = Tensor::<2, Bool>::zeros([batch, pixels], &keep.device());
            Tensor::cat(vec![keep.bool_not(), seen], 1).reshape([batch, 1, 1, tokens + pixels])
        });
        let h = attend(linear(&self.to_q, h), key, value, self.heads, mask, false);
        linear(&self.to_out, h)
            .swap_dims(1, 2)
            .reshape([batch, channels, height, width])
            .add(x)
    }
}
