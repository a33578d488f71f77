//! From noise to a sample: one enum of samplers, one short file each.

mod ancestral;
mod ddim;
mod ddpm;
mod dpm_solver;
mod euler;
mod heun;
mod inversion;
mod sampling;
mod sigmas;
mod spacing;
mod tables;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

pub use ancestral::{Ancestral, AncestralStep, unclip_timesteps};
pub use ddim::Ddim;
pub use ddpm::Ddpm;
pub use dpm_solver::{Algorithm, Correction, DpmSolver};
pub use euler::{Churn, Euler};
pub use heun::Heun;
pub use inversion::invert;
pub use sampling::sample;
pub use sigmas::{FinalSigma, Sigmas};
pub use spacing::Spacing;
pub use tables::Tables;

use super::Process;
use crate::{
    error::{Error, Result},
    noise::Noise,
};

/// Which sampler, with all its settings. Goes through JSON unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Sampler {
    /// The ancestral sampler of unCLIP and Karlo (diffusers' `UnCLIPScheduler`).
    Ancestral(Ancestral),
    /// DDPM, strided or full (arXiv 2006.11239), also with analytic variance.
    Ddpm(Ddpm),
    /// DDIM (arXiv 2010.02502), from deterministic to ancestral by η.
    Ddim(Ddim),
    /// DPM-Solver and DPM-Solver++, multistep of order 1 to 3 (arXiv 2206.00927, 2211.01095).
    DpmSolver(DpmSolver),
    /// Euler on x₀ + σ ε (arXiv 2206.00364).
    Euler(Euler),
    /// Heun on x₀ + σ ε: two network evaluations a step (arXiv 2206.00364).
    Heun(Heun),
}

impl Sampler {
    /// [`Sampler::Ancestral`] with diffusers' arithmetic.
    pub fn ancestral(steps: usize) -> Self {
        Self::Ancestral(Ancestral {
            steps,
            tables: Tables::Diffusers,
        })
    }

    /// [`Sampler::Ddpm`] on evenly spread timesteps.
    pub fn ddpm(steps: usize) -> Self {
        Self::Ddpm(Ddpm::new(steps))
    }

    /// [`Sampler::Ddim`]: the same noise is the same picture at η = 0, an ancestral sampler at 1.
    pub fn ddim(steps: usize, eta: f64) -> Self {
        Self::Ddim(Ddim {
            eta,
            ..Ddim::new(steps)
        })
    }

    /// [`Sampler::DpmSolver`]: DPM-Solver++ of the given order.
    pub fn dpm_solver(steps: usize, order: usize) -> Self {
        Self::DpmSolver(DpmSolver {
            order,
            ..DpmSolver::new(steps)
        })
    }

    /// [`Sampler::Euler`] on the sigmas of Karras and others.
    pub fn euler(steps: usize) -> Self {
        Self::Euler(Euler::new(steps))
    }

    /// [`Sampler::Heun`] on the sigmas of Karras and others.
    pub fn heun(steps: usize) -> Self {
        Self::Heun(Heun::new(steps))
    }

    /// Steps; only [`Sampler::Heun`] evaluates the network more than once in one.
    pub fn steps(&self) -> usize {
        match self {
            Self::Ancestral(s) => s.steps,
            Self::Ddpm(s) => s.steps,
            Self::Ddim(s) => s.steps,
            Self::DpmSolver(s) => s.steps,
            Self::Euler(s) => s.steps,
            Self::Heun(s) => s.steps,
        }
    }

    /// The same sampler with another number of steps.
    pub fn with_steps(mut self, steps: usize) -> Self {
        match &mut self {
            Self::Ancestral(s) => s.steps = steps,
            Self::Ddpm(s) => s.steps = steps,
            Self::Ddim(s) => s.steps = steps,
            Self::DpmSolver(s) => s.steps = steps,
            Self::Euler(s) => s.steps = steps,
            Self::Heun(s) => s.steps = steps,
        }
        self
    }

    /// Checks the settings against a process of `available` timesteps.
    ///
    /// # Errors
    /// [`Error::Setting`] for 0 steps or more than there are, or a setting out of range.
    pub fn check(&self, available: usize) -> Result<()> {
        let steps = self.steps();
        if !(1..=available).contains(&steps) {
            return Err(Error::setting(
                "steps",
                steps,
                format!("this stage's schedule allows 1 to {available}"),
            ));
        }
        match self {
            Self::Ancestral(_) | Self::Ddpm(_) | Self::Heun(_) => Ok(()),
            Self::Ddim(s) => s.check(),
            Self::DpmSolver(s) => s.check(),
            Self::Euler(s) => s.check(),
        }
    }

    fn method<const D: usize>(&self, process: &Process) -> Result<Box<dyn Method<D>>> {
        Ok(match self {
            Self::Ancestral(s) => Box::new(s.method(process)),
            Self::Ddpm(s) => Box::new(s.method(process)),
            Self::Ddim(s) => Box::new(s.method(process)),
            Self::DpmSolver(s) => Box::new(s.method::<D>(process)?),
            Self::Euler(s) => Box::new(s.method(process)?),
            Self::Heun(s) => Box::new(s.method(process)?),
        })
    }
}

/// Where a loop stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timestep {
    /// The process's timestep; between two of them for samplers that choose noise levels.
    pub t: f64,
    /// Steps done before this one.
    pub index: usize,
    /// Steps in all.
    pub count: usize,
}

impl Timestep {
    /// Whether no step follows.
    pub fn is_last(self) -> bool {
        self.index + 1 == self.count
    }
}

/// What a network says about a noisy sample.
#[derive(Debug)]
pub struct Prediction<const D: usize> {
    /// The process's [`Target`](super::Target), after guidance.
    pub target: Tensor<D>,
    /// For learned variances: the network's variance channels.
    pub variance: Option<Tensor<D>>,
}

/// A network with its conditions, as samplers see it.
pub trait Denoiser<const D: usize> {
    /// Predicts from `x` = √ᾱ x₀ + √(1−ᾱ) ε (f32) at a timestep; the answer is f32 too.
    ///
    /// # Errors
    /// Whatever loading a network that is not resident may give.
    fn predict(&mut self, x: Tensor<D>, at: Timestep) -> Result<Prediction<D>>;
}

/// A point on the way from noise to a sample: x = signal · x₀ + sigma · ε.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Level {
    pub signal: f64,
    pub sigma: f64,
}

impl Level {
    /// x₀ itself.
    const CLEAN: Self = Self {
        signal: 1.0,
        sigma: 0.0,
    };
}

/// What a step may use.
struct Tools<'a, const D: usize> {
    denoiser: &'a mut dyn Denoiser<D>,
    process: &'a Process,
    noise: &'a mut Noise,
}

/// A sampler set up for a process.
trait Method<const D: usize> {
    /// One more than there are steps, from the noisiest on.
    fn levels(&self) -> &[Level];

    /// What unit noise is multiplied by to be x_T.
    fn initial_scale(&self) -> f64 {
        1.0
    }

    /// From level `index` to the next.
    fn step(&mut self, index: usize, x: Tensor<D>, tools: &mut Tools<'_, D>) -> Result<Tensor<D>>;

    /// Forgets steps made before, because x was changed from outside.
    fn forget(&mut self) {}
}
