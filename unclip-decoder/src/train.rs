//! How the decoder is trained (unCLIP §2.1), from nothing or from a checkpoint, also for inpainting.

use std::sync::{Mutex, MutexGuard};

use burn::tensor::{Device, Tensor};
use unclip_core::{
    diffusion::Process,
    error::{Error, Result},
    image::to_host,
    nn::{Times, UNetInput},
    noise::Noise,
    stage::{ImageEncoder, TextEncoder},
    train::{
        Captioned, DiffusionLoss, Given, Inputs, Recipe, Recordable, TextRow, TimestepSampler,
        TrainSettings, Weighting, kept_conditions, pictures, pixel_values, square,
    },
};

use crate::{DecoderConfig, DecoderModel};

/// Trains a [`DecoderModel`] on captioned pictures, with frozen encoders.
///
/// The image embedding is dropped in 10 % of the samples and, independently, the caption in 50 %, so
/// that sampling can be guided by either.
pub struct DecoderTraining {
    loss: DiffusionLoss,
    timesteps: Mutex<TimestepSampler>,
    text: Mutex<Box<dyn TextEncoder>>,
    image: Mutex<Box<dyn ImageEncoder>>,
    size: usize,
    embedding: usize,
    is_for_inpainting: bool,
    embedding_dropout: f32,
    caption_dropout: f32,
    embedding_noise: f32,
}

/// A picture with its noise and what the decoder is told.
#[derive(Clone, Debug)]
pub struct DecoderExample {
    pixels: Vec<f32>,
    noise: Vec<f32>,
    timestep: usize,
    weight: f32,
    /// None where it is dropped.
    embedding: Option<Vec<f32>>,
    text: TextRow,
    /// For inpainting: 1 where the picture is known.
    kept: Vec<f32>,
}

impl DecoderTraining {
    /// A recipe for decoders of `config`, whose pictures go through `process`.
    pub fn new(
        config: &DecoderConfig,
        process: Process,
        text: Box<dyn TextEncoder>,
        image: Box<dyn ImageEncoder>,
    ) -> Self {
        Self {
            timesteps: Mutex::new(TimestepSampler::uniform(process.steps())),
            loss: DiffusionLoss::new(process, Weighting::Even),
            text: Mutex::new(text),
            image: Mutex::new(image),
            size: config.size,
            embedding: config.projection.embedding,
            is_for_inpainting: config.unet.in_channels > 3,
            embedding_dropout: 0.1,
            caption_dropout: 0.5,
            embedding_noise: 0.0,
        }
    }

    /// How much each timestep's error counts. Default: all the same.
    pub fn with_weighting(mut self, weighting: Weighting) -> Self {
        self.loss = DiffusionLoss::new(self.loss.process().clone(), weighting);
        self
    }

    /// How timesteps are drawn. Default: evenly.
    pub fn with_timesteps(mut self, timesteps: TimestepSampler) -> Self {
        self.timesteps = Mutex::new(timesteps);
        self
    }

    /// Shares of the samples without image embedding and without caption, from 0 to 1; others are an error
    /// of the first step. Default: 0.1 and 0.5.
    pub fn with_dropout(mut self, embedding: f32, caption: f32) -> Self {
        (self.embedding_dropout, self.caption_dropout) = (embedding, caption);
        self
    }

    /// Adds Gaussian noise to the image embeddings of samples that keep their caption, of a standard
    /// deviation between 0 and `most` times the root mean square of an embedding's values, drawn for each.
    /// Default: 0, as in the paper.
    ///
    /// Training sees the embeddings of its pictures, sampling those that a prior makes up. A decoder
    /// that knew only exact ones believes a prior's mistakes over the caption. Where there is no caption
    /// the embedding is all there is to believe, so it stays exact.
    pub fn with_embedding_noise(mut self, most: f32) -> Self {
        self.embedding_noise = most;
        self
    }

    /// The paper's settings (table 3): 800,000 steps of 2,048 samples.
    pub fn paper() -> TrainSettings {
        TrainSettings {
            learning_rate: 1.2e-4,
            weight_decay: 0.0,
            ema: 0.9999,
            cosine: false,
            ..TrainSettings::new(800_000, 2048)
        }
    }

