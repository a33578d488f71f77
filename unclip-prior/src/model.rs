//! The prior's network: a transformer over caption, text embedding, time and noisy embedding.

use burn::{
    config::Config,
    module::{Module, Param},
    nn::{Initializer, LayerNorm, LayerNormConfig, Linear, LinearConfig},
    tensor::{Bool, DType, Device, Tensor, TensorData},
};
use unclip_core::nn::{
    Activation, TimeEmbedding, TimeEmbeddingConfig, Times, TransformerBlock,
    TransformerBlockConfig, as_compute, causal_mask, linear,
};

/// Configuration of [`PriorModel`].
#[derive(Config, Debug)]
pub struct PriorConfig {
    /// Width of the noisy embedding and of the caption's tokens.
    pub embedding: usize,
    /// Attention heads.
    pub heads: usize,
    /// Channels per head; the transformer's width is heads × head_dim.
    pub head_dim: usize,
    /// Transformer blocks.
    pub layers: usize,
    /// Tokens of the caption.
    pub context: usize,
    /// Further tokens: text embedding, time, noisy embedding and query. Default: 4
    #[config(default = 4)]
    pub additional: usize,
    /// Width of the text embedding; `embedding` if 0. Default: 0
    #[config(default = 0)]
    pub text_embedding: usize,
    /// Width of the predicted embedding; `embedding` if 0. Default: 0
    #[config(default = 0)]
    pub output: usize,
    /// Hidden width of the time embedding; the transformer's if 0. Default: 0
    #[config(default = 0)]
    pub time: usize,
    /// Non-linearity of the time embedding. Default: SiLU
    #[config(default = "Activation::Silu")]
    pub time_activation: Activation,
    /// Whether the caption's tokens are given. Default: true
    #[config(default = true)]
    pub has_tokens: bool,
    /// Whether a learned query token is last and its output is the answer; without it the noisy
    /// embedding's outputs are. Default: true
    #[config(default = true)]
    pub has_query: bool,
    /// Layer norm on the text embedding. Default: false
    #[config(default = false)]
    pub text_norm: bool,
    /// Layer norm before the first block. Default: false
    #[config(default = false)]
    pub norm_in: bool,
}

/// The transformer of unCLIP's diffusion prior, with diffusers' switches.
///
/// It sees the caption's tokens, the text embedding, the time, the noisy image embedding and a
/// learned query, in that order and causally, and predicts the clean embedding from the query.
/// Should be created with [`PriorConfig`].
#[derive(Module, Debug)]
pub struct PriorModel {
    time_embedding: TimeEmbedding,
    proj_in: Linear,
    embedding_proj_norm: Option<LayerNorm>,
    embedding_proj: Linear,
    encoder_hidden_states_proj: Option<Linear>,
    positional_embedding: Param<Tensor<3>>,
    prd_embedding: Option<Param<Tensor<3>>>,
    transformer_blocks: Vec<TransformerBlock>,
    norm_in: Option<LayerNorm>,
    norm_out: LayerNorm,
    proj_to_clip_embeddings: Linear,
    clip_mean: Param<Tensor<2>>,
    clip_std: Param<Tensor<2>>,
}

/// What a [`PriorModel`] is given.
#[derive(Debug)]
pub struct PriorInput<'a> {
    /// Noisy embeddings, `[b, k, embedding]`; k is 1 but for priors over several tokens.
    pub noisy: Tensor<3>,
    /// One timestep for each element of the batch.
    pub timesteps: &'a [f32],
    /// Text embeddings, `[b, text_embedding]`.
    pub text_embedding: Tensor<2>,
    /// The caption's tokens, `[b, context, embedding]`.
    pub tokens: Option<Tensor<3>>,
    /// Which of them count, `[b, context]`, true = keep. Without a mask attention is not causal
    /// either, as in the reference.
    pub mask: Option<Tensor<2, Bool>>,
}

