//! How the autoregressive prior is trained (unCLIP §2.2).

use std::sync::Mutex;

use burn::tensor::{Device, Int, Tensor, TensorData};
use unclip_core::{
    error::Result,
    noise::Noise,
    stage::TextEncoder,
    train::{Recipe, TextRow, TrainSettings, stack},
};

use super::{AutoregressiveInput, AutoregressiveModel, AutoregressivePrior};
use crate::{EmbeddedCaption, train::encoded};

/// Trains an [`AutoregressiveModel`] by the cross-entropy of its codes, with a frozen text encoder.
///
/// 10 % of the captions are dropped, so that it can be guided.
pub struct AutoregressiveTraining {
    /// Knows how embeddings become codes; its own network is not used.
    stage: Mutex<AutoregressivePrior>,
    text: Mutex<Box<dyn TextEncoder>>,
    caption_dropout: f32,
}

/// Codes and what they are to be found from.
#[derive(Clone, Debug)]
pub struct AutoregressiveExample {
    codes: Vec<i64>,
    dot: i64,
    text: TextRow,
}

impl AutoregressiveTraining {
    /// A recipe that makes codes as `stage` does.
    pub fn new(stage: AutoregressivePrior, text: Box<dyn TextEncoder>) -> Self {
        Self {
            stage: Mutex::new(stage),
            text: Mutex::new(text),
            caption_dropout: 0.1,
        }
    }

    /// Share of the samples without caption. Default: 0.1.
    pub fn with_dropout(mut self, caption: f32) -> Self {
        self.caption_dropout = caption;
        self
    }

    /// The paper's settings (table 3): a million steps of 4,096 samples.
    pub fn paper() -> TrainSettings {
        TrainSettings {
            learning_rate: 1.6e-4,
            weight_decay: 4e-2,
            beta2: 0.91,
            epsilon: 1e-10,
            ema: 0.999,
            cosine: false,
            ..TrainSettings::new(1_000_000, 4096)
        }
    }
}

impl Recipe for AutoregressiveTraining {
    type Model = AutoregressiveModel;
    type Sample = EmbeddedCaption;
    type Example = AutoregressiveExample;

    fn prepare(
        &self,
        samples: Vec<EmbeddedCaption>,
        noise: &mut Noise,
    ) -> Result<Vec<AutoregressiveExample>> {
        let texts = encoded(&self.text, &samples, self.caption_dropout, noise)?;
        let stage = self
            .stage
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let device = stage.device().clone();
        let width = stage.codec().pca().width();
        let rows = samples.iter().map(|s| &s.embedding[..]);
        let embeddings: Tensor<2> = stack(rows, &[width], &device)?;
        let all: Vec<&TextRow> = texts.iter().collect();
        let text = TextRow::stack(&all, &device)?;
        let (input, codes) = stage.training_pair(&text, embeddings)?;
        let dots: Vec<i64> = input.dots.into_data().iter::<i64>().collect();
        let codes: Vec<i64> = codes.into_data().iter::<i64>().collect();
        let each = codes.len() / samples.len();
        Ok(codes
            .chunks(each)
            .zip(dots)
            .zip(texts)
            .map(|((codes, dot), text)| AutoregressiveExample {
                codes: codes.to_vec(),
                dot,
                text,
            })
            .collect())
    }

    fn loss(
        &self,
        model: &AutoregressiveModel,
        examples: &[&AutoregressiveExample],
        device: &Device,
    ) -> Result<Tensor<1>> {
        let rows = examples.len();
        let texts: Vec<&TextRow> = examples.iter().map(|e| &e.text).collect();
        let text = TextRow::stack(&texts, device)?;
        let ints = |values: Vec<i64>, shape: Vec<usize>| TensorData::new(values, shape);
        let dots = examples.iter().map(|e| e.dot).collect();
        let codes: Vec<i64> = examples.iter().flat_map(|e| e.codes.clone()).collect();
        let each = codes.len() / rows.max(1);
        let input = AutoregressiveInput {
            text_embedding: text.embedding,
            tokens: text.tokens,
            mask: text.mask,
            dots: Tensor::<1, Int>::from_data(ints(dots, vec![rows]), device),
        };
        let codes = Tensor::<2, Int>::from_data(ints(codes, vec![rows, each]), device);
        let likelihood = model.log_likelihood(&input, codes);
        Ok(likelihood.mean_dim(1).reshape([rows]) * -1.0)
    }
}

impl std::fmt::Debug for AutoregressiveTraining {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AutoregressiveTraining")
            .finish_non_exhaustive()
    }
}
