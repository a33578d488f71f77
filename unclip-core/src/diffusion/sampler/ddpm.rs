//! DDPM (arXiv 2006.11239), strided or full, with fixed, learned or analytic variance.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    Level, Method, Spacing, Tables, Timestep, Tools, ancestral::AncestralStep,
    tables::ProcessTables,
};
use crate::{diffusion::Process, error::Result};

/// Settings of [`Sampler::Ddpm`](super::Sampler::Ddpm).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ddpm {
    /// Network evaluations.
    pub steps: usize,
    /// Which timesteps.
    pub spacing: Spacing,
    /// Variance from what the network predicts, as unCLIP's prior was sampled (table 3), in place
    /// of the process's own: the optimal one of Analytic-DPM (arXiv 2201.06503), where the mean
    /// square of the predicted noise is taken over each sample's values.
    pub is_analytic: bool,
    /// Arithmetic of the coefficients. [`Tables::Diffusers`] also takes T / steps timesteps less
    /// as the one before, whatever the spacing, and adds noise at any last step but t = 0.
    pub tables: Tables,
}

impl Ddpm {
    /// On evenly spread timesteps, with exact coefficients.
    pub fn new(steps: usize) -> Self {
        Self {
            steps,
            spacing: Spacing::Linspace,
            is_analytic: false,
            tables: Tables::Karlo,
        }
    }

    pub(super) fn method(&self, process: &Process) -> DdpmMethod {
        let view = self.tables.of(process);
        let timesteps = self.spacing.timesteps(process.steps(), self.steps);
        let previous = previous_bars(&view, &timesteps, process.steps() / self.steps.max(1), 1.0);
        let steps: Vec<_> = timesteps
            .iter()
            .zip(&previous)
            .map(|(&t, &bar_previous)| {
                let bar = view.alpha_bars[t as usize];
                let alpha = view.round(bar / bar_previous);
                let beta = view.round(1.0 - alpha);
                AncestralStep::between(&view, bar, bar_previous, alpha, beta)
            })
            .collect();
        let mut levels: Vec<_> = steps.iter().map(AncestralStep::level).collect();
        levels.push(Level::CLEAN);
        DdpmMethod {
            settings: *self,
            timesteps,
            previous,
            steps,
            levels,
        }
    }
}

/// ᾱ of the timestep each step goes to; `end` for the last.
pub(super) fn previous_bars(
    view: &ProcessTables,
    timesteps: &[f64],
    stride: usize,
    end: f64,
) -> Vec<f64> {
    let next = |i: usize| match view.tables {
        Tables::Diffusers => (timesteps[i] as usize).checked_sub(stride),
        Tables::Karlo => timesteps.get(i + 1).map(|t| *t as usize),
    };
    let bar = |i| next(i).map_or(end, |p| view.alpha_bars[p]);
    (0..timesteps.len()).map(bar).collect()
}

pub(super) struct DdpmMethod {
    settings: Ddpm,
    timesteps: Vec<f64>,
    previous: Vec<f64>,
    steps: Vec<AncestralStep>,
    levels: Vec<Level>,
}

impl<const D: usize> Method<D> for DdpmMethod {
    fn levels(&self) -> &[Level] {
        &self.levels
    }

    fn step(&mut self, index: usize, x: Tensor<D>, tools: &mut Tools<'_, D>) -> Result<Tensor<D>> {
        let at = Timestep {
            t: self.timesteps[index],
            index,
            count: self.timesteps.len(),
        };
        let prediction = tools.denoiser.predict(x.clone(), at)?;
        let is_noisy = match self.settings.tables {
            Tables::Diffusers => at.t > 0.0,
            Tables::Karlo => !at.is_last(),
        };
        let noise = match is_noisy {
            false => None,
            true => Some(tools.noise.normal(x.dims(), &x.device())?),
        };
        let step = &self.steps[index];
        let noise = match noise {
            Some(noise) if self.settings.is_analytic => noise,
            noise => return step.apply(tools.process, x, prediction, noise),
        };
        let Level { signal, sigma } = step.level();
        let start = tools
            .process
            .clipped_start_of(x.clone(), prediction.target, signal, sigma);
        let epsilon = (x.clone() - start.clone() * signal) / sigma;
        let deviation = analytic_deviation(epsilon, step, self.previous[index]);
        Ok(step.mean(start, x) + noise * deviation)
    }
}

/// The optimal standard deviation of a step, one for each sample, shaped to broadcast.
///
/// σ² = λ² + (√((1−ᾱ)/α) − √(1−ᾱ_prev−λ²))² · (1 − Γ), where λ² is the posterior's variance and Γ
/// the mean square of the predicted noise; never more than β of the step.
fn analytic_deviation<const D: usize>(
    epsilon: Tensor<D>,
    step: &AncestralStep,
    bar_previous: f64,
) -> Tensor<D> {
    let shape = epsilon.dims();
    let [rows, count] = [shape[0], shape[1..].iter().product()];
    let square = epsilon.powi_scalar(2).reshape([rows, count]).mean_dim(1);
    let alpha = 1.0 - step.beta;
    let spread = step.sigma / alpha.sqrt() - (1.0 - bar_previous - step.variance).max(0.0).sqrt();
    let variance = (square.neg() + 1.0).clamp(0.0, 1.0) * spread.powi(2) + step.variance;
    let mut broadcast = [1; D];
    broadcast[0] = rows;
    variance
        .clamp_max(step.beta.max(step.variance))
        .sqrt()
        .reshape(broadcast)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::diffusion::{BetaSchedule, Target, Variance};

    #[test]
    fn analytic_variance_lies_between_the_posteriors_and_beta() {
        let process = Process::new(
            BetaSchedule::SquaredCosine,
            1000,
            Target::Sample,
            Variance::FixedSmall,
        );
        let method = Ddpm::new(20).method(&process);
        let device = Device::flex();
        for (step, previous) in method.steps.iter().zip(&method.previous).skip(1).take(17) {
            let of = |epsilon: f32| {
                let epsilon = Tensor::<2>::full([1, 4], epsilon, &device);
                let deviation: f32 = analytic_deviation(epsilon, step, *previous).into_scalar();
                f64::from(deviation).powi(2)
            };
            // Pure noise is certain: the posterior's own. No noise at all: the most.
            assert!((of(1.0) / step.variance - 1.0).abs() < 1e-4);
            assert!(of(0.0) >= of(0.98) && of(0.98) > step.variance);
            assert!(of(0.0) <= step.beta * (1.0 + 1e-4));
        }
    }
}
