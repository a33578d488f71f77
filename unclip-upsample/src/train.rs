//! How upsamplers are trained (unCLIP §2.1): without captions, on crops, from degraded pictures.

use burn::tensor::{Device, Tensor};
use image::{RgbImage, imageops::crop_imm};
use unclip_core::{
    diffusion::Process,
    error::Result,
    nn::{UNet, UNetInput},
    noise::Noise,
    resample::resize_bicubic,
    train::{
        Captioned, DiffusionLoss, Recipe, TimestepSampler, TrainSettings, Weighting, pixel_values,
        square, stack,
    },
};

use crate::{Degradation, UpsamplerConfig};

/// Trains an upsampler's U-Net to enlarge pictures that were made small and then worse.
///
/// A network without attention learns from crops of a quarter of the side as from whole pictures, and
/// is used on whole ones.
#[derive(Debug)]
pub struct UpsamplerTraining {
    loss: DiffusionLoss,
    timesteps: TimestepSampler,
    size: usize,
    low: usize,
    crop: usize,
    degradation: Degradation,
}

/// A crop with its noise and what it is made of.
#[derive(Clone, Debug)]
pub struct UpsamplerExample {
    pixels: Vec<f32>,
    low: Vec<f32>,
    noise: Vec<f32>,
    timestep: usize,
}

impl UpsamplerTraining {
    /// A recipe for upsamplers of `config` from pictures of `low` × `low`.
    pub fn new(config: &UpsamplerConfig, low: usize, process: Process) -> Self {
        Self {
            timesteps: TimestepSampler::uniform(process.steps()),
            loss: DiffusionLoss::new(process, Weighting::Even),
            size: config.size,
            low,
            crop: low.div_ceil(4),
            degradation: Degradation::Blur,
        }
    }

    /// What the small pictures suffer. Default: [`Degradation::Blur`].
    pub fn with_degradation(mut self, degradation: Degradation) -> Self {
        self.degradation = degradation;
        self
    }

    /// Side of the crops in pixels of the small picture. Default: a quarter of its side.
    pub fn with_crop(mut self, crop: usize) -> Self {
        self.crop = crop.clamp(1, self.low);
        self
    }

    /// How much each timestep's error counts. Default: all the same.
    pub fn with_weighting(mut self, weighting: Weighting) -> Self {
        self.loss = DiffusionLoss::new(self.loss.process().clone(), weighting);
        self
    }

    /// The paper's settings for 64 → 256 (table 3): a million steps of 1,024 samples.
    pub fn paper_256() -> TrainSettings {
        TrainSettings {
            learning_rate: 1.2e-4,
            weight_decay: 0.0,
            ema: 0.9999,
            cosine: false,
            ..TrainSettings::new(1_000_000, 1024)
        }
    }

    /// The paper's settings for 256 → 1024: a million steps of 512 samples.
    pub fn paper_1024() -> TrainSettings {
        TrainSettings {
            learning_rate: 1e-4,
            batch: 512,
            ..Self::paper_256()
        }
    }

    /// A crop at a place given by two uniform numbers: large and small pixels.
    fn cropped(
        &self,
        picture: &RgbImage,
        at: [f32; 2],
        noise: &mut Noise,
    ) -> Result<[Vec<f32>; 2]> {
        let factor = self.size / self.low;
        let large = square(picture, self.size);
        let low = self.degradation.apply(&square(&large, self.low), noise)?;
        let place =
            |u: f32| ((u * (self.low - self.crop + 1) as f32) as usize).min(self.low - self.crop);
        let [x, y] = at.map(place);
        let cut = |picture: &RgbImage, scale: usize| {
            let [x, y, side] = [x, y, self.crop].map(|v| (v * scale) as u32);
            pixel_values(&crop_imm(picture, x, y, side, side).to_image())
        };
        Ok([cut(&large, factor), cut(&low, 1)])
    }
}

impl Recipe for UpsamplerTraining {
    type Model = UNet;
    type Sample = Captioned;
    type Example = UpsamplerExample;

    fn prepare(
        &mut self,
        samples: Vec<Captioned>,
        noise: &mut Noise,
    ) -> Result<Vec<UpsamplerExample>> {
        let mut examples = Vec::with_capacity(samples.len());
        for sample in samples {
            let draws = noise.uniform_vec(3);
            let at = [draws[0], draws[1]];
            let [pixels, low] = self.cropped(&sample.picture, at, noise)?;
            examples.push(UpsamplerExample {
                noise: noise.normal_vec(pixels.len())?,
                pixels,
                low,
                timestep: self.timesteps.draw(draws[2]).0,
            });
        }
        Ok(examples)
    }

    fn loss(
        &self,
        model: &UNet,
        examples: &[&UpsamplerExample],
        device: &Device,
    ) -> Result<Tensor<1>> {
        let side = self.crop * (self.size / self.low);
        let large = |of: fn(&UpsamplerExample) -> &[f32]| {
            stack::<4>(examples.iter().map(|e| of(e)), &[3, side, side], device)
        };
        let low = examples.iter().map(|e| &e.low[..]);
        let low: Tensor<4> = stack(low, &[3, self.crop, self.crop], device)?;
        let timesteps: Vec<usize> = examples.iter().map(|e| e.timestep).collect();
        let times: Vec<f32> = timesteps.iter().map(|t| *t as f32).collect();
        let noised = self
            .loss
            .noised(large(|e| &e.pixels)?, large(|e| &e.noise)?, timesteps);
        let enlarged = resize_bicubic(low, side, side);
        let output = model.forward(UNetInput {
            sample: Tensor::cat(vec![noised.current.clone(), enlarged], 1),
            timesteps: &times,
            added_time: None,
            context: None,
            context_mask: None,
        });
        Ok(self.loss.losses(output, &noised))
    }
}
