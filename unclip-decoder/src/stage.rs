//! The decoder as a stage.

use burn::tensor::{Device, Tensor};
use unclip_core::{
    diffusion::{
        Denoiser, Prediction, Process, Sampler, Timestep,
        guidance::{Branches, Conditions},
        sample,
        sampler::invert,
    },
    error::{Error, Result},
    nn::{Times, UNetInput},
    resident::{Held, Resident},
    stage::{Canvas, Conditioning, Decoder, Frame, Run, Stage, StageSettings, TextEncoding},
};

use crate::{DecoderCondition, DecoderConfig, DecoderModel};

/// Channels of a picture.
pub(crate) const PICTURE: usize = 3;
/// Further input channels of a decoder trained for inpainting: the kept pixels and their mask.
pub(crate) const INPAINTING: usize = 4;

/// Samples small pictures from image embeddings and captions by diffusion (unCLIP §2.1).
///
/// A U-Net of 7 input channels is one trained for inpainting, as GLIDE's: noisy picture, kept
/// pixels (0 elsewhere), mask of the kept pixels (1 = kept). Without a canvas nothing is kept.
#[derive(Debug)]
pub struct DiffusionDecoder {
    /// The networks.
    pub model: Resident<DecoderModel>,
    /// The U-Net's process.
    pub process: Process,
    /// The sampler that is used if a job does not say which.
    pub sampler: Sampler,
    /// The guidance scale that is used if a job does not say which.
    pub guidance: f64,
    frame: Frame,
    is_for_inpainting: bool,
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
        let expected = match process.variance.is_learned() {
            true => 2 * PICTURE,
            false => PICTURE,
        };
        if ![PICTURE, PICTURE + INPAINTING].contains(&from) || to != expected {
            return Err(Error::config(
                "decoder",
                "in_channels, out_channels",
                format!("{from}, {to}"),
                format!("but it needs 3 (7 for inpainting) and, with this variance, {expected}"),
            ));
        }
        Ok(Self {
            model,
            process,
            sampler: Sampler::ancestral(25),
            guidance: 8.0,
            frame: Frame {
                size: [config.size; 2],
                multiple: config.unet.size_multiple(),
            },
            is_for_inpainting: from > PICTURE,
            embedding: config.projection.embedding,
            device: device.clone(),
        })
    }

    /// Uses another sampler if a job does not say which.
    pub fn with_sampler(mut self, sampler: Sampler) -> Self {
        self.sampler = sampler;
        self
    }

    /// Uses another guidance scale if a job does not say which. Default: 8, the reference's.
    pub fn with_guidance(mut self, scale: f64) -> Self {
        self.guidance = scale;
        self
    }

    fn denoiser(
        &self,
        conditioning: &Conditioning<'_>,
        size: [usize; 2],
        run: &Run<'_>,
    ) -> Result<DecoderDenoiser<'_>> {
        let model = self.model.hold()?;
        let conditions = self.condition(&model, conditioning, run.is_batched);
        let kept = match self.is_for_inpainting {
            false => None,
            true => Some(self.kept_pixels(run.canvas.as_ref(), size)?),
        };
        Ok(DecoderDenoiser {
            model,
            conditions,
            guidance: run.guidance,
            kept,
        })
    }

    /// The further input of a decoder trained for inpainting, `[b or 1, 4, h, w]`.
    fn kept_pixels(&self, canvas: Option<&Canvas>, size: [usize; 2]) -> Result<Tensor<4>> {
        let nothing = || Tensor::zeros([1, INPAINTING, size[0], size[1]], &self.device);
        let Some((canvas, repaint)) = canvas.and_then(|c| Some((c, c.repaint.as_ref()?))) else {
            return Ok(nothing());
        };
        let keep = repaint.clone().bool_not().float().to_device(&self.device);
        let pixels = canvas.pixels.clone().to_device(&self.device);
        let ([rows, _, h, w], [masks, ..]) = (pixels.dims(), keep.dims());
        if [h, w] != size || keep.dims()[2..] != size {
            let expected = format!("[b, 3, {}, {}]", size[0], size[1]);
            return Err(Error::shape(
                "the decoder's canvas",
                &pixels.dims(),
                expected,
            ));
        }
        let rows = rows.max(masks);
        let keep = keep.expand([rows, 1, h, w]);
        let pixels = pixels.expand([rows, PICTURE, h, w]) * keep.clone();
        Ok(Tensor::cat(vec![pixels, keep], 1))
    }

    /// Checks what is given and says how many pictures of which size are made.
    fn check_given(
        &self,
        conditioning: &Conditioning<'_>,
        run: &Run<'_>,
    ) -> Result<(usize, [usize; 2])> {
        run.sampler.check(self.process.steps())?;
        conditioning.caption.check(self.embedding, None)?;
        let dims = conditioning.image_embedding.dims();
        let rows = conditioning.caption.text.rows();
        if dims != [rows, self.embedding] {
            let expected = format!("[{rows}, {}], a row for each prompt", self.embedding);
            return Err(Error::shape("the image embedding", &dims, expected));
        }
        let size = run.size.unwrap_or(self.frame.size);
        self.frame.check(Stage::Decoder, size)?;
        Ok((rows, size))
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
        let (rows, size) = self.check_given(conditioning, run)?;
        let shape = [rows, PICTURE, size[0], size[1]];
        let start = run.start(Stage::Decoder, shape, &self.device)?;
        let mut denoiser = self.denoiser(conditioning, size, run)?;
        let pixels = sample(&mut denoiser, start, &self.process, Stage::Decoder, run)?;
        Ok(pixels.clamp(-1.0, 1.0))
    }

    fn invert(
        &self,
        pixels: Tensor<4>,
        conditioning: &Conditioning<'_>,
        rounds: usize,
        run: &mut Run<'_>,
    ) -> Result<Tensor<4>> {
        let (rows, size) = self.check_given(conditioning, run)?;
        let shape = [rows, PICTURE, size[0], size[1]];
        if pixels.dims() != shape {
            let expected = format!("{shape:?}");
            return Err(Error::shape(
                "the picture to invert",
                &pixels.dims(),
                expected,
            ));
        }
        let Sampler::Ddim(ddim) = run.sampler else {
            let expected = "inversion needs `Sampler::Ddim`";
            return Err(Error::setting(
                "sampler",
                format!("{:?}", run.sampler),
                expected,
            ));
        };
        let mut denoiser = self.denoiser(conditioning, size, run)?;
        let pixels = pixels.to_device(&self.device);
        let process = &self.process;
        invert(
            &mut denoiser,
            pixels,
            process,
            ddim,
            rounds,
            Stage::Decoder,
            run,
        )
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
            guidance: self.guidance,
        }
    }
}

