//! The stages in order, with the noise and the watcher of one job.

use std::ops::ControlFlow;

use burn::tensor::{Tensor, TensorData};
use image::DynamicImage;
use unclip_core::{
    error::{Error, Result},
    image::{to_host, to_images},
    noise::Noise,
    stage::{Canvas, Caption, Conditioning, Run, Stage, StageSettings, Step, TextEncoding, report},
};

use super::{candidates::Kept, job::Plan, knobs::Stages};
use crate::{Output, Settings, UnClip};

pub(super) struct Chain<'a> {
    pub unclip: &'a UnClip,
    pub stages: Stages,
    pub negative_prompt: String,
    pub is_batched: bool,
    /// Pictures the decoder makes for each that is kept.
    pub candidates: usize,
    /// x_T of prior, decoder and first upsampler.
    pub latents: [Option<TensorData>; 3],
    pub noise: Noise,
    pub watch: Option<Box<dyn FnMut(Step) -> ControlFlow<()> + 'a>>,
}

/// A caption and what guidance leads away from.
pub(super) struct Encoded {
    pub text: TextEncoding,
    pub unconditional: Option<TextEncoding>,
}

impl Encoded {
    pub(super) fn caption(&self) -> Caption<'_> {
        Caption {
            text: &self.text,
            unconditional: self.unconditional.as_ref(),
        }
    }
}

/// What a stage is given beyond its settings.
#[derive(Default)]
pub(super) struct Given {
    pub latents: Option<TensorData>,
    pub canvas: Option<Canvas>,
    pub size: Option<[usize; 2]>,
}

