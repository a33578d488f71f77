//! The ancestral sampler of unCLIP, with the arithmetic of diffusers or of the original Karlo.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{Denoiser, Prediction, Timestep};
use crate::{
    diffusion::{Process, Target, Variance},
    error::{Error, Result},
    stage::{Run, Stage},
};

/// In which arithmetic the coefficients are computed.
///
/// The difference is visible: at t = 0 diffusers' f32 tables return 0.99947 · x₀ where exact ones
/// return x₀, and the final picture differs by 4e-3 on average.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tables {
    /// Every operation rounded to f32, as diffusers' `UnCLIPScheduler` does.
    #[default]
    Diffusers,
    /// f64, as the original Karlo does.
    Karlo,
}

/// `count` timesteps from `available` − 1 down to 0, evenly spread, halves rounded to even (as
/// numpy does: 166.5 is 166 and 832.5 is 832). A single step is the noisiest timestep.
pub fn unclip_timesteps(available: usize, count: usize) -> Vec<usize> {
    let last = available.saturating_sub(1);
    if count < 2 {
        return vec![last];
    }
    let ratio = last as f64 / (count - 1) as f64;
    (0..count)
        .rev()
        .map(|i| (i as f64 * ratio).round_ties_even() as usize)
        .collect()
}

/// The coefficients of one step.
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
    /// β of the step.
    pub beta: f64,
    /// Variance of the posterior.
    pub variance: f64,
    /// f32 arithmetic for what follows from these.
    is_f32: bool,
}

impl AncestralStep {
    /// Coefficients from `t` to `previous`; `None` means to x₀.
    ///
    /// # Panics
    /// If a timestep is not one of the process.
    pub fn new(process: &Process, t: usize, previous: Option<usize>, tables: Tables) -> Self {
        match tables {
            Tables::Karlo => {
                let posterior = process.posterior(t, previous);
                Self {
                    signal: process.alpha_bars()[t].sqrt(),
                    sigma: (1.0 - process.alpha_bars()[t]).sqrt(),
                    start: posterior.start,
                    current: posterior.current,
                    beta: posterior.beta,
                    variance: posterior.variance,
                    is_f32: false,
                }
            }
            Tables::Diffusers => Self::rounded(process, t, previous),
        }
    }

    /// β is stored in f32 and α = 1 − β taken in f32; the cumulative product accumulates in f64
    /// and is rounded entry by entry, as PyTorch does on a CPU.
    fn rounded(process: &Process, t: usize, previous: Option<usize>) -> Self {
        let beta_at = |i: usize| process.betas()[i] as f32;
        let bar_at = |i: usize| {
            (0..=i)
                .map(|j| f64::from(1.0 - beta_at(j)))
                .product::<f64>() as f32
        };
        let bar = bar_at(t);
        let bar_previous = previous.map_or(1.0, bar_at);
        let is_single_step = previous.map_or(t == 0, |p| p + 1 == t);
        let beta = if is_single_step {
            beta_at(t)
        } else {
            1.0 - bar / bar_previous
        };
        let (rest, rest_previous) = (1.0 - bar, 1.0 - bar_previous);
        Self {
            signal: bar.sqrt().into(),
            sigma: rest.sqrt().into(),
            start: (bar_previous.sqrt() * beta / rest).into(),
            current: ((1.0 - beta).sqrt() * rest_previous / rest).into(),
            beta: beta.into(),
            variance: (rest_previous / rest * beta).into(),
            is_f32: true,
        }
    }

    fn round(&self, value: f64) -> f64 {
        if self.is_f32 {
            f64::from(value as f32)
        } else {
            value
        }
    }

    /// Predicted x₀, clamped as the process says.
    pub fn start_of<const D: usize>(
        &self,
        process: &Process,
        x: Tensor<D>,
        target: Tensor<D>,
    ) -> Tensor<D> {
        let start = match process.target {
            Target::Epsilon => (x - target * self.sigma) / self.signal,
            Target::Sample => target,
            Target::Velocity => x * self.signal - target * self.sigma,
        };
        match process.clip {
            Some(range) => start.clamp(-range, range),
            None => start,
        }
    }