struct DecoderDenoiser<'a> {
    model: Held<'a, DecoderModel>,
    conditions: Conditions<DecoderCondition>,
    guidance: f64,
    /// Further input channels, and none for most decoders.
    kept: Option<Tensor<4>>,
}

impl Denoiser<4> for DecoderDenoiser<'_> {
    fn predict(&mut self, x: Tensor<4>, at: Timestep) -> Result<Prediction<4>> {
        let branches = self.conditions.predict(x, |x, condition| {
            let [rows, _, height, width] = x.dims();
            let timesteps = vec![at.t as f32; rows];
            let x = match &self.kept {
                None => x,
                Some(kept) => {
                    // Guidance doubles the rows of x, but not what is kept.
                    let copies = rows / kept.dims()[0];
                    let kept = kept.clone().repeat_dim(0, copies);
                    debug_assert_eq!(kept.dims(), [rows, INPAINTING, height, width]);
                    Tensor::cat(vec![x, kept], 1)
                }
            };
            self.model.unet.forward(UNetInput {
                sample: x,
                times: Times::Steps(&timesteps),
                added_time: Some(condition.added_time.clone()),
                context: Some(condition.context.clone()),
                context_mask: Some(condition.mask.clone()),
            })
        });
        let channels = PICTURE;
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
