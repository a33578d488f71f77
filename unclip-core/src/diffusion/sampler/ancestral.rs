//! The ancestral step, and the sampler of unCLIP and Karlo made of it.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{Level, Method, Prediction, Spacing, Tables, Timestep, Tools, tables::ProcessTables};
use crate::{
    diffusion::{Process, Variance},
    error::{Error, Result},
};

/// Settings of [`Sampler::Ancestral`](super::Sampler::Ancestral).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ancestral {
    /// Network evaluations.
    pub steps: usize,
    /// Arithmetic of the coefficients.
    pub tables: Tables,
}

/// `count` timesteps from `available` − 1 down to 0, evenly spread, halves rounded to even (as
/// numpy does: 166.5 is 166 and 832.5 is 832). A single step is the noisiest timestep.
pub fn unclip_timesteps(available: usize, count: usize) -> Vec<usize> {
    if count < 2 {
        return vec![available.saturating_sub(1)];
    }
    let timesteps = Spacing::Linspace.timesteps(available, count);
    timesteps.into_iter().map(|t| t as usize).collect()
}

/// The coefficients of one step: of q(x_prev | x_t, x₀) and of predicting x₀.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AncestralStep {
    /// √ᾱ.
    pub signal: f64,
    /// √(1−ᾱ).
    pub sigma: f64,
    /// Factor of x₀ in the posterior's mean.
    pub start: f64,
    /// Factor of x_t in the posterior's mean.
    pub current: f64,
    /// β of the (possibly long) step.
    pub beta: f64,
    /// Variance of the posterior.
    pub variance: f64,
    tables: Tables,
}

impl AncestralStep {
    /// Of unCLIP's sampler, from `t` to `previous`; `None` means to x₀.
    ///
    /// # Panics
    /// If a timestep is not one of the process.
    pub fn new(process: &Process, t: usize, previous: Option<usize>, tables: Tables) -> Self {
        Self::of(&tables.of(process), t, previous)
    }

    /// A step to the timestep before has that β itself.
    fn of(view: &ProcessTables, t: usize, previous: Option<usize>) -> Self {
        let bar = view.alpha_bars[t];
        let bar_previous = previous.map_or(1.0, |p| view.alpha_bars[p]);
        let is_single = previous.map_or(t == 0, |p| p + 1 == t);
        let beta = match is_single {
            true => view.betas[t],
            false => view.round(1.0 - view.round(bar / bar_previous)),
        };
        Self::between(view, bar, bar_previous, view.round(1.0 - beta), beta)
    }

    /// From ᾱ to ᾱ_prev, where α = 1 − β is that of the step.
    pub(super) fn between(
        view: &ProcessTables,
        bar: f64,
        bar_previous: f64,
        alpha: f64,
        beta: f64,
    ) -> Self {
        let round = |value| view.round(value);
        let (signal, sigma) = view.signal_and_sigma(bar);
        let (rest, rest_previous) = (round(1.0 - bar), round(1.0 - bar_previous));
        let start = round(round(bar_previous.sqrt()) * beta) / rest;
        let current = round(round(alpha.sqrt()) * rest_previous) / rest;
        Self {
            signal,
            sigma,
            start: round(start),
            current: round(current),
            beta,
            variance: round(round(rest_previous / rest) * beta),
            tables: view.tables,
        }
    }

    /// `noise` times the step's standard deviation.
    fn scaled<const D: usize>(
        &self,
        variance: Variance,
        learned: Option<Tensor<D>>,
        noise: Tensor<D>,
    ) -> Result<Tensor<D>> {
        let round = |value| self.tables.round(value);
        let floored = self.variance.max(round(1e-20));
        Ok(match (variance, learned) {
            (Variance::FixedSmall, _) => noise * round(floored.sqrt()),
            (Variance::FixedSmallLog, _) => noise * round((0.5 * round(floored.ln())).exp()),
            (Variance::FixedLarge, _) => noise * round(self.beta.sqrt()),
            (Variance::Learned, Some(log)) => (log * 0.5).exp() * noise,
            (Variance::LearnedValue, Some(value)) => value.sqrt() * noise,
            (Variance::LearnedRange, Some(v)) => {
                let (low, high) = (round(floored.ln()), round(self.beta.ln()));
                let fraction = (v + 1.0) / 2.0;
                let log = fraction.clone() * high + (fraction.neg() + 1.0) * low;
                (log * 0.5).exp() * noise
            }
            (Variance::Learned | Variance::LearnedValue | Variance::LearnedRange, None) => {
                return Err(Error::config(
                    "the network",
                    "variance_type",
                    "learned",
                    "but it predicts no variance (it needs twice the output channels)",
                ));
            }
        })
    }