    /// Encodes the pictures and those captions that are not dropped.
    fn encode(
        &self,
        samples: &[Captioned],
        is_captioned: &[bool],
    ) -> Result<(Vec<Vec<f32>>, Vec<TextRow>)> {
        let captions: Vec<&str> = samples
            .iter()
            .zip(is_captioned)
            .map(|(sample, kept)| if *kept { &sample.caption[..] } else { "" })
            .collect();
        let text = locked(&self.text).encode_text(&captions)?;
        let image = locked(&self.image).encode_images(&pictures(samples))?;
        let width = image.dims()[1];
        if width != self.embedding {
            let expected = format!("[b, {}], as the decoder takes", self.embedding);
            return Err(Error::shape("the image embedding", &image.dims(), expected));
        }
        let image = to_host(image, "image encoder")?;
        let rows = image.chunks(width).map(<[f32]>::to_vec).collect();
        Ok((rows, TextRow::of(&text)?))
    }
}

/// Adds noise of up to `most` times the root mean square of the values.
fn disturb(embedding: &mut [f32], most: f32, noise: &mut Noise) -> Result<()> {
    let square: f32 = embedding.iter().map(|v| v * v).sum();
    let size = (square / embedding.len() as f32).sqrt();
    let deviation = most * noise.uniform_vec(1)[0] * size;
    let drawn = noise.normal_vec(embedding.len())?;
    for (value, drawn) in embedding.iter_mut().zip(drawn) {
        *value += deviation * drawn;
    }
    Ok(())
}

fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Recipe for DecoderTraining {
    type Model = DecoderModel;
    type Sample = Captioned;
    type Example = DecoderExample;

    fn prepare(&self, samples: Vec<Captioned>, noise: &mut Noise) -> Result<Vec<DecoderExample>> {
        let count = samples.len();
        let has_image = kept_conditions("embedding dropout", self.embedding_dropout, count, noise)?;
        let has_caption = kept_conditions("caption dropout", self.caption_dropout, count, noise)?;
        if !(0.0..f32::INFINITY).contains(&self.embedding_noise) {
            let expected = "a finite factor, not below 0";
            return Err(Error::setting(
                "embedding noise",
                self.embedding_noise,
                expected,
            ));
        }
        let (mut embeddings, texts) = self.encode(&samples, &has_caption)?;
        if self.embedding_noise > 0.0 {
            let captioned = embeddings.iter_mut().zip(&has_caption);
            for (embedding, _) in captioned.filter(|(_, has_caption)| **has_caption) {
                disturb(embedding, self.embedding_noise, noise)?;
            }
        }
        let mut examples = Vec::with_capacity(count);
        for (((sample, embedding), text), has_image) in
            samples.iter().zip(embeddings).zip(texts).zip(has_image)
        {
            let pixels = pixel_values(&square(&sample.picture, self.size));
            let (timestep, weight) = locked(&self.timesteps).draw(noise.uniform_vec(1)[0]);
            let kept = match self.is_for_inpainting {
                true => known_pixels(self.size, noise.uniform_vec(5)),
                false => Vec::new(),
            };
            examples.push(DecoderExample {
                noise: noise.normal_vec(pixels.len())?,
                pixels,
                timestep,
                weight,
                embedding: has_image.then_some(embedding),
                text,
                kept,
            });
        }
        Ok(examples)
    }

    fn loss(
        &self,
        model: &DecoderModel,
        examples: &[&DecoderExample],
        device: &Device,
    ) -> Result<Tensor<1>> {
        self.loss_of(model, &self.inputs(model, examples)?.on(device))
    }

    fn recordable(
        &self,
    ) -> Option<&dyn Recordable<Model = DecoderModel, Example = DecoderExample>> {
        Some(self)
    }

    fn observe(&self, examples: &[DecoderExample], losses: &[f32]) {
        let mut timesteps = locked(&self.timesteps);
        for (example, loss) in examples.iter().zip(losses) {
            timesteps.observe(example.timestep, loss / example.weight);
        }
    }

    fn learns_from_losses(&self) -> bool {
        locked(&self.timesteps).is_loss_aware()
    }

    fn state(&self) -> serde_json::Value {
        locked(&self.timesteps).state()
    }

    fn restore(&self, state: &serde_json::Value) -> Result<()> {
        locked(&self.timesteps).restore(state);
        Ok(())
    }
}

impl Recordable for DecoderTraining {
    type Model = DecoderModel;
    type Example = DecoderExample;

