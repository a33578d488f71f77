//! DDIM (arXiv 2010.02502).

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{Level, Method, Spacing, Tables, Timestep, Tools, ddpm::previous_bars};
use crate::{
    diffusion::Process,
    error::{Error, Result},
};

/// Settings of [`Sampler::Ddim`](super::Sampler::Ddim).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ddim {
    /// Network evaluations.
    pub steps: usize,
    /// Share of the ancestral noise: 0 is deterministic, 1 is DDPM's.
    pub eta: f64,
    /// Which timesteps.
    pub spacing: Spacing,
    /// Take ε again from clipped x₀, as GLIDE does.
    pub is_noise_from_clipped: bool,
    /// Clip x₀ as the process says. Off for exact inversion.
    pub is_clipped: bool,
    /// The last step goes to x₀ itself, not to the process's first timestep.
    pub is_last_exact: bool,
    /// Arithmetic of the coefficients. [`Tables::Diffusers`] also takes T / steps timesteps less
    /// as the one before, whatever the spacing.
    pub tables: Tables,
}

impl Ddim {
    /// Deterministic, on every ⌊T / steps⌋-th timestep, with exact coefficients.
    pub fn new(steps: usize) -> Self {
        Self {
            steps,
            eta: 0.0,
            spacing: Spacing::Leading { offset: 0 },
            is_noise_from_clipped: true,
            is_clipped: true,
            is_last_exact: true,
            tables: Tables::Karlo,
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        match (0.0..=1.0).contains(&self.eta) {
            true => Ok(()),
            false => Err(Error::setting("eta", self.eta, "a number from 0 to 1")),
        }
    }

    pub(super) fn method(&self, process: &Process) -> DdimMethod {
        let view = self.tables.of(process);
        let timesteps = self.spacing.timesteps(process.steps(), self.steps);
        let end = match self.is_last_exact {
            true => 1.0,
            false => view.alpha_bars[0],
        };
        let previous = previous_bars(&view, &timesteps, process.steps() / self.steps.max(1), end);
        let level = |bar: f64| {
            let (signal, sigma) = view.signal_and_sigma(bar);
            Level { signal, sigma }
        };
        let round = |value| view.round(value);
        let mut levels = Vec::new();
        let mut steps = Vec::new();
        for (&t, &bar_previous) in timesteps.iter().zip(&previous) {
            let bar = view.alpha_bars[t as usize];
            let (rest, rest_previous) = (round(1.0 - bar), round(1.0 - bar_previous));
            let share = round(1.0 - round(bar / bar_previous));
            let variance = round(round(rest_previous / rest) * share);
            let deviation = round(self.eta * round(variance.max(0.0).sqrt()));
            let left = round(rest_previous - round(deviation * deviation));
            levels.push(level(bar));
            steps.push(DdimStep {
                signal: round(bar_previous.sqrt()),
                direction: round(left.max(0.0).sqrt()),
                deviation,
            });
        }
        levels.push(level(previous.last().copied().unwrap_or(1.0)));
        DdimMethod {
            settings: *self,
            timesteps,
            levels,
            steps,
        }
    }
}

/// x_prev = signal · x₀ + direction · ε + deviation · noise.
#[derive(Clone, Copy, Debug)]
struct DdimStep {
    signal: f64,
    direction: f64,
    deviation: f64,
}

pub(super) struct DdimMethod {
    settings: Ddim,
    pub(super) timesteps: Vec<f64>,
    pub(super) levels: Vec<Level>,
    steps: Vec<DdimStep>,
}

impl<const D: usize> Method<D> for DdimMethod {
    fn levels(&self) -> &[Level] {
        &self.levels
    }

    fn step(&mut self, index: usize, x: Tensor<D>, tools: &mut Tools<'_, D>) -> Result<Tensor<D>> {
        let at = Timestep {
            t: self.timesteps[index],
            index,
            count: self.timesteps.len(),
        };
        let target = tools.denoiser.predict(x.clone(), at)?.target;
        let Level { signal, sigma } = self.levels[index];
        let process = tools.process;
        let start = match self.settings.is_clipped {
            true => process.clipped_start_of(x.clone(), target.clone(), signal, sigma),
            false => process.start_of(x.clone(), target.clone(), signal, sigma),
        };
        let epsilon = match self.settings.is_noise_from_clipped {
            true => (x.clone() - start.clone() * signal) / sigma,
            false => process.noise_of(x.clone(), target, signal, sigma),
        };
        let step = self.steps[index];
        let previous = start * step.signal + epsilon * step.direction;
        if self.settings.eta == 0.0 {
            return Ok(previous);
        }
        let noise = tools.noise.normal(x.dims(), &x.device())?;
        Ok(previous + noise * step.deviation)
    }
}