    /// `noise` times the step's standard deviation.
    fn scaled<const D: usize>(
        &self,
        process: &Process,
        learned: Option<Tensor<D>>,
        noise: Tensor<D>,
    ) -> Tensor<D> {
        let floored = self.variance.max(self.round(1e-20));
        match (process.variance, learned) {
            (Variance::FixedSmall, _) => noise * self.round(floored.sqrt()),
            (Variance::FixedSmallLog, _) => {
                let log = self.round(floored.ln());
                noise * self.round((0.5 * log).exp())
            }
            (Variance::FixedLarge, _) => noise * self.round(self.beta.sqrt()),
            (Variance::Learned, Some(log)) => (log * 0.5).exp() * noise,
            (Variance::LearnedRange, Some(v)) => {
                let (low, high) = (self.round(self.variance.ln()), self.round(self.beta.ln()));
                let fraction = (v + 1.0) / 2.0;
                let log = fraction.clone() * high + (fraction.neg() + 1.0) * low;
                (log * 0.5).exp() * noise
            }
            (Variance::Learned | Variance::LearnedRange, None) => {
                panic!("a process with learned variance needs a network that gives it")
            }
        }
    }

    /// x_prev. `noise` is None at the last step.
    ///
    /// # Panics
    /// If the process has learned variance, `noise` is given and the prediction has none.
    pub fn apply<const D: usize>(
        &self,
        process: &Process,
        x: Tensor<D>,
        prediction: Prediction<D>,
        noise: Option<Tensor<D>>,
    ) -> Tensor<D> {
        let start = self.start_of(process, x.clone(), prediction.target);
        let mean = start * self.start + x * self.current;
        match noise {
            None => mean,
            Some(noise) => mean + self.scaled(process, prediction.variance, noise),
        }
    }
}

pub(super) fn sample<const D: usize>(
    denoiser: &mut dyn Denoiser<D>,
    mut x: Tensor<D>,
    process: &Process,
    steps: usize,
    tables: Tables,
    stage: Stage,
    run: &mut Run<'_>,
) -> Result<Tensor<D>> {
    let timesteps = unclip_timesteps(process.steps(), steps);
    for (index, &t) in timesteps.iter().enumerate() {
        let at = Timestep {
            t,
            index,
            count: steps,
        };
        let prediction = denoiser.predict(x.clone(), at)?;
        if process.variance.is_learned() && prediction.variance.is_none() {
            return Err(Error::config(
                stage,
                "variance_type",
                "learned",
                "but the network predicts no variance (it needs twice the output channels)",
            ));
        }
        let step = AncestralStep::new(process, t, timesteps.get(index + 1).copied(), tables);
        let noise = match at.is_last() {
            true => None,
            false => Some(run.noise.normal(x.dims(), &x.device())?),
        };
        x = step.apply(process, x, prediction, noise);
        run.report(stage, index + 1, steps)?;
    }
    Ok(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::BetaSchedule;

    fn process(target: Target, variance: Variance) -> Process {
        Process::new(BetaSchedule::SquaredCosine, 1000, target, variance)
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
        let process = process(Target::Epsilon, Variance::FixedSmallLog);
        let rounded = AncestralStep::new(&process, 0, None, Tables::Diffusers);
        assert!(
            (rounded.start - 0.99947232).abs() < 1e-8,
            "{}",
            rounded.start
        );
        let exact = AncestralStep::new(&process, 0, None, Tables::Karlo);
        assert!((exact.start - 1.0).abs() < 1e-12);
    }

    #[test]
    fn long_steps_have_the_reference_coefficients() {
        let process = process(Target::Epsilon, Variance::FixedSmallLog);
        let step = AncestralStep::new(&process, 999, Some(832), Tables::Diffusers);
        assert!((step.start - 0.257333487).abs() < 1e-8);
        assert!((step.current - 0.000227973505).abs() < 1e-10);
        assert!((step.variance.ln() - -0.06851504).abs() < 1e-6);
        let step = AncestralStep::new(&process, 42, Some(0), Tables::Diffusers);
        assert!((step.start - 0.9933002).abs() < 1e-7);
        assert!((step.beta.ln() - -5.098246).abs() < 1e-6);
    }
}
