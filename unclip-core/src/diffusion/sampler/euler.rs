//! Euler's method on x₀ + σ ε (arXiv 2206.00364, algorithm 2).

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    FinalSigma, Level, Method, Sigmas, Spacing, Tables, Timestep, Tools,
    sigmas::{SigmaSteps, ask, check_falling, start_at, start_from},
};
use crate::{
    diffusion::Process,
    error::{Error, Result},
};

/// Settings of [`Sampler::Euler`](super::Sampler::Euler).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Euler {
    /// Network evaluations.
    pub steps: usize,
    /// The noise levels.
    pub sigmas: Sigmas,
    /// Where the last step ends.
    pub end: FinalSigma,
    /// Noise added before steps; none by default.
    pub churn: Option<Churn>,
    /// Arithmetic of the levels. [`Tables::Diffusers`] also asks the network before churn adds its
    /// noise; the paper asks after.
    pub tables: Tables,
}

/// Noise added before a step, to be taken away by it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Churn {
    /// Over all steps (S_churn).
    pub amount: f64,
    /// Only where σ is at least this (S_tmin).
    pub min: f64,
    /// Only where σ is at most this (S_tmax).
    pub max: f64,
    /// Scale of the noise (S_noise).
    pub noise: f64,
}

impl Euler {
    /// On the sigmas of Karras and others, deterministic.
    pub fn new(steps: usize) -> Self {
        Self {
            steps,
            sigmas: Sigmas::Karras,
            end: FinalSigma::Zero,
            churn: None,
            tables: Tables::Karlo,
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let Some(churn) = self.churn else {
            return Ok(());
        };
        for (name, value) in [("churn amount", churn.amount), ("churn noise", churn.noise)] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(Error::setting(name, value, "a number of at least 0"));
            }
        }
        Ok(())
    }

    pub(super) fn method(&self, process: &Process) -> Result<EulerMethod> {
        let steps = self
            .sigmas
            .steps(&self.tables.of(process), self.steps, self.end);
        check_falling(&steps.sigmas[..steps.timesteps.len()])?;
        Ok(EulerMethod {
            settings: *self,
            levels: steps.levels(),
            steps,
        })
    }
}

pub(super) struct EulerMethod {
    settings: Euler,
    steps: SigmaSteps,
    levels: Vec<Level>,
}

impl EulerMethod {
    /// How much larger σ gets before the step.
    fn churned(&self, sigma: f64) -> (f64, f64) {
        match self.settings.churn {
            Some(churn) if (churn.min..=churn.max).contains(&sigma) => {
                let steps = (self.steps.sigmas.len() - 1) as f64;
                let gamma = (churn.amount / steps).min(std::f64::consts::SQRT_2 - 1.0);
                (sigma * (1.0 + gamma), churn.noise)
            }
            _ => (sigma, 0.0),
        }
    }
}

impl<const D: usize> Method<D> for EulerMethod {
    fn levels(&self) -> &[Level] {
        &self.levels
    }

    fn initial_scale(&self) -> f64 {
        self.steps.initial(self.settings.sigmas.spacing())
    }

    fn step(&mut self, index: usize, x: Tensor<D>, tools: &mut Tools<'_, D>) -> Result<Tensor<D>> {
        let sigma = self.steps.sigmas[index];
        let next = self.steps.sigmas[index + 1];
        let mut at = Timestep {
            t: self.steps.timesteps[index],
            index,
            count: self.steps.timesteps.len(),
        };
        let (raised, scale) = self.churned(sigma);
        let (x, start) = if raised > sigma {
            let noise = tools.noise.normal(x.dims(), &x.device())?;
            let noisier = x.clone() + noise * (scale * (raised * raised - sigma * sigma).sqrt());
            let start = match self.settings.tables {
                Tables::Diffusers => {
                    let answer = ask(x, sigma, at, tools)?;
                    start_from(tools.process, noisier.clone(), answer, raised)
                }
                Tables::Karlo => {
                    at.t = self.steps.timestep(raised);
                    start_at(noisier.clone(), raised, at, tools)?
                }
            };
            (noisier, start)
        } else {
            let start = start_at(x.clone(), sigma, at, tools)?;
            (x, start)
        };
        let slope = (x.clone() - start) / raised;
        Ok(x + slope * self.settings.tables.round(next - raised))
    }
}

/// For configurations that give a spacing and a kind of levels.
impl From<Spacing> for Sigmas {
    fn from(spacing: Spacing) -> Self {
        Self::Timesteps(spacing)
    }
}
