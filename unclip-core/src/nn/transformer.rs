//! The pre-norm transformer block of the CLIP towers and the prior.

use burn::{
    config::Config,
    module::Module,
    nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig},
    tensor::{Bool, Device, Tensor, TensorData},
};

use super::{Activation, attention::attend, layers::linear};

/// Configuration of [`TransformerBlock`].
#[derive(Config, Debug)]
pub struct TransformerBlockConfig {
    /// Width of the tokens.
    pub width: usize,
    /// Attention heads.
    pub heads: usize,
    /// Channels per head; heads × head_dim need not be the width.
    pub head_dim: usize,
    /// Width of the hidden layer.
    pub hidden: usize,
    /// Non-linearity.
    pub activation: Activation,
    /// Epsilon of the norms. Default: 1e-5
    #[config(default = 1e-5)]
    pub epsilon: f64,
}

/// Self-attention with biases on all four projections.
#[derive(Module, Debug)]
pub struct SelfAttention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: usize,
}

/// Two linear layers with an [`Activation`] between them.
#[derive(Module, Debug)]
pub struct Mlp {
    fc1: Linear,
    fc2: Linear,
    #[module(skip)]
    activation: Activation,
}

/// x += attention(norm1 x); x += mlp(norm2 x).
///
/// Should be created with [`TransformerBlockConfig`].
#[derive(Module, Debug)]
pub struct TransformerBlock {
    norm1: LayerNorm,
    attn: SelfAttention,
    norm2: LayerNorm,
    mlp: Mlp,
}

impl TransformerBlockConfig {
    /// A new block on `device`.
    pub fn init(&self, device: &Device) -> TransformerBlock {
        let inner = self.heads * self.head_dim;
        let norm = || {
            LayerNormConfig::new(self.width)
                .with_epsilon(self.epsilon)
                .init(device)
        };
        let project = || LinearConfig::new(self.width, inner).init(device);
        TransformerBlock {
            norm1: norm(),
            attn: SelfAttention {
                to_q: project(),
                to_k: project(),
                to_v: project(),
                to_out: LinearConfig::new(inner, self.width).init(device),
                heads: self.heads,
            },
            norm2: norm(),
            mlp: Mlp {
                fc1: LinearConfig::new(self.width, self.hidden).init(device),
                fc2: LinearConfig::new(self.hidden, self.width).init(device),
                activation: self.activation,
            },
        }
    }
}

impl SelfAttention {
    fn keys_and_values(&self, h: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
        (linear(&self.to_k, h.clone()), linear(&self.to_v, h))
    }
}

/// Keys and values of the tokens a block has seen, so that it need not see them again.
#[derive(Clone, Debug, Default)]
pub struct KvCache {
    seen: Option<(Tensor<3>, Tensor<3>)>,
}

impl KvCache {
    fn extend(&mut self, key: Tensor<3>, value: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
        let all = match self.seen.take() {
            None => (key, value),
            Some((keys, values)) => (
                Tensor::cat(vec![keys, key], 1),
                Tensor::cat(vec![values, value], 1),
            ),
        };
        self.seen = Some(all.clone());
        all
    }
}

impl TransformerBlock {
    /// Applies the block. `mask` is true where a key must not be seen.
    ///
    /// # Shapes
    /// - `x`: `[b, n, width]`, also the output
    /// - `mask`: `[b, 1, n, n]`
    pub fn forward(
        &self,
        x: Tensor<3>,
        mask: Option<Tensor<4, Bool>>,
        is_causal: bool,
    ) -> Tensor<3> {
        let h = self.norm1.forward(x.clone());
        let (key, value) = self.attn.keys_and_values(h.clone());
        self.attended(x, h, key, value, mask, is_causal)
    }

    /// Applies the block to tokens that follow those in `cache`, and adds them to it.
    ///
    /// # Shapes
    /// - `x`: `[b, m, width]`, also the output
    /// - `mask`: `[b, 1, m, cached + m]`, true where a key must not be seen; without it every new
    ///   token sees everything, as a single one may
    pub fn forward_cached(
        &self,
        x: Tensor<3>,
        cache: &mut KvCache,
        mask: Option<Tensor<4, Bool>>,
    ) -> Tensor<3> {
        let h = self.norm1.forward(x.clone());
        let (key, value) = self.attn.keys_and_values(h.clone());
        let (key, value) = cache.extend(key, value);
        self.attended(x, h, key, value, mask, false)
    }

    /// Attention of the normed `h` to keys and values, and the rest of the block.
    fn attended(
        &self,
        x: Tensor<3>,
        h: Tensor<3>,
        key: Tensor<3>,
        value: Tensor<3>,
        mask: Option<Tensor<4, Bool>>,
        is_causal: bool,
    ) -> Tensor<3> {
        let a = &self.attn;
        let h = attend(linear(&a.to_q, h), key, value, a.heads, mask, is_causal);
        let x = x + linear(&a.to_out, h);
        let h = linear(&self.mlp.fc1, self.norm2.forward(x.clone()));
        x + linear(&self.mlp.fc2, self.mlp.activation.apply(h))
    }
}

/// True above the diagonal: `[1, 1, n, n]`, a key of the future must not be seen.
pub fn causal_mask(n: usize, device: &Device) -> Tensor<4, Bool> {
    let future: Vec<bool> = (0..n * n).map(|i| i % n > i / n).collect();
    Tensor::from_data(TensorData::new(future, [1, 1, n, n]), device)
}
