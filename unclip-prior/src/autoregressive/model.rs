//! The network: a causal transformer over caption, text embedding, dot product and codes.

use burn::{
    config::Config,
    module::{Module, Param},
    nn::{
        Embedding, EmbeddingConfig, Initializer, LayerNorm, LayerNormConfig, Linear, LinearConfig,
    },
    tensor::{Bool, DType, Device, Int, Tensor, activation::log_softmax},
};
use unclip_core::nn::{
    Activation, KvCache, TransformerBlock, TransformerBlockConfig, as_compute, causal_mask, linear,
};

/// Configuration of [`AutoregressiveModel`].
#[derive(Config, Debug)]
pub struct AutoregressiveConfig {
    /// Width of the text embedding and of the caption's tokens.
    pub embedding: usize,
    /// Tokens of the caption.
    pub context: usize,
    /// Codes of an image embedding.
    pub codes: usize,
    /// Buckets of each code.
    pub buckets: usize,
    /// Attention heads.
    pub heads: usize,
    /// Channels per head; the transformer's width is heads × head_dim.
    pub head_dim: usize,
    /// Transformer blocks.
    pub layers: usize,
    /// Buckets of the dot product. Default: 64
    #[config(default = 64)]
    pub dot_buckets: usize,
}

/// The transformer of unCLIP's autoregressive prior.
///
/// It sees the caption's tokens, the text embedding, a token for how large the dot product of text
/// and image embedding shall be, and the codes so far, and predicts the next code. Should be
/// created with [`AutoregressiveConfig`].
#[derive(Module, Debug)]
pub struct AutoregressiveModel {
    token_proj: Linear,
    text_proj: Linear,
    dot_embedding: Embedding,
    code_embedding: Embedding,
    positional_embedding: Param<Tensor<3>>,
    transformer_blocks: Vec<TransformerBlock>,
    norm_out: LayerNorm,
    head: Linear,
}

/// What an [`AutoregressiveModel`] is given.
#[derive(Clone, Debug)]
pub struct AutoregressiveInput {
    /// Text embeddings, `[b, embedding]`.
    pub text_embedding: Tensor<2>,
    /// The caption's tokens, `[b, context, embedding]`.
    pub tokens: Tensor<3>,
    /// Which of them count, `[b, context]`, true = keep.
    pub mask: Tensor<2, Bool>,
    /// Buckets of the dot product, `[b]`.
    pub dots: Tensor<1, Int>,
}

impl AutoregressiveConfig {
    /// The prior of unCLIP's table 3: 319 of 1,024 dimensions, 1,024 buckets, on CLIP's own caption
    /// states in place of the paper's caption transformer.
    pub fn paper() -> Self {
        Self::new(1024, 256, 319, 1024, 26, 64, 24)
    }

    /// Width of the transformer.
    pub fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// A new network on `device`. Parameters take memory when they are first used.
    pub fn init(&self, device: &Device) -> AutoregressiveModel {
        let width = self.width();
        let block = TransformerBlockConfig::new(
            width,
            self.heads,
            self.head_dim,
            4 * width,
            Activation::Gelu,
        );
        let small = Initializer::Normal {
            mean: 0.0,
            std: 0.02,
        };
        let embedding = |count| {
            EmbeddingConfig::new(count, width)
                .with_initializer(small.clone())
                .init(device)
        };
        AutoregressiveModel {
            token_proj: LinearConfig::new(self.embedding, width).init(device),
            text_proj: LinearConfig::new(self.embedding, width).init(device),
            dot_embedding: embedding(self.dot_buckets),
            code_embedding: embedding(self.buckets),
            // The last code is never seen.
            positional_embedding: small.init([1, self.context + 1 + self.codes, width], device),
            transformer_blocks: (0..self.layers).map(|_| block.init(device)).collect(),
            norm_out: LayerNormConfig::new(width).init(device),
            head: LinearConfig::new(width, self.buckets).init(device),
        }
    }
}

impl AutoregressiveModel {
    /// Logits of every code under the codes before it, f32.
    ///
    /// # Shapes
    /// - `codes`: `[b, m]`, without the last one
    /// - output: `[b, m + 1, buckets]`
    ///
    /// # Panics
    /// If the tokens do not fit the context, or there are too many codes.
    pub fn forward(&self, input: &AutoregressiveInput, codes: Tensor<2, Int>) -> Tensor<3> {
        let compute = self.norm_out.gamma.val().dtype();
        let prefix = self.prefix(input, compute);
        let [_, before, _] = prefix.dims();
        let x = match codes.dims()[1] {
            0 => prefix,
            _ => {
                let codes = as_compute(self.code_embedding.forward(codes), compute);
                Tensor::cat(vec![prefix, codes], 1)
            }
        };
        let [_, length, _] = x.dims();
        let mut x = x + self.positions(0, length, compute);
        let hidden = hidden_keys(&input.mask, length);
        for block in &self.transformer_blocks {
            x = block.forward(x, Some(hidden.clone()), false);
        }
        self.logits(x.narrow(1, before - 1, length - before + 1))
    }

