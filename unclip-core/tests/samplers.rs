//! Every sampler on a process whose exact denoiser is known, and canvases on every sampler.
#![allow(missing_docs)]

use burn::tensor::{Bool, Device, Tensor, TensorData};
use unclip_core::{
    diffusion::{
        BetaSchedule, Denoiser, Prediction, Process, Sampler, Target, Timestep, Variance, sample,
        sampler::{Ddim, Ddpm, DpmSolver, Spacing},
    },
    error::{Error, Result},
    noise::Noise,
    stage::{Canvas, Run, Stage},
};

const DEVIATION: f64 = 0.5;

/// The exact denoiser of pictures whose pixels are normal with mean 0.2 and deviation 0.5.
struct Gaussian(Process);

impl Denoiser<4> for Gaussian {
    fn predict(&mut self, x: Tensor<4>, at: Timestep) -> Result<Prediction<4>> {
        let (low, share) = (at.t.floor() as usize, at.t.fract());
        let bars = self.0.alpha_bars();
        let high = (low + 1).min(bars.len() - 1);
        // Between timesteps the levels lie evenly in ln σ, as samplers take them.
        let log = |bar: f64| ((1.0 - bar) / bar).ln() / 2.0;
        let sigma = (log(bars[low]) * (1.0 - share) + log(bars[high]) * share).exp();
        let (signal, rest) = (1.0 / sigma.hypot(1.0), sigma / sigma.hypot(1.0));
        let variance = DEVIATION.powi(2);
        let total = signal * signal * variance + rest * rest;
        let off = x.clone() - 0.2 * signal;
        let start = off * (signal * variance / total) + 0.2;
        Ok(Prediction {
            target: (x - start * signal) / rest,
            variance: None,
        })
    }
}

fn process() -> Process {
    let schedule = BetaSchedule::Linear {
        start: 1e-4,
        end: 0.02,
    };
    Process::new(schedule, 1000, Target::Epsilon, Variance::FixedSmall)
}

fn run_once(sampler: Sampler, canvas: Option<Canvas>, seed: u64, rows: usize) -> Result<Tensor<4>> {
    let mut noise = Noise::from_seed(seed);
    let start = noise.normal([rows, 3, 8, 8], &Device::flex())?;
    let mut run = Run::new(sampler, &mut noise);
    run.canvas = canvas;
    let process = process();
    sample(
        &mut Gaussian(process.clone()),
        start,
        &process,
        Stage::Decoder,
        &mut run,
    )
}

fn values(x: Tensor<4>) -> Vec<f32> {
    x.into_data().try_to_vec().unwrap()
}

fn samplers(steps: usize) -> Vec<Sampler> {
    vec![
        Sampler::ancestral(steps),
        Sampler::ddpm(steps),
        Sampler::Ddpm(Ddpm {
            is_analytic: true,
            ..Ddpm::new(steps)
        }),
        Sampler::ddim(steps, 0.0),
        Sampler::ddim(steps, 1.0),
        Sampler::dpm_solver(steps, 1),
        Sampler::dpm_solver(steps, 2),
        Sampler::dpm_solver(steps, 3),
        Sampler::euler(steps),
        Sampler::heun(steps),
    ]
}

#[test]
fn every_sampler_finds_the_distribution() {
    for sampler in samplers(100) {
        let found = values(run_once(sampler, None, 1, 40).unwrap());
        let count = found.len() as f64;
        let mean = found.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
        let square = |v: &f32| (f64::from(*v) - mean).powi(2);
        let deviation = (found.iter().map(square).sum::<f64>() / count).sqrt();
        assert!((mean - 0.2).abs() < 0.03, "{sampler:?}: mean {mean}");
        let ratio = deviation / DEVIATION;
        assert!(
            (0.93..1.07).contains(&ratio),
            "{sampler:?}: deviation {deviation}"
        );
    }
}

#[test]
fn higher_order_is_closer_with_the_same_steps() {
    // The exact flow maps x_T to mean + deviation · x_T, nearly.
    let error = |sampler| {
        let start = Noise::from_seed(1)
            .normal([4, 3, 8, 8], &Device::flex())
            .unwrap();
        let found = run_once(sampler, None, 1, 4).unwrap();
        (found - (start * DEVIATION + 0.2))
            .abs()
            .mean()
            .into_scalar::<f32>()
    };
    let [first, second, third] = [1, 2, 3].map(|order| error(Sampler::dpm_solver(20, order)));
    assert!(second < first && third < first, "{first} {second} {third}");
    // Twice the steps: half the error of first order, a quarter of second.
    let [few, many] = [25, 50].map(|steps| error(Sampler::euler(steps)));
    assert!((1.6..2.6).contains(&(few / many)), "{few} {many}");
    let [few, many] = [25, 50].map(|steps| error(Sampler::heun(steps)));
    assert!(few / many > 3.2, "{few} {many}");
}

