//! The stages as traits, and the values that pass between them.
//!
//! A prompt goes through [`TextEncoder`], [`Prior`], [`Decoder`] and any number of [`Upsampler`]s.
//! The traits are object safe and know no Burn module: a stage may wrap a network of ours, one of
//! yours, a remote service or a table.

use std::{fmt, ops::ControlFlow};

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use image::DynamicImage;

use crate::{
    diffusion::Sampler,
    error::{Error, Result},
    noise::Noise,
};

/// A stage of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Prompt → embedding and tokens.
    TextEncoder,
    /// Picture → CLIP image embedding.
    ImageEncoder,
    /// Text → CLIP image embedding.
    Prior,
    /// Image embedding and caption → small picture.
    Decoder,
    /// Small picture → larger picture; counted from 0.
    Upsampler(usize),
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TextEncoder => f.write_str("text encoder"),
            Self::ImageEncoder => f.write_str("image encoder"),
            Self::Prior => f.write_str("prior"),
            Self::Decoder => f.write_str("decoder"),
            Self::Upsampler(0) => f.write_str("upsampler"),
            Self::Upsampler(i) => write!(f, "upsampler {}", i + 1),
        }
    }
}

/// Encoded prompts.
#[derive(Clone, Debug)]
pub struct TextEncoding {
    /// CLIP text embeddings, not normalised, `[b, d]`.
    pub embedding: Tensor<2>,
    /// Last hidden states, `[b, n, w]`.
    pub tokens: Tensor<3>,
    /// Which tokens are not padding, `[b, n]`, true = keep.
    pub mask: Tensor<2, Bool>,
}

impl TextEncoding {
    /// Number of prompts.
    pub fn rows(&self) -> usize {
        self.embedding.dims()[0]
    }

    /// Checks that this has the shapes a stage was made for: `rows` prompts, embeddings and tokens
    /// of `width`, and `length` tokens if that is given.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn check(&self, rows: usize, width: usize, length: Option<usize>) -> Result<()> {
        let (embedding, tokens) = (self.embedding.dims(), self.tokens.dims());
        let n = length.unwrap_or(tokens[1]);
        if embedding != [rows, width] {
            let expected = format!("[{rows}, {width}]");
            return Err(Error::shape("the text embedding", &embedding, expected));
        }
        if tokens != [rows, n, width] {
            let expected = format!("[{rows}, {n}, {width}]");
            return Err(Error::shape("the caption's tokens", &tokens, expected));
        }
        if self.mask.dims() != [rows, n] {
            let expected = format!("[{rows}, {n}]");
            return Err(Error::shape(
                "the caption's mask",
                &self.mask.dims(),
                expected,
            ));
        }
        Ok(())
    }

    /// Each row `times` times, copies next to each other.
    pub fn repeat_rows(&self, times: usize) -> Self {
        let device = self.embedding.device();
        let rows: Vec<i64> = (0..self.rows() as i64)
            .flat_map(|row| std::iter::repeat_n(row, times))
            .collect();
        let count = rows.len();
        let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [count]), &device);
        Self {
            embedding: self.embedding.clone().select(0, rows.clone()),
            tokens: self.tokens.clone().select(0, rows.clone()),
            mask: self.mask.clone().int().select(0, rows).equal_elem(1),
        }
    }

    /// `count` rows from `first` on.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn narrow_rows(&self, first: usize, count: usize) -> Self {
        Self {
            embedding: self.embedding.clone().narrow(0, first, count),
            tokens: self.tokens.clone().narrow(0, first, count),
            mask: self.mask.clone().narrow(0, first, count),
        }
    }

    /// The rows of `first`, then those of `second`.
    ///
    /// # Panics
    /// If they differ in width or length.
    pub fn cat(first: &Self, second: &Self) -> Self {
        Self {
            embedding: Tensor::cat(vec![first.embedding.clone(), second.embedding.clone()], 0),
            tokens: Tensor::cat(vec![first.tokens.clone(), second.tokens.clone()], 0),
            mask: Tensor::cat(vec![first.mask.clone(), second.mask.clone()], 0),
        }
    }

    /// The same on another device.
    pub fn to_device(&self, device: &Device) -> Self {
        Self {
            embedding: self.embedding.clone().to_device(device),
            tokens: self.tokens.clone().to_device(device),
            mask: self.mask.clone().to_device(device),
        }
    }
}

