//! An upsampler as a stage.

use burn::tensor::{Device, Tensor};
use unclip_core::{
    diffusion::{Denoiser, Prediction, Process, Sampler, Timestep, sample},
    error::{Error, Result},
    nn::{Times, UNet, UNetInput},
    resample::resize_bicubic,
    resident::{Held, Resident},
    stage::{Frame, Run, Stage, StageSettings, Upsampler},
};

use crate::UpsamplerConfig;

/// Enlarges pictures by diffusion, conditioned on the bicubically enlarged picture.
#[derive(Debug)]
pub struct DiffusionUpsampler {
    /// The network of every step, or of all but the last.
    pub first: Resident<UNet>,
    /// The network of the last step, which Karlo fine-tuned separately.
    pub last: Option<Resident<UNet>>,
    /// The networks' process.
    pub process: Process,
    /// The sampler that is used if a job does not say which.
    pub sampler: Sampler,
    frame: Frame,
    device: Device,
    position: usize,
}

impl DiffusionUpsampler {
    /// A stage of parts; the networks, configured by `config`, are on `device`.
    ///
    /// # Errors
    /// [`Error::Config`] if the U-Net's channels are not those of an upsampler.
    pub fn new(
        config: &UpsamplerConfig,
        first: Resident<UNet>,
        last: Option<Resident<UNet>>,
        process: Process,
        device: &Device,
    ) -> Result<Self> {
        let (from, to) = (config.unet.in_channels, config.unet.out_channels);
        let expected = if process.variance.is_learned() { 6 } else { 3 };
        if from != 6 || to != expected {
            return Err(Error::config(
                "upsampler",
                "in_channels, out_channels",
                format!("{from}, {to}"),
                format!("but an upsampler has 6 and {expected}"),
            ));
        }
        Ok(Self {
            first,
            last,
            process,
            sampler: Sampler::ancestral(7),
            frame: Frame {
                size: [config.size; 2],
                multiple: config.unet.size_multiple(),
            },
            device: device.clone(),
            position: 0,
        })
    }

    /// Uses another sampler if a job does not say which.
    pub fn with_sampler(mut self, sampler: Sampler) -> Self {
        self.sampler = sampler;
        self
    }

    /// Height and width of the result: as asked, else the trained size along the longer side.
    fn size(&self, low: [usize; 2], asked: Option<[usize; 2]>) -> Result<[usize; 2]> {
        let longer = low[0].max(low[1]);
        let size = asked.unwrap_or(std::array::from_fn(|i| {
            self.frame.size[i] * low[i] / longer
        }));
        self.frame.check(Stage::Upsampler(self.position), size)?;
        Ok(size)
    }

    /// Says which upsampler of a chain this is, counted from 0, for progress and errors.
    pub fn at_position(mut self, position: usize) -> Self {
        self.position = position;
        self
    }
}

impl Upsampler for DiffusionUpsampler {
    fn upsample(&self, low: Tensor<4>, run: &mut Run<'_>) -> Result<Tensor<4>> {
        run.sampler.check(self.process.steps())?;
        let [batch, channels, height, width] = low.dims();
        if channels != 3 || batch * height * width == 0 {
            return Err(Error::shape(
                "the picture to enlarge",
                &low.dims(),
                "[batch, 3, height, width]",
            ));
        }
        let stage = Stage::Upsampler(self.position);
        let [to_height, to_width] = self.size([height, width], run.size)?;
        let start = run.start(stage, [batch, 3, to_height, to_width], &self.device)?;
        let low = low.to_device(&self.device).clamp(-1.0, 1.0);
        let mut denoiser = UpsamplerDenoiser {
            stage: self,
            enlarged: resize_bicubic(low, to_height, to_width),
            held: None,
        };
        sample(&mut denoiser, start, &self.process, stage, run)
    }

    fn frame(&self) -> Option<Frame> {
        Some(self.frame)
    }

    fn check(&self, settings: &StageSettings) -> Result<()> {
        settings.sampler.check(self.process.steps())
    }

    fn defaults(&self) -> StageSettings {
        StageSettings {
            sampler: self.sampler,
            guidance: 1.0,
        }
    }
}

struct UpsamplerDenoiser<'a> {
    stage: &'a DiffusionUpsampler,
    enlarged: Tensor<4>,
    /// The network in use, and whether it is the last step's.
    held: Option<(bool, Held<'a, UNet>)>,
}

impl<'a> UpsamplerDenoiser<'a> {
    fn network(&mut self, is_last: bool) -> Result<&Held<'a, UNet>> {
        let stage = self.stage;
        let (is_last, source) = match &stage.last {
            Some(last) if is_last => (true, last),
            _ => (false, &stage.first),
        };
        // The one before is dropped first: two networks need not fit into memory.
        let kept = self.held.take().filter(|(which, _)| *which == is_last);
        let held = match kept {
            Some(held) => held,
            None => (is_last, source.hold()?),
        };
        Ok(&self.held.insert(held).1)
    }
}

impl Denoiser<4> for UpsamplerDenoiser<'_> {
    fn predict(&mut self, x: Tensor<4>, at: Timestep) -> Result<Prediction<4>> {
        let timesteps = vec![at.t as f32; x.dims()[0]];
        let input = Tensor::cat(vec![x, self.enlarged.clone()], 1);
        let output = self.network(at.is_last())?.forward(UNetInput {
            sample: input,
            times: Times::Steps(&timesteps),
            added_time: None,
            context: None,
            context_mask: None,
        });
        let outputs = output.dims()[1];
        Ok(Prediction {
            variance: (outputs > 3).then(|| output.clone().narrow(1, 3, outputs - 3)),
            target: output.narrow(1, 0, 3),
        })
    }
}
