//! How CLIP is trained (arXiv 2103.00020, §2.3).

use burn::{
    module::Module,
    optim::GradientsParams,
    tensor::{Device, Tensor},
};
use unclip_core::{
    error::{Error, Result},
    image::to_host,
    noise::Noise,
    train::{Captioned, Pass, Recipe, TrainSettings, accumulate, pictures, shared, stack},
};

use crate::{
    ClipImageProcessor, ClipModel, cosine_similarity, normalize, tokenizer::ClipTokenizer,
};

/// ln 100, the most that the factor on cosines may become.
const LARGEST_SCALE: f64 = 4.605_170_185_988_092;

/// Trains a [`ClipModel`] to find each caption's picture in the batch, and each picture's caption.
///
/// The loss compares all samples of a batch with each other. With several pieces or devices, all embeddings are
/// first computed without gradients, the loss's gradients with respect to them are taken, and each
/// piece is then computed again to carry them on (arXiv 2101.06983): the gradients are those of the
/// whole batch, in the memory of a piece.
#[derive(Debug)]
pub struct ClipTraining {
    tokenizer: ClipTokenizer,
    processor: ClipImageProcessor,
}

/// Tokens and pixels.
#[derive(Clone, Debug)]
pub struct ClipExample {
    ids: Vec<u32>,
    /// Tokens up to the caption's end.
    length: usize,
    pixels: Vec<f32>,
    size: [usize; 2],
}

impl ClipTraining {
    /// A recipe with the tokenizer and preprocessing of the model.
    pub fn new(tokenizer: ClipTokenizer, processor: ClipImageProcessor) -> Self {
        Self {
            tokenizer,
            processor,
        }
    }

    /// What the paper trained ViT-L/14 with: 32 epochs of 400 million pairs, 32,768 in a batch.
    pub fn paper() -> TrainSettings {
        TrainSettings {
            learning_rate: 4e-4,
            weight_decay: 0.2,
            beta2: 0.98,
            epsilon: 1e-6,
            warm_up: 2000,
            clip_norm: None,
            ema: 0.0,
            ..TrainSettings::new(390_625, 32_768)
        }
    }

    /// Embeddings of texts and pictures, `[n, d]` each.
    fn embed(
        &self,
        model: &ClipModel,
        examples: &[&ClipExample],
        device: &Device,
    ) -> Result<[Tensor<2>; 2]> {
        // Tokens are only seen by those after them: padding behind the longest caption changes nothing.
        let length = examples.iter().map(|e| e.length).max().unwrap_or(0);
        let ids = examples
            .iter()
            .flat_map(|e| e.ids[..length].iter().copied());
        let ids: Vec<u32> = ids.collect();
        let [height, width] = examples.first().map_or([0, 0], |e| e.size);
        let pixels = examples.iter().map(|e| &e.pixels[..]);
        let pixels: Tensor<4> = stack(pixels, &[3, height, width], device)?;
        Ok([
            model.text.forward(&ids, examples.len(), None)?.embedding,
            model.vision.forward(pixels)?.embedding,
        ])
    }
}

fn pieces_of<E>(share: &[E], pieces: usize) -> impl Iterator<Item = &[E]> {
    share.chunks(share.len().div_ceil(pieces.max(1)).max(1))
}

/// The loss of each pair, `[b]`: the mean over the batch is CLIP's.
fn pair_losses(text: Tensor<2>, image: Tensor<2>, logit_scale: Tensor<1>) -> Tensor<1> {
    let rows = text.dims()[0];
    let logits =
        cosine_similarity(text.clone(), image.clone()) * logit_scale.clone().exp().reshape([1, 1]);
    let own = (normalize(text) * normalize(image)).sum_dim(1) * logit_scale.exp().reshape([1, 1]);
    let total = |logits: Tensor<2>| {
        let most = logits.clone().max_dim(1).detach();
        (logits - most.clone()).exp().sum_dim(1).log() + most
    };
    let both = total(logits.clone()) + total(logits.transpose());
    (both * 0.5 - own).reshape([rows])
}

impl Recipe for ClipTraining {
    type Model = ClipModel;
    type Sample = Captioned;
    type Example = ClipExample;