    fn inputs(&self, model: &DecoderModel, examples: &[&DecoderExample]) -> Result<Inputs> {
        let (rows, size) = (examples.len(), self.size);
        let picture = [3, size, size];
        let mut inputs = Inputs::default();
        inputs.put_rows("pixels", &picture, examples.iter().map(|e| &e.pixels[..]))?;
        inputs.put_rows("noise", &picture, examples.iter().map(|e| &e.noise[..]))?;
        if self.is_for_inpainting {
            let kept = examples.iter().map(|e| &e.kept[..]);
            inputs.put_rows("kept", &[1, size, size], kept)?;
        }
        let timesteps: Vec<usize> = examples.iter().map(|e| e.timestep).collect();
        self.loss
            .put_times(&mut inputs, &timesteps, model.unet.time_embedding())?;

        let nothing = vec![0.0; self.embedding];
        let embeddings = examples
            .iter()
            .map(|e| &e.embedding.as_ref().unwrap_or(&nothing)[..]);
        inputs.put_rows("embedding", &[self.embedding], embeddings)?;
        let dropped = examples
            .iter()
            .map(|e| f32::from(u8::from(e.embedding.is_none())));
        inputs.put("dropped", &[rows, 1], &dropped.collect::<Vec<_>>())?;
        let texts: Vec<&TextRow> = examples.iter().map(|e| &e.text).collect();
        TextRow::put(&mut inputs, &texts)?;
        let weights: Vec<f32> = examples.iter().map(|e| e.weight).collect();
        inputs.put("weights", &[rows], &weights)?;
        Ok(inputs)
    }

    fn loss_of(&self, model: &DecoderModel, given: &Given) -> Result<Tensor<1>> {
        let pixels: Tensor<4> = given.get("pixels")?;
        let (noise, numbers) = (given.get("noise")?, given.get("timesteps")?);
        let noised = self.loss.noised_by(pixels.clone(), noise, numbers);

        let dropped: Tensor<2> = given.get("dropped")?;
        let null = model.projection.null_embedding(dropped.dims()[0]);
        let text = TextRow::given(given)?;
        let condition = model.projection.forward(
            given.get::<2>("embedding")? + null * dropped,
            text.embedding,
            text.tokens,
            text.mask,
        );

        let mut sample = noised.current.clone();
        if self.is_for_inpainting {
            let kept: Tensor<4> = given.get("kept")?;
            sample = Tensor::cat(vec![sample, pixels * kept.clone(), kept], 1);
        }
        let output = model.unet.forward(UNetInput {
            sample,
            times: Times::Features(given.get("times")?),
            added_time: Some(condition.added_time),
            context: Some(condition.context),
            context_mask: Some(condition.mask),
        });
        Ok(self.loss.losses(output, &noised) * given.get::<1>("weights")?)
    }
}

impl std::fmt::Debug for DecoderTraining {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DecoderTraining")
            .field("loss", &self.loss)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// Which pixels are known, 1 or 0: nothing in a tenth of the cases, else all but a rectangle.
fn known_pixels(size: usize, uniform: Vec<f32>) -> Vec<f32> {
    if uniform[0] < 0.1 {
        return vec![0.0; size * size];
    }
    let range = |share: f32, start: f32| {
        let length = ((0.2 + 0.8 * share) * size as f32) as usize;
        let first = (start * (size - length + 1) as f32) as usize;
        first..first + length
    };
    let (rows, columns) = (range(uniform[1], uniform[2]), range(uniform[3], uniform[4]));
    let is_new = |at: usize| rows.contains(&(at / size)) && columns.contains(&(at % size));
    let known = (0..size * size).map(|at| f32::from(u8::from(!is_new(at))));
    known.collect()
}

#[cfg(test)]
mod tests {
    use unclip_core::noise::Noise;

    use super::{disturb, known_pixels};

    #[test]
    fn noise_is_as_large_as_the_embedding_at_most() {
        let mut noise = Noise::from_seed(1);
        let clean = [3.0, -3.0, 3.0, -3.0];
        let mut sum = 0.0;
        for _ in 0..4_000 {
            let mut embedding = clean;
            disturb(&mut embedding, 0.5, &mut noise).unwrap();
            let changes = embedding.iter().zip(clean).map(|(a, b)| (a - b) * (a - b));
            sum += changes.sum::<f32>();
        }
        // The mean of (u × 0.5 × 3)², u being even between 0 and 1.
        let expected = 0.5 * 0.5 * 9.0 / 3.0;
        let found = sum / 16_000.0;
        assert!((found / expected - 1.0).abs() < 0.05, "{found} {expected}");
    }

    #[test]
    fn what_is_painted_is_a_rectangle_or_all() {
        assert_eq!(known_pixels(4, vec![0.05; 5]), [0.0; 16]);
        let some = known_pixels(8, vec![0.5, 0.3, 0.999, 0.0, 0.0]);
        let new: Vec<usize> = (0..64).filter(|at| some[*at] == 0.0).collect();
        assert_eq!(new, [40, 48, 56]);
        assert_eq!(known_pixels(8, vec![0.5, 1.0, 0.9, 1.0, 0.9]), [0.0; 64]);
    }
}
