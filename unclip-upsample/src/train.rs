//! How upsamplers are trained (unCLIP §2.1): without captions, on crops, from degraded pictures.

use burn::tensor::{Device, Tensor};
use image::{RgbImage, imageops};
use unclip_core::{
    diffusion::Process,
    error::{Error, Result},
    nn::{Times, UNet, UNetInput},
    noise::Noise,
    resample::{bicubic_weights, resize_by},
    train::{
        Captioned, DiffusionLoss, Given, Inputs, Recipe, Recordable, TimestepSampler,
        TrainSettings, Weighting, pixel_values, square,
    },
};

use crate::{Degradation, UpsamplerConfig};

/// Pixels of the small picture around a crop that may bear on what it looks like.
const MARGIN: usize = 16;

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
    /// What sides of crops are multiples of, in large pixels.
    multiple: usize,
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
            crop: low.div_ceil(4).max(1),
            multiple: config.unet.size_multiple(),
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
        self.crop = crop.min(self.low).max(1);
        self
    }

    /// Whether the sizes go together.
    fn check(&self) -> Result<()> {
        let (size, low) = (self.size, self.low);
        if low == 0 || !size.is_multiple_of(low) {
            let expected = format!("a divisor of {size}, the upsampler's size");
            return Err(Error::setting("size to enlarge from", low, expected));
        }
        let side = self.crop * (size / low);
        match side.is_multiple_of(self.multiple) {
            true => Ok(()),
            false => {
                let found = format!("{} pixels, {side} when enlarged", self.crop);
                let expected = format!("a multiple of {} when enlarged", self.multiple);
                Err(Error::setting("crop", found, expected))
            }
        }
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
        let place =
            |u: f32| ((u * (self.low - self.crop + 1) as f32) as usize).min(self.low - self.crop);
        let [x, y] = at.map(place);
        // Only what the crop and its surroundings show is made small and worse.
        let first = [x, y].map(|v| v.saturating_sub(MARGIN));
        let end = [x, y].map(|v| (v + self.crop + MARGIN).min(self.low));
        let size: [usize; 2] = std::array::from_fn(|i| end[i] - first[i]);
        let around = cut(&large, first.map(|v| v * factor), size.map(|v| v * factor));
        let small = imageops::resize(
            &around,
            size[0] as u32,
            size[1] as u32,
            imageops::FilterType::CatmullRom,
        );
        let small = self.degradation.apply(&small, noise)?;
        let within = [x - first[0], y - first[1]];
        Ok([
            pixel_values(&cut(
                &large,
                [x, y].map(|v| v * factor),
                [self.crop * factor; 2],
            )),
            pixel_values(&cut(&small, within, [self.crop; 2])),
        ])
    }
}

fn cut(picture: &RgbImage, [x, y]: [usize; 2], [width, height]: [usize; 2]) -> RgbImage {
    let [x, y, width, height] = [x, y, width, height].map(|v| v as u32);
    imageops::crop_imm(picture, x, y, width, height).to_image()
}

impl Recipe for UpsamplerTraining {
    type Model = UNet;
    type Sample = Captioned;
    type Example = UpsamplerExample;

    fn prepare(&self, samples: Vec<Captioned>, noise: &mut Noise) -> Result<Vec<UpsamplerExample>> {
        self.check()?;
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
        self.loss_of(model, &self.inputs(model, examples)?.on(device))
    }

    fn recordable(&self) -> Option<&dyn Recordable<Model = UNet, Example = UpsamplerExample>> {
        Some(self)
    }
}

impl Recordable for UpsamplerTraining {
    type Model = UNet;
    type Example = UpsamplerExample;

    fn inputs(&self, model: &UNet, examples: &[&UpsamplerExample]) -> Result<Inputs> {
        let side = self.crop * (self.size / self.low);
        let (large, small) = ([3, side, side], [3, self.crop, self.crop]);
        let mut inputs = Inputs::default();
        inputs.put_rows("pixels", &large, examples.iter().map(|e| &e.pixels[..]))?;
        inputs.put_rows("noise", &large, examples.iter().map(|e| &e.noise[..]))?;
        inputs.put_rows("low", &small, examples.iter().map(|e| &e.low[..]))?;
        let weights = bicubic_weights(self.crop, side).into_iter();
        let weights: Vec<f32> = weights.map(|w| w as f32).collect();
        inputs.put("bicubic", &[side, self.crop], &weights)?;
        let timesteps: Vec<usize> = examples.iter().map(|e| e.timestep).collect();
        self.loss
            .put_times(&mut inputs, &timesteps, model.time_embedding())?;
        Ok(inputs)
    }

    fn loss_of(&self, model: &UNet, given: &Given) -> Result<Tensor<1>> {
        let pixels: Tensor<4> = given.get("pixels")?;
        let noised = self
            .loss
            .noised_by(pixels, given.get("noise")?, given.get("timesteps")?);
        let weights: Tensor<2> = given.get("bicubic")?;
        let enlarged = resize_by(given.get("low")?, [weights.clone(), weights]);
        let output = model.forward(UNetInput {
            sample: Tensor::cat(vec![noised.current.clone(), enlarged], 1),
            times: Times::Features(given.get("times")?),
            added_time: None,
            context: None,
            context_mask: None,
        });
        Ok(self.loss.losses(output, &noised))
    }
}