    fn prepare(&self, samples: Vec<Captioned>, _: &mut Noise) -> Result<Vec<ClipExample>> {
        let captions: Vec<&str> = samples.iter().map(|s| &s.caption[..]).collect();
        let tokens = self.tokenizer.encode_batch(&captions)?;
        let length = tokens.length.max(1);
        let rows = tokens.ids.chunks(length).zip(tokens.mask.chunks(length));
        let pictures = pictures(&samples);
        let mut examples = Vec::with_capacity(samples.len());
        for (picture, (ids, mask)) in pictures.iter().zip(rows) {
            let (pixels, size) = self.processor.values(picture)?;
            examples.push(ClipExample {
                ids: ids.to_vec(),
                length: mask.iter().filter(|is_token| **is_token).count(),
                pixels,
                size,
            });
        }
        Ok(examples)
    }

    fn loss(
        &self,
        model: &ClipModel,
        examples: &[&ClipExample],
        device: &Device,
    ) -> Result<Tensor<1>> {
        let [text, image] = self.embed(model, examples, device)?;
        Ok(pair_losses(text, image, model.logit_scale()))
    }

    fn backward(
        &self,
        model: &ClipModel,
        examples: &[&ClipExample],
        pieces: usize,
        scale: f64,
        devices: &[Device],
    ) -> Result<Pass> {
        let Some(main) = devices.first() else {
            return Err(Error::setting("devices", 0, "at least 1 is needed"));
        };
        if let ([device], 0..=1) = (devices, pieces) {
            let losses = self.loss(model, examples, device)?;
            let values = to_host(losses.clone().inner(), "loss")?;
            let gradients = (losses.sum() * scale).backward();
            return Ok(Pass {
                gradients: GradientsParams::from_grads(gradients, model),
                losses: values,
            });
        }
        let main = main.clone().without_autodiff();
        let found = shared(
            &model.valid(),
            examples,
            devices,
            |model, _, share, device| {
                let device = device.clone().without_autodiff();
                let pieces = pieces_of(share, pieces);
                let found: Result<Vec<_>> = pieces.map(|p| self.embed(model, p, &device)).collect();
                let (text, image): (Vec<_>, Vec<_>) =
                    found?.into_iter().map(|[t, i]| (t, i)).unzip();
                Ok([text, image].map(|all| Tensor::cat(all, 0)))
            },
        )?;
        let (text, image): (Vec<_>, Vec<_>) = found.into_iter().map(|[t, i]| (t, i)).unzip();
        let [text, image] = [text, image].map(|all| {
            let all = all.into_iter().map(|part| part.to_device(&main)).collect();
            Tensor::from_inner(Tensor::cat(all, 0)).require_grad()
        });
        let losses = pair_losses(text.clone(), image.clone(), model.logit_scale());
        let values = to_host(losses.clone().inner(), "loss")?;
        let gradients = (losses.sum() * scale).backward();
        let (Some(of_text), Some(of_image)) = (text.grad(&gradients), image.grad(&gradients))
        else {
            let expected = "embeddings that the loss depends on";
            return Err(Error::setting("embeddings", "no gradient", expected));
        };
        let mut passes = vec![Pass {
            gradients: GradientsParams::from_grads(gradients, model),
            losses: values,
        }];
        passes.extend(shared(
            model,
            examples,
            devices,
            |model, first, share, device| {
                let plain = device.clone().without_autodiff();
                let (mut pass, mut at) = (Pass::default(), first);
                for piece in pieces_of(share, pieces) {
                    let carried = |gradient: &Tensor<2>| {
                        let rows = gradient.clone().narrow(0, at, piece.len());
                        Tensor::from_inner(rows.to_device(&plain))
                    };
                    let [text, image] = self.embed(model, piece, device)?;
                    let surrogate =
                        (text * carried(&of_text)).sum() + (image * carried(&of_image)).sum();
                    let gradients = GradientsParams::from_grads(surrogate.backward(), model);
                    pass.gradients = accumulate(model, pass.gradients, gradients);
                    at += piece.len();
                }
                Ok(pass)
            },
        )?);
        Ok(Pass::sum(model, passes, devices))
    }

    fn constrained(&self, mut model: ClipModel) -> ClipModel {
        model.logit_scale = model.logit_scale.map(|scale| {
            let is_tracked = scale.is_require_grad();
            let scale = scale.inner().clamp(0.0, LARGEST_SCALE);
            let scale = Tensor::from_inner(scale);
            if is_tracked {
                scale.require_grad()
            } else {
                scale
            }
        });
        model
    }
}
