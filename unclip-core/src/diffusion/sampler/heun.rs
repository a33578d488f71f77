//! Heun's method on x₀ + σ ε (arXiv 2206.00364, algorithm 1).

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    FinalSigma, Level, Method, Sigmas, Tables, Timestep, Tools,
    sigmas::{SigmaSteps, check_falling, start_at},
};
use crate::{diffusion::Process, error::Result};

/// Settings of [`Sampler::Heun`](super::Sampler::Heun).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heun {
    /// Steps, each of two network evaluations but the last.
    pub steps: usize,
    /// The noise levels.
    pub sigmas: Sigmas,
}

impl Heun {
    /// On the sigmas of Karras and others.
    pub fn new(steps: usize) -> Self {
        Self {
            steps,
            sigmas: Sigmas::Karras,
        }
    }

    pub(super) fn method(&self, process: &Process) -> Result<HeunMethod> {
        let view = Tables::Karlo.of(process);
        let steps = self.sigmas.steps(&view, self.steps, FinalSigma::Zero);
        check_falling(&steps.sigmas[..steps.timesteps.len()])?;
        Ok(HeunMethod {
            sigmas: self.sigmas,
            levels: steps.levels(),
            steps,
        })
    }
}

pub(super) struct HeunMethod {
    sigmas: Sigmas,
    steps: SigmaSteps,
    levels: Vec<Level>,
}

impl<const D: usize> Method<D> for HeunMethod {
    fn levels(&self) -> &[Level] {
        &self.levels
    }

    fn initial_scale(&self) -> f64 {
        self.steps.initial(self.sigmas.spacing())
    }

    fn step(&mut self, index: usize, x: Tensor<D>, tools: &mut Tools<'_, D>) -> Result<Tensor<D>> {
        let (sigma, next) = (self.steps.sigmas[index], self.steps.sigmas[index + 1]);
        let mut at = Timestep {
            t: self.steps.timesteps[index],
            index,
            count: self.steps.timesteps.len(),
        };
        let start = start_at(x.clone(), sigma, at, tools)?;
        let slope = (x.clone() - start) / sigma;
        let there = x.clone() + slope.clone() * (next - sigma);
        if next == 0.0 {
            return Ok(there);
        }
        at.t = self.steps.timestep(next);
        let start = start_at(there.clone(), next, at, tools)?;
        let slope_there = (there - start) / next;
        Ok(x + (slope + slope_there) * ((next - sigma) / 2.0))
    }
}
