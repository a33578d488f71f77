//! CLIP's text transformer (arXiv 2103.00020) with its projection.

use burn::{
    config::Config,
    module::Module,
    nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig},
    tensor::{Bool, DType, Device, Int, Tensor, TensorData},
};
use serde::{Deserialize, Serialize};
use unclip_core::{
    error::{Error, Result},
    nn::{Activation, TransformerBlock, TransformerBlockConfig, as_compute, causal_mask, linear},
    weights::KeyMap,
};

use crate::tower_format::BLOCK_KEYS;

/// Where the sentence's embedding is read off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pooling {
    /// At the largest id, which is the end token of OpenAI's vocabulary (configs with
    /// `eos_token_id` 2).
    LargestId,
    /// At the first token of this id; at the first token if there is none.
    FirstOf(u32),
}

impl Pooling {
    fn position(self, ids: &[u32]) -> usize {
        match self {
            // `max_by_key` would take the last of equals; the reference takes the first.
            Self::LargestId => ids
                .iter()
                .enumerate()
                .fold(0, |best, (i, id)| if *id > ids[best] { i } else { best }),
            Self::FirstOf(end) => ids.iter().position(|id| *id == end).unwrap_or(0),
        }
    }
}

/// Configuration of [`TextTower`].
#[derive(Config, Debug)]
pub struct TextTowerConfig {
    /// Size of the vocabulary.
    pub vocabulary: usize,
    /// Longest sequence.
    pub context: usize,
    /// Width of the tokens.
    pub width: usize,
    /// Transformer blocks.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of the MLPs.
    pub hidden: usize,
    /// Width of the embedding.
    pub projection: usize,
    /// Non-linearity of the MLPs.
    pub activation: Activation,
    /// Where the embedding is read off.
    pub pooling: Pooling,
    /// Epsilon of the norms. Default: 1e-5
    #[config(default = 1e-5)]
    pub epsilon: f64,
}

/// CLIP's text transformer with its projection.
///
/// Should be created with [`TextTowerConfig`].
#[derive(Module, Debug)]
pub struct TextTower {
    token_embedding: Embedding,
    position_embedding: Embedding,
    layers: Vec<TransformerBlock>,
    final_layer_norm: LayerNorm,
    text_projection: Linear,
    #[module(skip)]
    pooling: Pooling,
}

/// What a [`TextTower`] says. All f32.
#[derive(Clone, Debug)]
pub struct TextOutput {
    /// Hidden states after the final norm, `[b, n, width]`.
    pub tokens: Tensor<3>,
    /// The hidden state at the end token, `[b, width]`.
    pub pooled: Tensor<2>,
    /// Its projection, not normalised, `[b, projection]`.
    pub embedding: Tensor<2>,
}

impl TextTowerConfig {
    /// OpenAI's ViT-L/14 text tower, which Karlo uses.
    pub fn vit_l_14() -> Self {
        Self::new(
            49_408,
            77,
            768,
            12,
            12,
            3072,
            768,
            Activation::QuickGelu,
            Pooling::LargestId,
        )
    }

    /// A new tower on `device`. Parameters take memory when they are first used.
    ///
    /// # Panics
    /// If the width is not a multiple of the heads.
    pub fn init(&self, device: &Device) -> TextTower {
        let block = TransformerBlockConfig::new(
            self.width,
            self.heads,
            self.width / self.heads,
            self.hidden,
            self.activation,
        )
        .with_epsilon(self.epsilon);
        TextTower {
            token_embedding: EmbeddingConfig::new(self.vocabulary, self.width).init(device),
            position_embedding: EmbeddingConfig::new(self.context, self.width).init(device),
            layers: (0..self.layers).map(|_| block.init(device)).collect(),
            final_layer_norm: LayerNormConfig::new(self.width)
                .with_epsilon(self.epsilon)
                .init(device),
            text_projection: LinearConfig::new(self.width, self.projection)
                .with_bias(false)
                .init(device),
            pooling: self.pooling,
        }
    }
}