/// What a picture is to show, and for guidance what it is not.
#[derive(Clone, Copy, Debug)]
pub struct Caption<'a> {
    /// The prompts, one row a picture.
    pub text: &'a TextEncoding,
    /// Empty or negative prompts, as many rows. Guidance is on if this is given.
    pub unconditional: Option<&'a TextEncoding>,
}

impl Caption<'_> {
    /// [`TextEncoding::check`] of both parts.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn check(&self, width: usize, length: Option<usize>) -> Result<()> {
        let rows = self.text.rows();
        let length = length.or(Some(self.text.tokens.dims()[1]));
        self.text.check(rows, width, length)?;
        self.unconditional
            .map_or(Ok(()), |text| text.check(rows, width, length))
    }
}

/// What a decoder is given.
#[derive(Clone, Debug)]
pub struct Conditioning<'a> {
    /// CLIP image embeddings in the encoder's own units, `[b, d]`.
    pub image_embedding: Tensor<2>,
    /// The prompts of the same rows.
    pub caption: Caption<'a>,
}

/// A step that has been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The running stage.
    pub stage: Stage,
    /// Steps done, from 1.
    pub done: usize,
    /// Steps in all.
    pub steps: usize,
}

/// Called after every step; `Break` cancels the job.
pub type Watch<'a> = dyn FnMut(Step) -> ControlFlow<()> + 'a;

/// Tells a watcher that a step is done.
///
/// # Errors
/// [`Error::Cancelled`] if the watcher says so.
pub fn report(watch: Option<&mut Watch<'_>>, step: Step) -> Result<()> {
    match watch.map(|watch| watch(step)) {
        Some(ControlFlow::Break(())) => Err(Error::Cancelled {
            stage: step.stage.to_string(),
            step: step.done,
            steps: step.steps,
        }),
        _ => Ok(()),
    }
}

/// A picture to start from, or to keep parts of; at the size a stage works at.
#[derive(Clone, Debug)]
pub struct Canvas {
    /// In [-1, 1], `[b or 1, 3, h, w]`.
    pub pixels: Tensor<4>,
    /// Where it is painted anew (true), `[b or 1, 1, h, w]`; the rest comes out unchanged. Without
    /// it all is free.
    pub repaint: Option<Tensor<4, Bool>>,
    /// How far back to noise the free part goes, as the share of steps that are made: 1 is all
    /// the way, little stays close to the picture.
    pub strength: f64,
    /// How often each step is made, going back to the noisier level in between, so that free and
    /// kept parts grow together (RePaint's resampling, arXiv 2201.09865). 1 is once.
    pub rounds: usize,
}

impl Canvas {
    /// All free and from pure noise on; set what differs.
    pub fn new(pixels: Tensor<4>) -> Self {
        Self {
            pixels,
            repaint: None,
            strength: 1.0,
            rounds: 1,
        }
    }

    /// Checks strength and rounds, named after `stage`.
    ///
    /// # Errors
    /// [`Error::Setting`] if strength is not above 0 and at most 1, or there are no rounds.
    pub fn check_settings(strength: f64, rounds: usize, stage: Stage) -> Result<()> {
        if !(strength > 0.0 && strength <= 1.0) {
            let name = format!("the {stage}'s strength");
            let expected = "a number above 0 and at most 1";
            return Err(Error::setting(&name, strength, expected));
        }
        match rounds {
            0 => Err(Error::setting("rounds", 0, "at least 1 is needed")),
            _ => Ok(()),
        }
    }
}