    /// Mean cross-entropy of codes, `[b, codes]`, in nats per code.
    pub fn loss(&self, input: &AutoregressiveInput, codes: Tensor<2, Int>) -> Tensor<1> {
        self.log_likelihood(input, codes).mean().neg()
    }

    /// Logarithm of each code's probability under the codes before it: `[b, codes]`.
    pub fn log_likelihood(&self, input: &AutoregressiveInput, codes: Tensor<2, Int>) -> Tensor<2> {
        let count = codes.dims()[1];
        let logits = self.forward(input, codes.clone().narrow(1, 0, count - 1));
        log_softmax(logits, 2)
            .gather(2, codes.unsqueeze_dim(2))
            .squeeze_dim(2)
    }

    /// Starts decoding: the first code's logits, `[b, buckets]`, and what the next ones need.
    pub(super) fn start(&self, input: &AutoregressiveInput) -> (Tensor<2>, Decoding) {
        let compute = self.norm_out.gamma.val().dtype();
        let prefix = self.prefix(input, compute);
        let [_, length, _] = prefix.dims();
        let x = prefix + self.positions(0, length, compute);
        let mut decoding = Decoding {
            caches: vec![KvCache::default(); self.transformer_blocks.len()],
            mask: input.mask.clone(),
            length,
        };
        let hidden = hidden_keys(&input.mask, length);
        let logits = self.advance(x, &mut decoding, hidden);
        (logits, decoding)
    }

    /// The next code's logits, `[b, buckets]`, after `codes`, `[b]`.
    pub(super) fn next(&self, decoding: &mut Decoding, codes: Tensor<1, Int>) -> Tensor<2> {
        let compute = self.norm_out.gamma.val().dtype();
        let x = self.code_embedding.forward(codes.unsqueeze_dim(1));
        let x = as_compute(x, compute) + self.positions(decoding.length, 1, compute);
        decoding.length += 1;
        let hidden = hidden_keys(&decoding.mask, decoding.length).narrow(2, decoding.length - 1, 1);
        self.advance(x, decoding, hidden)
    }

    fn advance(
        &self,
        mut x: Tensor<3>,
        decoding: &mut Decoding,
        hidden: Tensor<4, Bool>,
    ) -> Tensor<2> {
        for (block, cache) in self.transformer_blocks.iter().zip(&mut decoding.caches) {
            x = block.forward_cached(x, cache, Some(hidden.clone()));
        }
        let [_, length, _] = x.dims();
        self.logits(x.narrow(1, length - 1, 1)).squeeze_dim(1)
    }

    fn logits(&self, x: Tensor<3>) -> Tensor<3> {
        as_compute(linear(&self.head, self.norm_out.forward(x)), DType::F32)
    }

    /// Caption, text embedding and dot product: `[b, context + 2, width]`.
    fn prefix(&self, input: &AutoregressiveInput, compute: DType) -> Tensor<3> {
        let tokens = linear(&self.token_proj, as_compute(input.tokens.clone(), compute));
        let text = as_compute(input.text_embedding.clone(), compute);
        let text: Tensor<3> = linear(&self.text_proj, text).unsqueeze_dim(1);
        let dots = self
            .dot_embedding
            .forward(input.dots.clone().unsqueeze_dim(1));
        Tensor::cat(vec![tokens, text, as_compute(dots, compute)], 1)
    }

    fn positions(&self, from: usize, count: usize, compute: DType) -> Tensor<3> {
        as_compute(self.positional_embedding.val(), compute).narrow(1, from, count)
    }
}

/// What decoding remembers from code to code.
pub(super) struct Decoding {
    caches: Vec<KvCache>,
    mask: Tensor<2, Bool>,
    length: usize,
}

/// Which key each query must not see, `[b, 1, length, length]`: padding, and the future.
fn hidden_keys(keep: &Tensor<2, Bool>, length: usize) -> Tensor<4, Bool> {
    let device = keep.device();
    let [batch, tokens] = keep.dims();
    let shape = [batch, 1, length, length];
    let rest = Tensor::<2, Bool>::zeros([batch, length - tokens], &device);
    Tensor::cat(vec![keep.clone().bool_not(), rest], 1)
        .reshape([batch, 1, 1, length])
        .expand(shape)
        .bool_or(causal_mask(length, &device).expand(shape))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_papers_prior_has_most_of_a_billion_parameters() {
        let count = AutoregressiveConfig::paper()
            .init(&Device::flex())
            .num_params() as f64;
        assert!((0.75e9..1.0e9).contains(&count), "{count}");
    }
}
