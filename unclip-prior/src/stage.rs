//! The diffusion prior as a stage.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use unclip_core::{
    diffusion::{Denoiser, Prediction, Process, Sampler, Timestep, guidance::Conditions, sample},
    error::{Error, Result},
    resident::{Held, Resident},
    stage::{Caption, Prior, Run, Stage, StageSettings, TextEncoding},
    weights::{Checkpoint, LoadOptions, load},
};

use crate::{DiffusersPrior, PriorConfig, PriorInput, PriorModel, prior_keys};

/// Samples CLIP image embeddings from captions by diffusion (unCLIP §2.2).
#[derive(Debug)]
pub struct DiffusionPrior {
    /// The network.
    pub model: Resident<PriorModel>,
    /// Its process.
    pub process: Process,
    /// The sampler that is used if a job does not say which.
    pub sampler: Sampler,
    embedding: usize,
    context: usize,
    device: Device,
}

/// Loads a `PriorTransformer` from its folder.
///
/// # Errors
/// Missing or damaged files, unsupported settings, weights that do not fit.
pub fn load_prior(
    folder: &Path,
    variant: Option<&str>,
    device: &Device,
    options: LoadOptions,
) -> Result<PriorModel> {
    let config = DiffusersPrior::load(folder)?;
    let checkpoint = Checkpoint::open(folder, variant)?;
    load(config.init(device), &checkpoint, &prior_keys(), options)
}

impl DiffusionPrior {
    /// A stage of parts; the network, configured by `config`, is on `device`.
    ///
    /// # Errors
    /// [`Error::Config`] if the network cannot be sampled from under a caption: it has to take the
    /// caption's tokens, answer by its query, and predict what it takes as input.
    pub fn new(
        config: &PriorConfig,
        model: Resident<PriorModel>,
        process: Process,
        device: &Device,
    ) -> Result<Self> {
        let refuse = |key: &str, value: String, expected: &str| {
            Err(Error::config("prior", key, value, expected))
        };
        let text = match config.text_embedding {
            0 => config.embedding,
            width => width,
        };
        if !config.has_tokens || !config.has_query {
            let value = format!("{}, {}", config.has_tokens, config.has_query);
            return refuse("has_tokens, has_query", value, "but a stage needs both");
        }
        if config.additional != 4 {
            let value = config.additional.to_string();
            return refuse("additional_embeddings", value, "but there are 4");
        }
        if config.output_width() != config.embedding || text != config.embedding {
            let value = format!("{text}, {}", config.output_width());
            let expected = format!("but both have to be its input's {}", config.embedding);
            return refuse("embedding_proj_dim, clip_embed_dim", value, &expected);
        }
        Ok(Self {
            model,
            process,
            sampler: Sampler::ancestral(25),
            embedding: config.embedding,
            context: config.context,
            device: device.clone(),
        })
    }
}

impl DiffusionPrior {
    /// Uses another sampler if a job does not say which.
    pub fn with_sampler(mut self, sampler: Sampler) -> Self {
        self.sampler = sampler;
        self
    }
}

impl Prior for DiffusionPrior {
    fn sample(&self, caption: Caption<'_>, run: &mut Run<'_>) -> Result<Tensor<2>> {
        run.sampler.check(self.process.steps())?;
        caption.check(self.embedding, Some(self.context))?;
        let rows = caption.text.rows();
        let start = run.start(Stage::Prior, [rows, self.embedding], &self.device)?;
        let text = caption.text.to_device(&self.device);
        let conditions = match caption.unconditional {
            None => Conditions::Plain(text),
            Some(unconditional) => {
                let unconditional = unconditional.to_device(&self.device);
                if run.is_batched {
                    Conditions::Batched(TextEncoding::cat(&unconditional, &text))
                } else {
                    Conditions::Separate {
                        unconditional,
                        conditional: text,
                    }
                }
            }
        };
        let mut denoiser = PriorDenoiser {
            model: self.model.hold()?,
            conditions,
            guidance: run.guidance,
        };
        let embedding = sample(&mut denoiser, start, &self.process, Stage::Prior, run)?;
        Ok(denoiser.model.denormalize(embedding))
    }

    fn check(&self, settings: &StageSettings) -> Result<()> {
        settings.sampler.check(self.process.steps())
    }

    fn defaults(&self) -> StageSettings {
        StageSettings {
            sampler: self.sampler,
            guidance: 4.0,
        }
    }
}

struct PriorDenoiser<'a> {
    model: Held<'a, PriorModel>,
    conditions: Conditions<TextEncoding>,
    guidance: f64,
}

impl Denoiser<2> for PriorDenoiser<'_> {
    fn predict(&mut self, x: Tensor<2>, at: Timestep) -> Result<Prediction<2>> {
        let branches = self.conditions.predict(x, |x, text| {
            let timesteps = vec![at.t as f32; x.dims()[0]];
            self.model
                .forward(PriorInput {
                    noisy: x.unsqueeze_dim(1),
                    timesteps: &timesteps,
                    text_embedding: text.embedding.clone(),
                    tokens: Some(text.tokens.clone()),
                    mask: Some(text.mask.clone()),
                })
                .squeeze_dim(1)
        });
        Ok(Prediction {
            target: branches.guide(self.guidance),
            variance: None,
        })
    }
}
