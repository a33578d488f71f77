//! Every stage's recipe: what it learns, its gradients, and that what it writes can be read.

#![cfg(feature = "train")]
#![allow(missing_docs, missing_debug_implementations, unreachable_pub)]

mod clip;
#[path = "../../unclip-core/tests/compare/mod.rs"]
#[allow(dead_code)] // Of what tests share, this one takes some.
mod compare;
mod data;
mod decoder;
mod prior;
mod saving;
mod upsampler;

use std::{ops::ControlFlow, sync::Arc};

use unclip::{
    Result, TextEncoder,
    burn::{
        module::{Module, ModuleMapper, ModuleVisitor, Param},
        optim::GradientsParams,
        tensor::{Bool, Device, Tensor, TensorData},
    },
    core::{
        noise::Noise,
        stage::TextEncoding,
        train::{Captioned, LogRow, Recipe, Samples, TrainSettings, Trainer, read_log},
    },
    image::{Rgb, RgbImage},
};

/// Samples that are all in memory.
pub struct Held<T>(pub Vec<T>);

impl<T: Clone + Send + Sync + 'static> Samples for Held<T> {
    type Item = T;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, index: usize, _: u64) -> Result<T> {
        Ok(self.0[index].clone())
    }
}

/// Captions as what their letters say: an embedding and tokens that differ for any two.
pub struct Letters {
    pub width: usize,
    pub tokens: usize,
}

impl TextEncoder for Letters {
    fn encode_text(&self, texts: &[&str]) -> Result<TextEncoding> {
        let device = Device::flex();
        let wave = |text: &str, i: usize| {
            let sum: usize = text
                .bytes()
                .enumerate()
                .map(|(at, b)| (at + 3) * b as usize)
                .sum();
            ((sum * (i + 1)) as f32 * 0.37).sin()
        };
        let row = |count: usize| -> Vec<f32> {
            let values = texts.iter().flat_map(|t| (0..count).map(|i| wave(t, i)));
            values.collect()
        };
        let embedding = TensorData::new(row(self.width), [texts.len(), self.width]);
        let shape = [texts.len(), self.tokens, self.width];
        let tokens = TensorData::new(row(self.tokens * self.width), shape);
        Ok(TextEncoding {
            embedding: Tensor::from_data(embedding, &device),
            tokens: Tensor::from_data(tokens, &device),
            mask: Tensor::<2, Bool>::ones([texts.len(), self.tokens], &device),
        })
    }
}

/// Discs of different colour and place, with captions.
pub fn discs(count: usize, side: u32) -> Vec<Captioned> {
    let disc = |i: usize| {
        let centre = [(i * 7 % 5 + 2) as f32 / 8.0, (i * 3 % 4 + 2) as f32 / 7.0];
        let colour = [
            (i * 97 % 256) as u8,
            (i * 59 % 256) as u8,
            (i * 151 % 256) as u8,
        ];
        RgbImage::from_fn(side, side, |x, y| {
            let at = [x, y].map(|v| v as f32 / side as f32);
            let apart = (at[0] - centre[0]).hypot(at[1] - centre[1]);
            Rgb(if apart < 0.3 { colour } else { [200, 190, 180] })
        })
    };
    (0..count)
        .map(|i| Captioned {
            picture: disc(i),
            caption: format!("disc number {i}"),
        })
        .collect()
}

/// Trains for some steps and gives back the trainer with its record.
pub fn train<R: Recipe<Sample: Clone + Sync>>(
    recipe: R,
    model: R::Model,
    samples: Vec<R::Sample>,
    settings: TrainSettings,
) -> (Trainer<R>, Vec<LogRow>) {
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = Trainer::new(recipe, model, settings, &[Device::flex()]).unwrap();
    trainer
        .run(Arc::new(Held(samples)), folder.path(), |_, _| {
            ControlFlow::Continue(())
        })
        .unwrap();
    let rows = read_log(&folder.path().join("log.csv")).unwrap();
    (trainer, rows)
}