/// How one stage is run once.
pub struct Run<'a> {
    /// The sampler.
    pub sampler: Sampler,
    /// Guidance scale; used if the caption has an unconditional part.
    pub guidance: f64,
    /// Both branches of guidance in one batch (faster), or one after the other (less memory).
    pub is_batched: bool,
    /// Source of x_T, if `latents` is not given, and of the steps' noise.
    pub noise: &'a mut Noise,
    /// x_T as unit noise, instead of drawing it.
    pub latents: Option<TensorData>,
    /// A picture to start from or to keep parts of.
    pub canvas: Option<Canvas>,
    /// Height and width of the pictures, if not the stage's own.
    pub size: Option<[usize; 2]>,
    /// Progress and cancellation.
    pub watch: Option<&'a mut Watch<'a>>,
}

impl fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("sampler", &self.sampler)
            .field("guidance", &self.guidance)
            .finish_non_exhaustive()
    }
}

impl<'a> Run<'a> {
    /// A run with guidance 1, batched, unwatched.
    pub fn new(sampler: Sampler, noise: &'a mut Noise) -> Self {
        Self {
            sampler,
            guidance: 1.0,
            is_batched: true,
            noise,
            latents: None,
            canvas: None,
            size: None,
            watch: None,
        }
    }

    /// [`report`]s a step to the watcher.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if the watcher says so.
    pub fn report(&mut self, stage: Stage, done: usize, steps: usize) -> Result<()> {
        report(self.watch.as_deref_mut(), Step { stage, done, steps })
    }

    /// x_T of `shape` on `device`: the given latents, else noise.
    ///
    /// # Errors
    /// [`Error::Shape`] if the given latents have another shape.
    pub fn start<const D: usize>(
        &mut self,
        stage: Stage,
        shape: [usize; D],
        device: &Device,
    ) -> Result<Tensor<D>> {
        match self.latents.take() {
            None => self.noise.normal(shape, device),
            Some(data) => {
                let found: Vec<usize> = data.shape().iter().copied().collect();
                if found != shape {
                    return Err(Error::shape(
                        &format!("the {stage}'s latents"),
                        &found,
                        format!("{shape:?}"),
                    ));
                }
                let f32 = burn::tensor::DType::F32;
                Ok(Tensor::from_data(data.convert_dtype(f32), (device, f32)))
            }
        }
    }
}

/// Prompts → embeddings and tokens. Tokenises too, so that any text model may stand in for CLIP.
pub trait TextEncoder: Send {
    /// Encodes `prompts`, one row each.
    ///
    /// # Errors
    /// If a prompt cannot be tokenised or the network cannot be loaded.
    fn encode_text(&self, prompts: &[&str]) -> Result<TextEncoding>;
}

/// Pictures → CLIP image embeddings. Resizes and normalises too.
pub trait ImageEncoder: Send {
    /// Encodes `images`, of any size and mode, one row each: `[b, d]`, in the encoder's own units
    /// (not normalised).
    ///
    /// # Errors
    /// If there are no pictures or the network cannot be loaded.
    fn encode_images(&self, images: &[DynamicImage]) -> Result<Tensor<2>>;
}

/// Encoded text → CLIP image embeddings.
pub trait Prior: Send {
    /// Samples one embedding, `[b, d]`, for each row of the caption.
    ///
    /// # Errors
    /// Wrong settings, cancellation, or a network that cannot be loaded.
    fn sample(&self, caption: Caption<'_>, run: &mut Run<'_>) -> Result<Tensor<2>>;

    /// The settings its checkpoint was made for.
    fn defaults(&self) -> StageSettings {
        StageSettings::default()
    }

    /// Whether it can be run with these settings, asked before any stage runs.
    ///
    /// # Errors
    /// [`Error::Setting`] that names what is out of range.
    fn check(&self, settings: &StageSettings) -> Result<()> {
        let _ = settings;
        Ok(())
    }
}