impl PriorConfig {
    /// Karlo's prior: 1,022,030,080 parameters.
    pub fn karlo() -> Self {
        Self::new(768, 32, 64, 20, 77)
    }

    /// The diffusion prior of unCLIP's table 3, on ViT-H/16 embeddings.
    pub fn paper() -> Self {
        Self::new(1024, 32, 64, 24, 256)
    }

    /// Width of the transformer.
    pub fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of the predicted embedding.
    pub fn output_width(&self) -> usize {
        or_default(self.output, self.embedding)
    }

    /// A new network on `device`. Parameters take memory when they are first used.
    pub fn init(&self, device: &Device) -> PriorModel {
        let width = self.width();
        let text = or_default(self.text_embedding, self.embedding);
        let block = TransformerBlockConfig::new(
            width,
            self.heads,
            self.head_dim,
            4 * width,
            Activation::Gelu,
        );
        let norm = |width| LayerNormConfig::new(width).init(device);
        let small = Initializer::Normal {
            mean: 0.0,
            std: 0.01,
        };
        PriorModel {
            time_embedding: TimeEmbeddingConfig::new(width, or_default(self.time, width), width)
                .with_activation(self.time_activation)
                .init(device),
            proj_in: LinearConfig::new(self.embedding, width).init(device),
            embedding_proj_norm: self.text_norm.then(|| norm(text)),
            embedding_proj: LinearConfig::new(text, width).init(device),
            encoder_hidden_states_proj: self
                .has_tokens
                .then(|| LinearConfig::new(self.embedding, width).init(device)),
            positional_embedding: small.init([1, self.context + self.additional, width], device),
            prd_embedding: self.has_query.then(|| small.init([1, 1, width], device)),
            transformer_blocks: (0..self.layers).map(|_| block.init(device)).collect(),
            norm_in: self.norm_in.then(|| norm(width)),
            norm_out: norm(width),
            proj_to_clip_embeddings: LinearConfig::new(width, self.output_width()).init(device),
            clip_mean: Initializer::Zeros.init([1, self.output_width()], device),
            clip_std: Initializer::Ones.init([1, self.output_width()], device),
        }
    }
}

fn or_default(value: usize, default: usize) -> usize {
    if value == 0 { default } else { value }
}

impl PriorModel {
    /// Predicts the process's target. Input and output are f32, whatever the network computes in.
    ///
    /// # Shapes
    /// output: `[b, 1, output]` with a query, else `[b, k, output]`
    ///
    /// # Panics
    /// If the tokens are missing and the network takes them, or if the number of tokens does not
    /// fit the positions or the mask.
    pub fn forward(&self, input: PriorInput<'_>) -> Tensor<3> {
        let compute = self.norm_out.gamma.val().dtype();
        let [batch, noisy_tokens, _] = input.noisy.dims();
        let noisy = as_compute(input.noisy, compute);
        let time: Tensor<3> = self
            .time_embedding
            .forward(Times::Steps(input.timesteps), &noisy)
            .unsqueeze_dim(1);
        let mut text = as_compute(input.text_embedding, compute);
        if let Some(norm) = &self.embedding_proj_norm {
            text = norm.forward(text);
        }
        let text: Tensor<3> = linear(&self.embedding_proj, text).unsqueeze_dim(1);

        let mut sequence = Vec::with_capacity(5);
        if let Some(projection) = &self.encoder_hidden_states_proj {
            let Some(tokens) = input.tokens else {
                panic!("this prior needs the caption's tokens");
            };
            sequence.push(linear(projection, as_compute(tokens, compute)));
        }
        sequence.extend([text, time, linear(&self.proj_in, noisy)]);
        if let Some(query) = &self.prd_embedding {
            sequence.push(as_compute(query.val(), compute).repeat_dim(0, batch));
        }
        let x = Tensor::cat(sequence, 1);
        let [_, length, _] = x.dims();
        let before = length - noisy_tokens - usize::from(self.prd_embedding.is_some());
        let x = x + self.positions(length, before, compute);

        let hidden = input.mask.map(|keep| hidden_keys(keep, length));
        let mut x = match &self.norm_in {
            Some(norm) => norm.forward(x),
            None => x,
        };
        for block in &self.transformer_blocks {
            x = block.forward(x, hidden.clone(), false);
        }
        let x = self.norm_out.forward(x);
        let x = match self.prd_embedding {
            Some(_) => x.narrow(1, length - 1, 1),
            None => x.narrow(1, before, noisy_tokens),
        };
        as_compute(linear(&self.proj_to_clip_embeddings, x), DType::F32)
    }