/// Losses and weights after some steps on each device that is to be tested, without and with recorded steps,
/// which must be the same.
///
/// # Panics
/// If they are not, or if a GPU has recorded nothing.
pub fn check_recording<R: Recipe<Sample: Clone + Sync>>(
    recipe: impl Fn() -> R,
    model: &R::Model,
    samples: &[R::Sample],
    settings: &TrainSettings,
) {
    for (name, device) in compare::devices() {
        let found = [false, true].map(|records| {
            let folder = tempfile::tempdir().unwrap();
            let (model, settings) = (model.clone(), settings.clone());
            let mut trainer =
                Trainer::new(recipe(), model, settings, std::slice::from_ref(&device)).unwrap();
            if records {
                trainer = trainer.with_recorded_steps();
            }
            let (mut losses, mut recorded) = (Vec::new(), 0);
            let samples = Arc::new(Held(samples.to_vec()));
            trainer
                .run(samples, folder.path(), |_, progress| {
                    losses.push((progress.row.loss, progress.row.gradient_norm));
                    recorded += usize::from(progress.is_recorded);
                    ControlFlow::Continue(())
                })
                .unwrap();
            let records = records && (name == "wgpu" || name == "cuda");
            assert_eq!(recorded > losses.len() / 2, records, "{name}: {recorded}");
            let mut weights = Weights::default();
            trainer.averaged().visit(&mut weights);
            trainer.model().visit(&mut weights);
            (losses, weights.0)
        });
        assert_eq!(found[0].0, found[1].0, "{name}");
        assert!(found[0].1 == found[1].1, "{name}: other weights");
    }
}

#[derive(Default)]
struct Weights(Vec<f32>);

impl ModuleVisitor for Weights {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let values = param.val().inner().into_data().try_to_vec::<f32>();
        self.0.extend(values.unwrap());
    }
}

pub fn mean_loss(rows: &[LogRow]) -> f64 {
    rows.iter().map(|r| r.loss).sum::<f64>() / rows.len() as f64
}

/// Holds a recipe's gradients against differences of its loss along random directions.
///
/// # Panics
/// If they differ by more than 2 %.
pub fn check_gradients<R: Recipe>(recipe: R, model: R::Model, samples: Vec<R::Sample>) {
    let device = Device::flex().autodiff();
    let model = model.to_device(&device).train();
    let examples = recipe.prepare(samples, &mut Noise::from_seed(4)).unwrap();
    let examples: Vec<&R::Example> = examples.iter().collect();
    let scale = 1.0 / examples.len() as f64;
    let pass = recipe
        .backward(&model, &examples, 1, scale, std::slice::from_ref(&device))
        .unwrap();
    let loss = |model: &R::Model| -> f64 {
        let losses = recipe.loss(model, &examples, &device).unwrap().inner();
        let losses = losses.into_data().try_to_vec::<f32>().unwrap();
        losses.iter().map(|l| f64::from(*l)).sum::<f64>() * scale
    };
    for seed in 0..3 {
        let mut slope = Slope {
            noise: Noise::from_seed(seed),
            gradients: &pass.gradients,
            along: 0.0,
            square: 0.0,
        };
        model.visit(&mut slope);
        let length = slope.square.sqrt();
        // Far enough for f32, near enough for a straight line.
        let step = 1e-3;
        let at = |sign: f64| {
            loss(&model.clone().map(&mut Shift {
                noise: Noise::from_seed(seed),
                gradients: &pass.gradients,
                step: sign * step / length,
            }))
        };
        let found = (at(1.0) - at(-1.0)) / (2.0 * step);
        let expected = slope.along / length;
        assert!((found / expected - 1.0).abs() < 0.02, "{found} {expected}");
    }
}

/// A direction in which the loss rises: the gradient with each component scaled at random.
fn direction<const D: usize>(noise: &mut Noise, gradient: Tensor<D>) -> (Vec<f32>, Vec<f32>) {
    let gradient = gradient.into_data().try_to_vec::<f32>().unwrap();
    let factors = noise.uniform_vec(gradient.len());
    let along = gradient.iter().zip(factors).map(|(g, u)| g * 2.0 * u);
    (along.collect(), gradient)
}

struct Slope<'a> {
    noise: Noise,
    gradients: &'a GradientsParams,
    along: f64,
    square: f64,
}

impl ModuleVisitor for Slope<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            let (along, gradient) = direction(&mut self.noise, gradient);
            let pairs = gradient.iter().zip(&along);
            self.along += pairs.map(|(g, a)| f64::from(g * a)).sum::<f64>();
            self.square += along.iter().map(|a| f64::from(a * a)).sum::<f64>();
        }
    }
}

struct Shift<'a> {
    noise: Noise,
    gradients: &'a GradientsParams,
    step: f64,
}

impl ModuleMapper for Shift<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(gradient) = self.gradients.get::<D>(param.id) else {
            return param;
        };
        let (along, _) = direction(&mut self.noise, gradient);
        let step = self.step;
        param.map(|tensor| {
            let along = TensorData::new(along, tensor.dims());
            let along = Tensor::<D>::from_data(along, &tensor.device());
            tensor + along * step
        })
    }
}