/// The pictures a stage works at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Height and width it was trained for.
    pub size: [usize; 2],
    /// What other heights and widths have to be multiples of.
    pub multiple: usize,
}

impl Frame {
    /// Checks a height and width, named after `stage`.
    ///
    /// # Errors
    /// [`Error::Setting`] if one is 0 or not such a multiple.
    pub fn check(&self, stage: Stage, size: [usize; 2]) -> Result<()> {
        if size
            .iter()
            .all(|n| *n > 0 && n.is_multiple_of(self.multiple))
        {
            return Ok(());
        }
        let name = format!("the {stage}'s height and width");
        let expected = format!("multiples of {}", self.multiple);
        Err(Error::setting(&name, format!("{size:?}"), expected))
    }
}

/// Image embedding and caption → small pictures.
pub trait Decoder: Send {
    /// Samples one picture, `[b, 3, h, w]` in [-1, 1], for each row.
    ///
    /// # Errors
    /// Wrong settings, cancellation, or a network that cannot be loaded.
    fn decode(&self, conditioning: &Conditioning<'_>, run: &mut Run<'_>) -> Result<Tensor<4>>;

    /// The x_T, `[b, 3, h, w]`, from which [`decode`](Self::decode) with the same conditioning and
    /// a deterministic sampler makes `pixels`, `[b, 3, h, w]` in [-1, 1]; the network is asked
    /// `rounds` times a step.
    ///
    /// # Errors
    /// Wrong settings, cancellation, a network that cannot be loaded; by default
    /// [`Error::MissingStage`], as not every decoder is a diffusion model.
    fn invert(
        &self,
        pixels: Tensor<4>,
        conditioning: &Conditioning<'_>,
        rounds: usize,
        run: &mut Run<'_>,
    ) -> Result<Tensor<4>> {
        let _ = (pixels, conditioning, rounds, run);
        Err(Error::MissingStage {
            stage: "decoder that can be inverted".into(),
            hint: "this one is not a diffusion model".into(),
        })
    }

    /// The size of its pictures, which jobs on given pictures need. Unknown by default.
    fn frame(&self) -> Option<Frame> {
        None
    }

    /// The settings its checkpoint was made for.
    fn defaults(&self) -> StageSettings {
        StageSettings::default()
    }

    /// Whether it can be run with these settings, asked before any stage runs.
    ///
    /// # Errors
    /// [`Error::Setting`] that names what is out of range.
    fn check(&self, settings: &StageSettings) -> Result<()> {
        let _ = settings;
        Ok(())
    }
}

/// Pictures → larger pictures.
pub trait Upsampler: Send {
    /// Samples a larger picture, `[b, 3, h', w']` in [-1, 1], from each of `low`.
    ///
    /// # Errors
    /// Wrong settings, cancellation, or a network that cannot be loaded.
    fn upsample(&self, low: Tensor<4>, run: &mut Run<'_>) -> Result<Tensor<4>>;

    /// The size of its results, which jobs on given pictures need. Unknown by default.
    fn frame(&self) -> Option<Frame> {
        None
    }

    /// The settings its checkpoint was made for.
    fn defaults(&self) -> StageSettings {
        StageSettings::default()
    }

    /// Whether it can be run with these settings, asked before any stage runs.
    ///
    /// # Errors
    /// [`Error::Setting`] that names what is out of range.
    fn check(&self, settings: &StageSettings) -> Result<()> {
        let _ = settings;
        Ok(())
    }
}

/// Sampler and guidance of one stage.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct StageSettings {
    /// Sampler and steps.
    pub sampler: Sampler,
    /// Guidance scale.
    pub guidance: f64,
}

impl Default for StageSettings {
    fn default() -> Self {
        Self {
            sampler: Sampler::ancestral(25),
            guidance: 1.0,
        }
    }
}