/// Renames from [`TextTower`] to transformers' `CLIPTextModelWithProjection`.
pub fn text_tower_keys() -> KeyMap {
    let tower = [
        ("token_embedding", "text_model.embeddings.token_embedding"),
        (
            "position_embedding",
            "text_model.embeddings.position_embedding",
        ),
        ("final_layer_norm", "text_model.final_layer_norm"),
        ("layers", "text_model.encoder.layers"),
    ];
    KeyMap::new(&[&tower[..], &BLOCK_KEYS].concat())
        // A buffer that counts 0, 1, 2, …
        .ignoring(&["embeddings.position_ids"])
}

impl TextTower {
    /// Encodes `rows` sequences of token ids, row after row in `ids`.
    ///
    /// Attention is causal. `mask` (true = keep) hides tokens besides; unCLIP pipelines give none.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sequences are longer than the context or not of one length,
    /// [`Error::Setting`] for an id outside the vocabulary.
    pub fn forward(
        &self,
        ids: &[u32],
        rows: usize,
        mask: Option<Tensor<2, Bool>>,
    ) -> Result<TextOutput> {
        let weight = self.token_embedding.weight.val();
        let device = weight.device();
        let [vocabulary, width] = weight.dims();
        let [context, _] = self.position_embedding.weight.lazy_shape().dims();
        let length = ids.len() / rows.max(1);
        if rows == 0 || length == 0 || length * rows != ids.len() || length > context {
            return Err(Error::shape(
                "the token ids",
                &[rows, length],
                format!("at least one row of 1 to {context} tokens"),
            ));
        }
        if let Some(id) = ids.iter().find(|id| **id as usize >= vocabulary) {
            return Err(Error::setting(
                "token id",
                id,
                format!("the text encoder knows {vocabulary}; is the tokenizer another model's?"),
            ));
        }

        let compute = self.final_layer_norm.gamma.val().dtype();
        let int_ids: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
        let int_ids = Tensor::<1, Int>::from_data(TensorData::new(int_ids, [ids.len()]), &device);
        let tokens = weight.select(0, int_ids).reshape([rows, length, width]);
        let positions = self.position_embedding.weight.val().narrow(0, 0, length);
        let mut x = as_compute(tokens, compute) + as_compute(positions, compute).unsqueeze();

        let hidden = mask.map(|keep| {
            let shape = [rows, 1, length, length];
            keep.bool_not()
                .reshape([rows, 1, 1, length])
                .expand(shape)
                .bool_or(causal_mask(length, &device).expand(shape))
        });
        for layer in &self.layers {
            x = layer.forward(x, hidden.clone(), hidden.is_none());
        }
        let tokens = self.final_layer_norm.forward(x);
        let ends: Vec<i64> = ids
            .chunks(length)
            .enumerate()
            .map(|(row, ids)| (row * length + self.pooling.position(ids)) as i64)
            .collect();
        let ends = Tensor::<1, Int>::from_data(TensorData::new(ends, [rows]), &device);
        let pooled = tokens
            .clone()
            .reshape([rows * length, width])
            .select(0, ends);
        let embedding = linear(&self.text_projection, pooled.clone());
        Ok(TextOutput {
            tokens: as_compute(tokens, DType::F32),
            pooled: as_compute(pooled, DType::F32),
            embedding: as_compute(embedding, DType::F32),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pooling_takes_the_first_of_equals() {
        assert_eq!(Pooling::LargestId.position(&[5, 9, 1, 9, 9]), 1);
        assert_eq!(Pooling::FirstOf(9).position(&[5, 1, 9, 9]), 2);
        assert_eq!(Pooling::FirstOf(7).position(&[5, 1]), 0);
    }

    #[test]
    fn vit_l_has_the_published_size() {
        let tower = TextTowerConfig::vit_l_14().init(&Device::flex());
        assert_eq!(tower.num_params(), 123_650_304);
    }
}
