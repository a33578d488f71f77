//! How the diffusion prior is trained (unCLIP §2.2).

use std::sync::Mutex;

use burn::tensor::{Device, Tensor};
use unclip_core::{
    diffusion::Process,
    error::{Error, Result},
    noise::Noise,
    stage::TextEncoder,
    train::{
        DiffusionLoss, EmbeddedCaption, Recipe, TextRow, TimestepSampler, TrainSettings, Weighting,
        kept_conditions, stack,
    },
};

use crate::{PriorConfig, PriorInput, PriorModel};

/// Trains a [`PriorModel`] to find image embeddings from captions, with a frozen text encoder.
///
/// The network works on embeddings that [`PriorModel::normalize`] brings to variance 1: give it the
/// data's statistics with [`PriorModel::with_statistics`] first. 10 % of the captions are dropped.
pub struct PriorTraining {
    loss: DiffusionLoss,
    timesteps: TimestepSampler,
    text: Mutex<Box<dyn TextEncoder>>,
    embedding: usize,
    caption_dropout: f32,
}

/// An embedding with its noise and caption.
#[derive(Clone, Debug)]
pub struct PriorExample {
    embedding: Vec<f32>,
    noise: Vec<f32>,
    timestep: usize,
    text: TextRow,
}

impl PriorTraining {
    /// A recipe for priors of `config`; `process` says whether they predict x₀, as the paper's do.
    pub fn new(config: &PriorConfig, process: Process, text: Box<dyn TextEncoder>) -> Self {
        Self {
            timesteps: TimestepSampler::uniform(process.steps()),
            loss: DiffusionLoss::new(process, Weighting::Even),
            text: Mutex::new(text),
            embedding: config.embedding,
            caption_dropout: 0.1,
        }
    }

    /// Share of the samples without caption. Default: 0.1.
    pub fn with_dropout(mut self, caption: f32) -> Self {
        self.caption_dropout = caption;
        self
    }

    /// The paper's settings (table 3): 600,000 steps of 4,096 samples.
    pub fn paper() -> TrainSettings {
        TrainSettings {
            learning_rate: 1.1e-4,
            weight_decay: 6e-2,
            beta2: 0.96,
            epsilon: 1e-6,
            ema: 0.9999,
            cosine: false,
            ..TrainSettings::new(600_000, 4096)
        }
    }
}

impl Recipe for PriorTraining {
    type Model = PriorModel;
    type Sample = EmbeddedCaption;
    type Example = PriorExample;

    fn prepare(
        &self,
        samples: Vec<EmbeddedCaption>,
        noise: &mut Noise,
    ) -> Result<Vec<PriorExample>> {
        let texts = encoded(&self.text, &samples, self.caption_dropout, noise)?;
        let mut examples = Vec::with_capacity(samples.len());
        for (sample, text) in samples.into_iter().zip(texts) {
            examples.push(PriorExample {
                timestep: self.timesteps.draw(noise.uniform_vec(1)[0]).0,
                noise: noise.normal_vec(sample.embedding.len())?,
                embedding: sample.embedding,
                text,
            });
        }
        Ok(examples)
    }

    fn loss(
        &self,
        model: &PriorModel,
        examples: &[&PriorExample],
        device: &Device,
    ) -> Result<Tensor<1>> {
        let rows = |of: fn(&PriorExample) -> &[f32]| {
            stack::<2>(examples.iter().map(|e| of(e)), &[self.embedding], device)
        };
        let timesteps: Vec<usize> = examples.iter().map(|e| e.timestep).collect();
        let times: Vec<f32> = timesteps.iter().map(|t| *t as f32).collect();
        let start = model.normalize(rows(|e| &e.embedding)?);
        let noised = self.loss.noised(start, rows(|e| &e.noise)?, &timesteps);
        let texts: Vec<&TextRow> = examples.iter().map(|e| &e.text).collect();
        let text = TextRow::stack(&texts, device)?;
        let output = model.forward(PriorInput {
            noisy: noised.current.clone().unsqueeze_dim(1),
            timesteps: &times,
            text_embedding: text.embedding,
            tokens: Some(text.tokens),
            mask: Some(text.mask),
        });
        Ok(self.loss.losses(output.squeeze_dim::<2>(1), &noised))
    }
}

impl std::fmt::Debug for PriorTraining {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PriorTraining")
            .field("loss", &self.loss)
            .finish_non_exhaustive()
    }
}

/// Encodes captions, of which some are dropped.
pub(crate) fn encoded(
    text: &Mutex<Box<dyn TextEncoder>>,
    samples: &[EmbeddedCaption],
    dropout: f32,
    noise: &mut Noise,
) -> Result<Vec<TextRow>> {
    let kept = kept_conditions("caption dropout", dropout, samples.len(), noise)?;
    let captions: Vec<&str> = samples
        .iter()
        .zip(kept)
        .map(|(sample, is_kept)| if is_kept { &sample.caption[..] } else { "" })
        .collect();
    let text = text.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    TextRow::of(&text.encode_text(&captions)?)
}

/// Mean of each dimension over all embeddings, and the root of the mean variance of all dimensions:
/// what [`PriorModel::with_statistics`] takes. One scale for all keeps the space's shape, as the
/// paper's factor of 17.2 does.
///
/// # Errors
/// [`Error::Setting`] without embeddings, for rows of different width, or for values that are all
/// the same.
pub fn embedding_statistics(embeddings: &[EmbeddedCaption]) -> Result<(Vec<f32>, f32)> {
    let width = embeddings.first().map_or(0, |e| e.embedding.len());
    if width == 0 || embeddings.iter().any(|e| e.embedding.len() != width) {
        return Err(Error::setting(
            "embeddings",
            embeddings.len(),
            "rows of one width",
        ));
    }
    let count = embeddings.len() as f64;
    let mean: Vec<f64> = (0..width)
        .map(|i| {
            embeddings
                .iter()
                .map(|e| f64::from(e.embedding[i]))
                .sum::<f64>()
                / count
        })
        .collect();
    let squares = embeddings.iter().map(|e| {
        let pairs = e.embedding.iter().zip(&mean);
        pairs.map(|(v, m)| (f64::from(*v) - m).powi(2)).sum::<f64>()
    });
    let deviation = (squares.sum::<f64>() / (count * width as f64)).sqrt();
    if !(deviation > 0.0 && deviation.is_finite()) {
        let expected = "finite embeddings that differ";
        return Err(Error::setting("embeddings", deviation, expected));
    }
    Ok((
        mean.into_iter().map(|m| m as f32).collect(),
        deviation as f32,
    ))
}