    /// Predicted x₀, clipped as the process says.
    pub fn start_of<const D: usize>(
        &self,
        process: &Process,
        x: Tensor<D>,
        target: Tensor<D>,
    ) -> Tensor<D> {
        process.clipped_start_of(x, target, self.signal, self.sigma)
    }

    pub(super) fn level(&self) -> Level {
        Level {
            signal: self.signal,
            sigma: self.sigma,
        }
    }

    /// The posterior's mean.
    pub(super) fn mean<const D: usize>(&self, start: Tensor<D>, x: Tensor<D>) -> Tensor<D> {
        start * self.start + x * self.current
    }

    /// x_prev; `noise` is `None` at the last step.
    ///
    /// # Errors
    /// [`Error::Config`] if the variance is learned, noise is given and the prediction has none.
    pub fn apply<const D: usize>(
        &self,
        process: &Process,
        x: Tensor<D>,
        prediction: Prediction<D>,
        noise: Option<Tensor<D>>,
    ) -> Result<Tensor<D>> {
        let start = self.start_of(process, x.clone(), prediction.target);
        let mean = self.mean(start, x);
        Ok(match noise {
            None => mean,
            Some(noise) => mean + self.scaled(process.variance, prediction.variance, noise)?,
        })
    }
}

pub(super) struct AncestralMethod {
    timesteps: Vec<usize>,
    steps: Vec<AncestralStep>,
    levels: Vec<Level>,
}

impl Ancestral {
    pub(super) fn method(&self, process: &Process) -> AncestralMethod {
        let view = self.tables.of(process);
        let timesteps = unclip_timesteps(process.steps(), self.steps);
        let step = |i: usize| AncestralStep::of(&view, timesteps[i], timesteps.get(i + 1).copied());
        let steps: Vec<_> = (0..timesteps.len()).map(step).collect();
        let mut levels: Vec<_> = steps.iter().map(AncestralStep::level).collect();
        levels.push(Level::CLEAN);
        AncestralMethod {
            timesteps,
            steps,
            levels,
        }
    }
}

impl<const D: usize> Method<D> for AncestralMethod {
    fn levels(&self) -> &[Level] {
        &self.levels
    }

    fn step(&mut self, index: usize, x: Tensor<D>, tools: &mut Tools<'_, D>) -> Result<Tensor<D>> {
        let at = Timestep {
            t: self.timesteps[index] as f64,
            index,
            count: self.timesteps.len(),
        };
        let prediction = tools.denoiser.predict(x.clone(), at)?;
        let noise = match at.is_last() {
            true => None,
            false => Some(tools.noise.normal(x.dims(), &x.device())?),
        };
        self.steps[index].apply(tools.process, x, prediction, noise)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::{BetaSchedule, Target};

    fn step(t: usize, previous: Option<usize>, tables: Tables) -> AncestralStep {
        let process = Process::new(
            BetaSchedule::SquaredCosine,
            1000,
            Target::Epsilon,
            Variance::FixedSmallLog,
        );
        AncestralStep::new(&process, t, previous, tables)
    }

    #[test]
    fn halves_round_to_even() {
        assert_eq!(unclip_timesteps(1000, 7), [999, 832, 666, 500, 333, 166, 0]);
        let of_25 = unclip_timesteps(1000, 25);
        assert_eq!(&of_25[..3], [999, 957, 916]);
        assert!(of_25.contains(&500) && of_25.contains(&832) && of_25.contains(&166));
        assert_eq!(unclip_timesteps(1000, 1), [999]);
    }

    #[test]
    fn the_last_step_shows_which_tables_are_used() {
        let rounded = step(0, None, Tables::Diffusers).start;
        assert!((rounded - 0.99947232).abs() < 1e-8, "{rounded}");
        let exact = step(0, None, Tables::Karlo).start;
        assert!((exact - 1.0).abs() < 1e-12, "{exact}");
    }

    #[test]
    fn long_steps_have_the_reference_coefficients() {
        let long = step(999, Some(832), Tables::Diffusers);
        assert!((long.start - 0.257333487).abs() < 1e-8);
        assert!((long.current - 0.000227973505).abs() < 1e-10);
        assert!((long.variance.ln() - -0.06851504).abs() < 1e-6);
        let long = step(42, Some(0), Tables::Diffusers);
        assert!((long.start - 0.9933002).abs() < 1e-7);
        assert!((long.beta.ln() - -5.098246).abs() < 1e-6);
    }
}