impl Chain<'_> {
    /// Runs every stage.
    pub(super) fn make(mut self, plan: Plan, images: usize, settings: Settings) -> Result<Output> {
        self.noise.share_rows(plan.shares_noise);
        let rows = images * self.candidates;
        let encoded = self.encode(&plan.prompts, rows, self.stages.is_guided())?;
        let image_embedding = match (plan.embeddings, self.stages.prior) {
            (Some(embeddings), _) => repeat_rows(embeddings, self.candidates),
            (None, Some(prior)) => {
                let given = Given {
                    latents: self.latents[0].take(),
                    ..Given::default()
                };
                let stage = self.unclip.prior()?;
                let mut run = self.run(prior, given);
                stage.sample(encoded.caption(), &mut run)?
            }
            (None, None) => {
                let hint = "this kind of job brings image embeddings or asks for the prior";
                return Err(Error::setting("image embeddings", "none", hint));
            }
        };
        to_host(image_embedding.clone(), "prior")?;

        let sizes = self.sizes(plan.size)?;
        let given = Given {
            latents: plan.decoder_latents.or_else(|| self.latents[1].take()),
            canvas: match &plan.canvas {
                None => None,
                Some(canvas) => Some(canvas.at(sizes[0], image_embedding.device())?),
            },
            size: plan.size.map(|_| sizes[0]),
        };
        let small = self.decode(image_embedding.clone(), &encoded, given)?;
        let Kept {
            small,
            image_embedding,
            similarities,
        } = self.choose(&plan.prompts, &encoded, image_embedding, small)?;

        let mut pixels = small.clone();
        let unclip = self.unclip;
        let stages = self.stages.upsamplers.clone();
        for (i, (stage, settings)) in unclip.upsamplers().zip(stages).enumerate() {
            let canvas = plan.canvas.as_ref().filter(|canvas| canvas.keeps_pixels());
            let given = Given {
                latents: self.latents[2].take(),
                canvas: match canvas {
                    None => None,
                    // Above the decoder nothing is left of the picture's noise but what is kept.
                    Some(canvas) => {
                        let canvas = canvas.at(sizes[i + 1], pixels.device())?;
                        Some(Canvas {
                            strength: 1.0,
                            ..canvas
                        })
                    }
                },
                size: plan.size.map(|_| sizes[i + 1]),
            };
            pixels = stage.upsample(pixels, &mut self.run(settings, given))?;
        }
        if let Some(canvas) = &plan.canvas {
            pixels = canvas.crop(pixels);
        }
        Ok(Output {
            images: to_images(pixels.clone())?,
            pixels,
            small,
            image_embeddings: image_embedding,
            similarities,
            settings,
        })
    }

    pub(super) fn decode(
        &mut self,
        image_embedding: Tensor<2>,
        encoded: &Encoded,
        given: Given,
    ) -> Result<Tensor<4>> {
        let conditioning = Conditioning {
            image_embedding,
            caption: encoded.caption(),
        };
        let stage = self.unclip.decoder()?;
        let settings = self.stages.decoder;
        stage.decode(&conditioning, &mut self.run(settings, given))
    }

    /// The prompts' encoding, a row for each picture, and the negative prompt's if needed.
    pub(super) fn encode(
        &mut self,
        prompts: &[String],
        images: usize,
        is_guided: bool,
    ) -> Result<Encoded> {
        let encoder = self.unclip.text_encoder()?;
        let mut all: Vec<&str> = prompts.iter().map(String::as_str).collect();
        let count = all.len();
        // One call for both: a network that is loaded for each use is loaded once.
        if is_guided {
            all.push(&self.negative_prompt);
        }
        let all = encoder.encode_text(&all)?;
        self.report(Stage::TextEncoder)?;
        Ok(Encoded {
            text: all.narrow_rows(0, count).repeat_rows(images),
            unconditional: is_guided.then(|| all.narrow_rows(count, 1).repeat_rows(count * images)),
        })
    }

    /// CLIP image embeddings of pictures.
    pub(super) fn embed(&mut self, images: &[DynamicImage]) -> Result<Tensor<2>> {
        let embeddings = self.unclip.image_encoder()?.encode_images(images)?;
        self.report(Stage::ImageEncoder)?;
        Ok(embeddings)
    }

    /// Height and width at the decoder and after each upsampler, for finished pictures of `size`.
    pub(super) fn sizes(&self, size: Option<[usize; 2]>) -> Result<Vec<[usize; 2]>> {
        let Some(last) = size else {
            let count = self.stages.upsamplers.len() + 1;
            return Ok(vec![[0, 0]; count]);
        };
        let frames = self.frames()?;
        let largest = frames[frames.len() - 1].size;
        let scaled = |i: usize, frame: &unclip_core::stage::Frame| {
            let exact = last[i] * frame.size[i];
            match exact.is_multiple_of(largest[i]) {
                true => Ok(exact / largest[i]),
                false => Err(Error::setting(
                    "size",
                    format!("{} × {}", last[1], last[0]),
                    format!("multiples of {}", self.size_multiple()?),
                )),
            }
        };
        frames
            .iter()
            .map(|frame| Ok([scaled(0, frame)?, scaled(1, frame)?]))
            .collect()
    }

    /// What height and width of finished pictures have to be multiples of.
    pub(super) fn size_multiple(&self) -> Result<usize> {
        let frames = self.frames()?;
        let largest = frames[frames.len() - 1].size[0];
        let each = frames
            .iter()
            .map(|f| f.multiple * (largest / f.size[0].max(1)).max(1));
        Ok(each.max().unwrap_or(1))
    }

    /// Sizes of the decoder's and each running upsampler's pictures.
    pub(super) fn frames(&self) -> Result<Vec<unclip_core::stage::Frame>> {
        let unknown = |stage: Stage| Error::MissingStage {
            stage: format!("{stage} that says its size"),
            hint: "implement `frame` for it".into(),
        };
        let decoder = self.unclip.decoder()?.frame();
        let mut frames = vec![decoder.ok_or_else(|| unknown(Stage::Decoder))?];
        let running = self.unclip.upsamplers().take(self.stages.upsamplers.len());
        for (i, stage) in running.enumerate() {
            frames.push(stage.frame().ok_or_else(|| unknown(Stage::Upsampler(i)))?);
        }
        Ok(frames)
    }

    fn report(&mut self, stage: Stage) -> Result<()> {
        let step = Step {
            stage,
            done: 1,
            steps: 1,
        };
        report(self.watch.as_deref_mut(), step)
    }

    pub(super) fn run<'r>(&'r mut self, settings: StageSettings, given: Given) -> Run<'r> {
        let mut run = Run::new(settings.sampler, &mut self.noise);
        run.guidance = settings.guidance;
        run.is_batched = self.is_batched;
        run.latents = given.latents;
        run.canvas = given.canvas;
        run.size = given.size;
        if let Some(watch) = &mut self.watch {
            run.watch = Some(&mut **watch);
        }
        run
    }
}

/// Each row so many times, next to each other.
pub(super) fn repeat_rows(embeddings: Tensor<2>, times: usize) -> Tensor<2> {
    let [count, width] = embeddings.dims();
    embeddings
        .reshape([count, 1, width])
        .repeat_dim(1, times)
        .reshape([count * times, width])
}
