//! The decoder as a stage.

use burn::tensor::{Device, Tensor};
use unclip_core::{
    diffusion::{
        Denoiser, Prediction, Process, Sampler, Timestep,
        guidance::{Branches, Conditions},
        sample,
    },
    error::{Error, Result},
    nn::UNetInput,
    resident::{Held, Resident},
    stage::{Conditioning, Decoder, Run, Stage, StageSettings, TextEncoding},
};

use crate::{DecoderCondition, DecoderConfig, DecoderModel};

/// Samples small pictures from image embeddings and captions by diffusion (unCLIP §2.1).
#[derive(Debug)]
pub struct DiffusionDecoder {
    /// The networks.
    pub model: Resident<DecoderModel>,
    /// The U-Net's process.
    pub process: Process,
    size: usize,
    channels: usize,
    embedding: usize,
    device: Device,
}

impl DiffusionDecoder {
    /// A stage of parts; the networks, configured by `config`, are on `device`.
    ///
    /// # Errors
    /// [`Error::Config`] if the U-Net's channels do not fit the process.
    pub fn new(
        config: &DecoderConfig,
        model: Resident<DecoderModel>,
        process: Process,
        device: &Device,
    ) -> Result<Self> {
        let (from, to) = (config.unet.in_channels, config.unet.out_channels);
        let expected = if process.variance.is_learned() {
            2 * from
        } else {
            from
        };
        if from != 3 || to != expected {
            return Err(Error::config(
                "decoder",
                "in_channels, out_channels",
                format!("{from}, {to}"),
                format!("but pictures have 3 channels and this variance type needs {expected} out"),
            ));
        }
        Ok(Self {
            model,
            process,
            size: config.size,
            channels: from,
            embedding: config.projection.embedding,
            device: device.clone(),
        })
    }

    fn condition(
        &self,
        model: &DecoderModel,
        conditioning: &Conditioning<'_>,
        is_batched: bool,
    ) -> Conditions<DecoderCondition> {
        let project = |image: Tensor<2>, text: &TextEncoding| {
            let text = text.to_device(&self.device);
            model
                .projection
                .forward(image, text.embedding, text.tokens, text.mask)
        };
        let image = conditioning.image_embedding.clone().to_device(&self.device);
        let rows = image.dims()[0];
        let conditional = project(image, conditioning.caption.text);
        let Some(text) = conditioning.caption.unconditional else {
            return Conditions::Plain(conditional);
        };
        let unconditional = project(model.projection.null_embedding(rows), text);
        if is_batched {
            Conditions::Batched(DecoderCondition::cat(unconditional, conditional))
        } else {
            Conditions::Separate {
                unconditional,
                conditional,
            }
        }
    }
}

impl Decoder for DiffusionDecoder {
    fn decode(&self, conditioning: &Conditioning<'_>, run: &mut Run<'_>) -> Result<Tensor<4>> {
        run.sampler.check(self.process.steps())?;
        conditioning.caption.check(self.embedding, None)?;
        let dims = conditioning.image_embedding.dims();
        let rows = conditioning.caption.text.rows();
        if dims != [rows, self.embedding] {
            return Err(Error::shape(
                "the image embedding",
                &dims,
                format!("[{rows}, {}], a row for each prompt", self.embedding),
            ));
        }
        let shape = [rows, self.channels, self.size, self.size];
        let start = run.start(Stage::Decoder, shape, &self.device)?;
        let model = self.model.hold()?;
        let conditions = self.condition(&model, conditioning, run.is_batched);
        let mut denoiser = DecoderDenoiser {
            model,
            conditions,
            guidance: run.guidance,
            channels: self.channels,
        };
        let pixels = sample(&mut denoiser, start, &self.process, Stage::Decoder, run)?;
        Ok(pixels.clamp(-1.0, 1.0))
    }

    fn check(&self, settings: &StageSettings) -> Result<()> {
        settings.sampler.check(self.process.steps())
    }

    fn defaults(&self) -> StageSettings {
        StageSettings {
            sampler: Sampler::ancestral(25),
            guidance: 8.0,
        }
    }
}

struct DecoderDenoiser<'a> {
    model: Held<'a, DecoderModel>,
    conditions: Conditions<DecoderCondition>,
    guidance: f64,
    channels: usize,
}

impl Denoiser<4> for DecoderDenoiser<'_> {
    fn predict(&mut self, x: Tensor<4>, at: Timestep) -> Result<Prediction<4>> {
        let branches = self.conditions.predict(x, |x, condition| {
            let timesteps = vec![at.t as f32; x.dims()[0]];
            self.model.unet.forward(UNetInput {
                sample: x,
                timesteps: &timesteps,
                added_time: Some(condition.added_time.clone()),
                context: Some(condition.context.clone()),
                context_mask: Some(condition.mask.clone()),
            })
        });
        let channels = self.channels;
        let outputs = branches.conditional.dims()[1];
        // Guidance is for the picture's channels; the variance is the conditional branch's.
        let variance = (outputs > channels).then(|| {
            branches
                .conditional
                .clone()
                .narrow(1, channels, outputs - channels)
        });
        let target = Branches {
            conditional: branches.conditional.narrow(1, 0, channels),
            unconditional: branches.unconditional.map(|u| u.narrow(1, 0, channels)),
        };
        Ok(Prediction {
            target: target.guide(self.guidance),
            variance,
        })
    }
}
