//! From noise to a sample: one enum of samplers, one short function each.

mod ancestral;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

pub use ancestral::{AncestralStep, Tables, unclip_timesteps};

use super::Process;
use crate::{
    error::{Error, Result},
    stage::{Run, Stage},
};

/// Which sampler, with all its settings. Goes through JSON unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Sampler {
    /// The ancestral sampler of unCLIP and Karlo on evenly spread timesteps.
    Ancestral {
        /// Network evaluations.
        steps: usize,
        /// Arithmetic of the coefficients.
        tables: Tables,
    },
}

impl Sampler {
    /// [`Sampler::Ancestral`] with diffusers' arithmetic.
    pub fn ancestral(steps: usize) -> Self {
        Self::Ancestral {
            steps,
            tables: Tables::Diffusers,
        }
    }

    /// Network evaluations.
    pub fn steps(&self) -> usize {
        match *self {
            Self::Ancestral { steps, .. } => steps,
        }
    }

    /// The same sampler with another number of steps.
    pub fn with_steps(self, steps: usize) -> Self {
        match self {
            Self::Ancestral { tables, .. } => Self::Ancestral { steps, tables },
        }
    }

    /// Checks the settings against a process of `available` timesteps.
    ///
    /// # Errors
    /// [`Error::Setting`] for 0 steps or more than there are.
    pub fn check(&self, available: usize) -> Result<()> {
        let steps = self.steps();
        if (1..=available).contains(&steps) {
            Ok(())
        } else {
            Err(Error::setting(
                "steps",
                steps,
                format!("this stage's schedule allows 1 to {available}"),
            ))
        }
    }
}

/// Where a loop stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestep {
    /// The process's timestep.
    pub t: usize,
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
    /// Predicts from `x` (f32) at a timestep; the answer is f32 too.
    ///
    /// # Errors
    /// Whatever loading a network that is not resident may give.
    fn predict(&mut self, x: Tensor<D>, at: Timestep) -> Result<Prediction<D>>;
}

/// Samples from noise `x`, by the sampler and with the noise of `run`.
///
/// # Errors
/// [`Error::Setting`] for a wrong number of steps, [`Error::Cancelled`] if `run.watch` says so,
/// and the denoiser's own.
pub fn sample<const D: usize>(
    denoiser: &mut dyn Denoiser<D>,
    x: Tensor<D>,
    process: &Process,
    stage: Stage,
    run: &mut Run<'_>,
) -> Result<Tensor<D>> {
    run.sampler.check(process.steps())?;
    match run.sampler {
        Sampler::Ancestral { steps, tables } => {
            ancestral::sample(denoiser, x, process, steps, tables, stage, run)
        }
    }
}
