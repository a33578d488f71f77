//! Noise levels for samplers that choose them: x = x₀ + σ ε.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    Level, Prediction, Spacing, Timestep, Tools, spacing::linspace, tables::ProcessTables,
};
use crate::{
    diffusion::{Process, Target},
    error::{Error, Result},
};

/// How σ falls from step to step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sigmas {
    /// σ of the process's timesteps at this spacing.
    Timesteps(Spacing),
    /// Evenly in σ^(1/7) between the process's ends (Karras and others, arXiv 2206.00364).
    Karras,
    /// Evenly in ln σ between the process's ends.
    Exponential,
    /// Evenly in ln σ with one value more than steps, so that the last step ends at the smallest.
    LogLinear,
}

/// What the last step ends at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FinalSigma {
    /// x₀.
    #[default]
    Zero,
    /// σ of the process's first timestep.
    Smallest,
}

/// σ and the network's timestep for each step, and the σ after the last.
#[derive(Clone, Debug)]
pub(super) struct SigmaSteps {
    pub timesteps: Vec<f64>,
    /// At least one more than `timesteps`.
    pub sigmas: Vec<f64>,
    log_sigmas: Vec<f64>,
}

impl Sigmas {
    /// Spacing of the timesteps; even where σ does not come from them.
    pub(super) fn spacing(self) -> Spacing {
        match self {
            Self::Timesteps(spacing) => spacing,
            _ => Spacing::Linspace,
        }
    }

    /// For Euler and Heun: timesteps need not be whole.
    pub(super) fn steps(self, view: &ProcessTables, steps: usize, end: FinalSigma) -> SigmaSteps {
        let all = view.sigmas();
        let log_sigmas: Vec<f64> = all.iter().map(|s| view.round(s.ln())).collect();
        let (smallest, largest) = (all[0], all[all.len() - 1]);
        let timesteps: Vec<f64> = match self.spacing() {
            Spacing::Linspace => {
                let mut even = linspace(0.0, (all.len() - 1) as f64, steps);
                even.reverse();
                even.into_iter().map(|t| view.round(t)).collect()
            }
            spacing => spacing.timesteps(all.len(), steps),
        };
        let (timesteps, mut sigmas) = match self {
            Self::Timesteps(_) => {
                let sigmas = timesteps.iter().map(|t| interpolate(&all, *t)).collect();
                (timesteps, sigmas)
            }
            Self::Karras | Self::Exponential => {
                let sigmas = self.between(largest, smallest, steps);
                let timestep = |sigma: &f64| timestep_of(*sigma, &log_sigmas);
                (sigmas.iter().map(timestep).collect(), sigmas)
            }
            Self::LogLinear => (timesteps, self.between(largest, smallest, steps + 1)),
        };
        sigmas.push(match end {
            FinalSigma::Zero => 0.0,
            FinalSigma::Smallest => smallest,
        });
        SigmaSteps {
            timesteps: timesteps.iter().map(|t| view.round(*t)).collect(),
            sigmas: sigmas.iter().map(|s| view.round(*s)).collect(),
            log_sigmas,
        }
    }

    /// `count` levels from `largest` to `smallest`.
    pub(super) fn between(self, largest: f64, smallest: f64, count: usize) -> Vec<f64> {
        const RHO: f64 = 7.0;
        match self {
            Self::Karras => {
                let ends = (largest.powf(1.0 / RHO), smallest.powf(1.0 / RHO));
                let even = linspace(0.0, 1.0, count);
                even.into_iter()
                    .map(|share| (ends.0 + share * (ends.1 - ends.0)).powf(RHO))
                    .collect()
            }
            _ => linspace(largest.ln(), smallest.ln(), count)
                .into_iter()
                .map(f64::exp)
                .collect(),
        }
    }
}

impl SigmaSteps {
    /// Every σ as a level, for the steps that are made.
    pub(super) fn levels(&self) -> Vec<Level> {
        self.sigmas[..=self.timesteps.len()]
            .iter()
            .map(|sigma| Level {
                signal: 1.0,
                sigma: *sigma,
            })
            .collect()
    }

    /// σ of the noise a sample starts as (diffusers' `init_noise_sigma`).
    pub(super) fn initial(&self, spacing: Spacing) -> f64 {
        let largest = self.sigmas.iter().copied().fold(0.0, f64::max);
        match spacing {
            Spacing::Leading { .. } => largest.hypot(1.0),
            _ => largest,
        }
    }

    /// The timestep at which the process has noise `sigma`.
    pub(super) fn timestep(&self, sigma: f64) -> f64 {
        timestep_of(sigma, &self.log_sigmas)
    }
}

/// Predicted x₀ of `x` = x₀ + σ ε, where the network is asked at its own scale.
pub(super) fn start_at<const D: usize>(
    x: Tensor<D>,
    sigma: f64,
    at: Timestep,
    tools: &mut Tools<'_, D>,
) -> Result<Tensor<D>> {
    let prediction = ask(x.clone(), sigma, at, tools)?;
    Ok(start_from(tools.process, x, prediction, sigma))
}

/// The network's answer for `x` = x₀ + σ ε.
pub(super) fn ask<const D: usize>(
    x: Tensor<D>,
    sigma: f64,
    at: Timestep,
    tools: &mut Tools<'_, D>,
) -> Result<Prediction<D>> {
    tools.denoiser.predict(x / sigma.hypot(1.0), at)
}

/// Predicted x₀ from the answer.
pub(super) fn start_from<const D: usize>(
    process: &Process,
    x: Tensor<D>,
    prediction: Prediction<D>,
    sigma: f64,
) -> Tensor<D> {
    let start = match process.target {
        // Without the detour over the network's scale: fewer roundings at large σ.
        Target::Epsilon => x - prediction.target * sigma,
        _ => {
            let scale = sigma.hypot(1.0);
            process.start_of(x / scale, prediction.target, 1.0 / scale, sigma / scale)
        }
    };
    match process.clip {
        Some(clip) => clip.apply(start),
        None => start,
    }
}

/// `values` at a place between its entries.
fn interpolate(values: &[f64], at: f64) -> f64 {
    let low = (at.max(0.0) as usize).min(values.len() - 1);
    let high = (low + 1).min(values.len() - 1);
    values[low] + (values[high] - values[low]) * (at - low as f64)
}

/// The place in ascending `log_sigmas` of ln `sigma`.
pub(super) fn timestep_of(sigma: f64, log_sigmas: &[f64]) -> f64 {
    let log = sigma.max(1e-10).ln();
    let below = log_sigmas.partition_point(|l| *l <= log);
    let low = below
        .saturating_sub(1)
        .min(log_sigmas.len().saturating_sub(2));
    let (a, b) = (log_sigmas[low], log_sigmas[low + 1]);
    let share = ((a - log) / (a - b)).clamp(0.0, 1.0);
    low as f64 + share
}

/// Refuses levels that do not fall: more steps than the process can tell apart.
pub(super) fn check_falling(sigmas: &[f64]) -> Result<()> {
    match sigmas.is_sorted_by(|a, b| a > b) {
        true => Ok(()),
        false => Err(Error::setting(
            "steps",
            sigmas.len() - 1,
            "so few that every step has a noise level of its own",
        )),
    }
}
