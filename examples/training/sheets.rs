//! Sheets of pictures to watch decoders and upsamplers by.

use std::{error::Error, path::Path};

use unclip::{
    ImageEncoder, UnClip, Upsampler,
    burn::tensor::{Device, Tensor},
    core::{
        diffusion::{Process, Sampler},
        image::{contact_sheet, from_images, save_png, to_images},
        nn::UNet,
        noise::Noise,
        resident::Resident,
        stage::Run,
        train::{Captioned, Samples, pictures, square},
    },
    decoder::{DecoderConfig, DecoderModel, DiffusionDecoder},
    image::{
        RgbImage,
        imageops::{FilterType, resize},
    },
    upsample::{DiffusionUpsampler, UpsamplerConfig},
};

use super::Start;
use crate::support::Done;

/// Pictures in a row.
const COLUMNS: usize = 8;

/// The first samples that can be read.
fn first(
    data: &dyn Samples<Item = Captioned>,
    count: usize,
) -> Result<Vec<Captioned>, Box<dyn Error>> {
    let mut reason = "there are none".to_owned();
    let read =
        (0..data.len()).filter_map(|i| data.get(i, 0).map_err(|e| reason = e.to_string()).ok());
    let read: Vec<Captioned> = read.take(count).collect();
    match read.is_empty() {
        true => Err(format!(
            "none of the {} samples can be used; the last: {reason}",
            data.len()
        )
        .into()),
        false => Ok(read),
    }
}

/// True pictures with their captions and embeddings.
pub struct DecoderSheet {
    truth: Vec<Captioned>,
    embeddings: Tensor<2>,
    start: Start,
    process: Process,
}

impl DecoderSheet {
    /// A sheet of some of the data.
    pub fn of(
        start: &Start,
        process: &Process,
        data: &dyn Samples<Item = Captioned>,
        count: usize,
    ) -> Result<Self, Box<dyn Error>> {
        Self::new(start, process, first(data, count)?)
    }

    /// A sheet of these.
    pub fn new(
        start: &Start,
        process: &Process,
        truth: Vec<Captioned>,
    ) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            embeddings: start.image_encoder()?.encode_images(&pictures(&truth))?,
            truth,
            start: start.clone(),
            process: process.clone(),
        })
    }

    /// Writes `samples-STEP.png`: true pictures, and below each row what the decoder makes of their
    /// captions and embeddings.
    pub fn make(
        &mut self,
        config: &DecoderConfig,
        model: DecoderModel,
        folder: &Path,
        step: usize,
    ) -> Done {
        let device = &self.start.device;
        let model = Resident::Kept(model);
        let stage = DiffusionDecoder::new(config, model, self.process.clone(), device)?;
        let unclip = UnClip::builder(device)
            .text_encoder(self.start.text_encoder()?)
            .decoder(stage)
            .build()?;
        let captions = self.truth.iter().map(|t| &t.caption[..]);
        let made = unclip
            .texts_to_images(captions)
            .image_embeddings(self.embeddings.clone())
            .decoder_guidance(2.0)
            .prior_guidance(1.0)
            .decoder_steps(20)
            .seed(1)
            .run()?
            .images;
        let truth = self.truth.iter().map(|t| square(&t.picture, config.size));
        write(&[truth.collect(), made], folder, step)
    }
}

/// Pictures with what an upsampler is given of them.
pub struct UpsamplerSheet {
    truth: Vec<RgbImage>,
    low: Vec<RgbImage>,
    config: UpsamplerConfig,
    process: Process,
    device: Device,
}

impl UpsamplerSheet {
    /// A sheet of some of the data.
    pub fn of(
        start: &Start,
        config: &UpsamplerConfig,
        process: &Process,
        data: &dyn Samples<Item = Captioned>,
        low: usize,
    ) -> Result<Self, Box<dyn Error>> {
        let samples = first(data, 4)?;
        let truth = samples.iter().map(|s| square(&s.picture, config.size));
        let truth: Vec<RgbImage> = truth.collect();
        Ok(Self {
            low: truth.iter().map(|picture| square(picture, low)).collect(),
            truth,
            config: config.clone(),
            process: process.clone(),
            device: start.device.clone(),
        })
    }

    /// Writes `samples-STEP.png`: small pictures, what the upsampler makes of them, and true ones.
    pub fn make(&mut self, network: UNet, folder: &Path, step: usize) -> Done {
        let (network, process) = (Resident::Kept(network), self.process.clone());
        let stage = DiffusionUpsampler::new(&self.config, network, None, process, &self.device)?;
        let (size, mut noise) = (self.config.size as u32, Noise::from_seed(1));
        let (mut small, mut made) = (Vec::new(), Vec::new());
        for low in &self.low {
            small.push(resize(low, size, size, FilterType::Nearest));
            let low = from_images(std::slice::from_ref(low), &self.device)?;
            let mut run = Run::new(Sampler::ancestral(7), &mut noise);
            made.extend(to_images(stage.upsample(low, &mut run)?)?);
        }
        write(&[small, made, self.truth.clone()], folder, step)
    }
}

/// Pictures of several kinds, below each other.
fn write(kinds: &[Vec<RgbImage>], folder: &Path, step: usize) -> Done {
    let count = kinds.iter().map(Vec::len).max().unwrap_or(0);
    let mut all = Vec::new();
    for first in (0..count).step_by(COLUMNS) {
        for kind in kinds {
            all.extend(kind[first..count.min(first + COLUMNS)].iter().cloned());
        }
    }
    let sheet = contact_sheet(&all, count.min(COLUMNS), 2);
    save_png(&sheet, &folder.join(format!("samples-{step:06}.png")), &[])?;
    Ok(())
}