    /// Positional embeddings of `length` tokens. Where there are fewer, they belong to the noisy
    /// embedding, which `before` others precede; the rest is zero.
    fn positions(&self, length: usize, before: usize, compute: DType) -> Tensor<3> {
        let positions = as_compute(self.positional_embedding.val(), compute);
        let [_, known, width] = positions.dims();
        if known >= length {
            return positions;
        }
        let zeros = |n: usize| Tensor::<3>::zeros([1, n, width], (&positions.device(), compute));
        let mut parts = vec![zeros(before), positions.clone()];
        if before + known < length {
            parts.push(zeros(length - before - known));
        }
        Tensor::cat(parts, 1)
    }

    /// From CLIP's space to the network's normalised one: (x − mean) / std.
    pub fn normalize(&self, embedding: Tensor<2>) -> Tensor<2> {
        let f32 = |p: &Param<Tensor<2>>| as_compute(p.val(), DType::F32).detach();
        (embedding - f32(&self.clip_mean)) / f32(&self.clip_std)
    }

    /// The same network for embeddings of this mean and standard deviation.
    ///
    /// # Panics
    /// If `mean` has another width than the network's answer.
    pub fn with_statistics(mut self, mean: &[f32], deviation: f32) -> Self {
        let row = |values: Vec<f32>, like: Param<Tensor<2>>| {
            like.map(|old| {
                let data = TensorData::new(values, old.dims());
                Tensor::from_data(data, (&old.device(), old.dtype()))
            })
        };
        self.clip_std = row(vec![deviation; mean.len()], self.clip_std);
        self.clip_mean = row(mean.to_vec(), self.clip_mean);
        self
    }

    /// From the network's normalised space to CLIP's: x · std + mean.
    pub fn denormalize(&self, embedding: Tensor<2>) -> Tensor<2> {
        let f32 = |p: &Param<Tensor<2>>| as_compute(p.val(), DType::F32);
        embedding * f32(&self.clip_std) + f32(&self.clip_mean)
    }
}

/// Which key each query must not see: padding, and the future.
///
/// The reference adds −10,000 for each; after a softmax that is the same as hiding.
fn hidden_keys(keep: Tensor<2, Bool>, length: usize) -> Tensor<4, Bool> {
    let device = keep.device();
    let [batch, tokens] = keep.dims();
    let shape = [batch, 1, length, length];
    let rest = Tensor::<2, Bool>::zeros([batch, length - tokens], &device);
    Tensor::cat(vec![keep.bool_not(), rest], 1)
        .reshape([batch, 1, 1, length])
        .expand(shape)
        .bool_or(causal_mask(length, &device).expand(shape))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn karlo_has_the_published_size() {
        let model = PriorConfig::karlo().init(&Device::flex());
        assert_eq!(model.num_params(), 1_022_030_080);
    }

    #[test]
    fn the_papers_prior_has_about_a_billion_parameters() {
        let count = PriorConfig::paper().init(&Device::flex()).num_params() as f64;
        // Table 3 rounds "1B"; its own width and depth give 1.2e9.
        assert!((1.0e9..1.25e9).contains(&count), "{count}");
    }
}