#[test]
fn the_same_noise_gives_the_same_and_rows_are_alone() {
    for sampler in samplers(8) {
        let both = values(run_once(sampler, None, 3, 2).unwrap());
        assert_eq!(
            both,
            values(run_once(sampler, None, 3, 2).unwrap()),
            "{sampler:?}"
        );
    }
    // Deterministic samplers: a batch is its rows.
    for sampler in [Sampler::ddim(8, 0.0), Sampler::euler(8), Sampler::heun(8)] {
        let process = process();
        let start: Tensor<4> = Noise::from_seed(3)
            .normal([2, 3, 8, 8], &Device::flex())
            .unwrap();
        let sample_of = |x: Tensor<4>| {
            let mut noise = Noise::from_seed(0);
            let mut run = Run::new(sampler, &mut noise);
            let mut network = Gaussian(process.clone());
            values(sample(&mut network, x, &process, Stage::Decoder, &mut run).unwrap())
        };
        let rows = [0, 1]
            .map(|row| sample_of(start.clone().narrow(0, row, 1)))
            .concat();
        assert_eq!(sample_of(start), rows, "{sampler:?}");
    }
}

fn half_free() -> (Canvas, Vec<bool>) {
    let device = Device::flex();
    let free: Vec<bool> = (0..64).map(|i| i % 8 >= 4).collect();
    let pixels = Noise::from_seed(9).normal([1, 3, 8, 8], &device).unwrap() * 0.3;
    let canvas = Canvas {
        repaint: Some(Tensor::<4, Bool>::from_data(
            TensorData::new(free.clone(), [1, 1, 8, 8]),
            &device,
        )),
        ..Canvas::new(pixels)
    };
    (canvas, free)
}

#[test]
fn kept_pixels_come_out_unchanged_with_every_sampler() {
    let (canvas, free) = half_free();
    let given = values(canvas.pixels.clone());
    for sampler in samplers(6) {
        for rounds in [1, 3] {
            let canvas = Canvas {
                rounds,
                ..canvas.clone()
            };
            let found = values(run_once(sampler, Some(canvas), 4, 2).unwrap());
            let mut moved = 0;
            for (i, value) in found.iter().enumerate() {
                assert!(value.is_finite(), "{sampler:?}");
                if free[i % 64] {
                    moved += usize::from(*value != given[i % given.len()]);
                } else {
                    assert_eq!(*value, given[i % given.len()], "{sampler:?}");
                }
            }
            assert_eq!(moved, found.len() / 2, "{sampler:?}");
        }
    }
}

#[test]
fn little_strength_stays_close() {
    let device = Device::flex();
    let pixels = Noise::from_seed(9).normal([1, 3, 8, 8], &device).unwrap() * DEVIATION + 0.2;
    for sampler in samplers(20) {
        let distance = |strength| {
            let canvas = Canvas {
                strength,
                ..Canvas::new(pixels.clone())
            };
            let found = run_once(sampler, Some(canvas), 5, 1).unwrap();
            (found - pixels.clone()).abs().mean().into_scalar::<f32>()
        };
        let (near, far) = (distance(0.1), distance(0.9));
        assert!(near < far / 2.0, "{sampler:?}: {near} {far}");
    }
}

#[test]
fn wrong_settings_are_named() {
    let wrong = [
        Sampler::ddim(10, -0.5),
        Sampler::ddim(10, f64::NAN),
        Sampler::dpm_solver(10, 0),
        Sampler::dpm_solver(10, 4),
        Sampler::ancestral(0),
        Sampler::euler(1001),
        Sampler::DpmSolver(DpmSolver {
            sigmas: unclip_core::diffusion::sampler::Sigmas::Timesteps(Spacing::Leading {
                offset: 0,
            }),
            ..DpmSolver::new(1000)
        }),
    ];
    for sampler in wrong {
        let error = run_once(sampler, None, 0, 1).unwrap_err();
        assert!(
            matches!(error, Error::Setting { .. }),
            "{sampler:?}: {error}"
        );
    }
    let (canvas, _) = half_free();
    for (strength, rounds) in [(0.0, 1), (1.5, 1), (f64::NAN, 1), (1.0, 0)] {
        let canvas = Canvas {
            strength,
            rounds,
            ..canvas.clone()
        };
        let error = run_once(Sampler::ancestral(3), Some(canvas), 0, 1).unwrap_err();
        assert!(matches!(error, Error::Setting { .. }), "{error}");
    }
    let small = Canvas::new(Tensor::zeros([1, 3, 4, 8], &Device::flex()));
    let error = run_once(Sampler::ancestral(3), Some(small), 0, 1).unwrap_err();
    assert!(matches!(error, Error::Shape { .. }), "{error}");
}

#[test]
fn settings_go_through_json() {
    for sampler in samplers(7).into_iter().chain([Sampler::Ddim(Ddim {
        spacing: Spacing::Trailing,
        is_clipped: false,
        ..Ddim::new(3)
    })]) {
        let json = serde_json::to_string(&sampler).unwrap();
        assert_eq!(serde_json::from_str::<Sampler>(&json).unwrap(), sampler);
        assert_eq!(sampler.with_steps(9).steps(), 9);
    }
}
