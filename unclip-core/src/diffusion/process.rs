//! A Gaussian diffusion process: its tables, and what a network of it predicts.

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::{BetaSchedule, Clip};

/// What a network predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// The noise ε in x_t = √ᾱ x₀ + √(1−ᾱ) ε.
    Epsilon,
    /// x₀ itself, as the prior does.
    Sample,
    /// v = √ᾱ ε − √(1−ᾱ) x₀ (arXiv 2202.00512).
    Velocity,
}

/// How much noise an ancestral step adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Variance {
    /// The posterior's variance.
    FixedSmall,
    /// The posterior's variance by way of its logarithm, floored at 1e-20.
    FixedSmallLog,
    /// β.
    FixedLarge,
    /// The network's second half of channels is the log variance.
    Learned,
    /// The network's second half of channels is the variance itself, which diffusers' DDPM takes
    /// it for.
    LearnedValue,
    /// The network's second half of channels, from -1 to 1, picks between the logarithms of the
    /// posterior's variance and of β (arXiv 2102.09672).
    LearnedRange,
}

impl Variance {
    /// Whether the network has twice the channels of the picture.
    pub fn is_learned(self) -> bool {
        matches!(
            self,
            Self::Learned | Self::LearnedValue | Self::LearnedRange
        )
    }
}

/// Mean and variance of q(x_prev | x_t, x₀).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Posterior {
    /// Factor of x₀ in the mean.
    pub start: f64,
    /// Factor of x_t in the mean.
    pub current: f64,
    /// Variance of each component.
    pub variance: f64,
    /// β of the (possibly long) step.
    pub beta: f64,
}

/// A process over `steps` timesteps, counted from 0 (almost no noise).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Process {
    betas: Vec<f64>,
    alpha_bars: Vec<f64>,
    /// What the network predicts.
    pub target: Target,
    /// The noise of ancestral steps.
    pub variance: Variance,
    /// How predicted x₀ is kept in range.
    pub clip: Option<Clip>,
}

impl Process {
    /// A process on the given schedule.
    pub fn new(schedule: BetaSchedule, steps: usize, target: Target, variance: Variance) -> Self {
        Self::from_betas(schedule.betas(steps), target, variance)
    }

    /// A process with the given β.
    pub fn from_betas(betas: Vec<f64>, target: Target, variance: Variance) -> Self {
        let alpha_bars = betas
            .iter()
            .scan(1.0, |product, beta| {
                *product *= 1.0 - beta;
                Some(*product)
            })
            .collect();
        Self {
            betas,
            alpha_bars,
            target,
            variance,
            clip: None,
        }
    }

    /// Keeps predicted x₀ in range.
    pub fn with_clip(mut self, clip: Option<Clip>) -> Self {
        self.clip = clip;
        self
    }

    /// The same with no signal left at the last timestep: √ᾱ shifted and stretched from its first
    /// value to 0 (arXiv 2305.08891, algorithm 1). Only targets other than ε can be sampled then.
    pub fn with_zero_terminal_snr(self) -> Self {
        // In f32 at every operation, as the one implementation that models were trained with.
        let mut product = 1.0_f64;
        let signals: Vec<f32> = self
            .betas
            .iter()
            .map(|beta| {
                product *= f64::from(1.0 - *beta as f32);
                (product as f32).sqrt()
            })
            .collect();
        let (Some(&first), Some(&last)) = (signals.first(), signals.last()) else {
            return self;
        };
        let stretch = first / (first - last);
        let bars = signals.iter().map(|s| ((s - last) * stretch).powi(2));
        let mut previous = 1.0;
        let betas: Vec<f64> = bars
            .map(|bar| f64::from(1.0 - bar / std::mem::replace(&mut previous, bar)))
            .collect();
        let alpha_bars = Self::from_betas(betas.clone(), self.target, self.variance).alpha_bars;
        Self {
            betas,
            alpha_bars,
            ..self
        }
    }

    /// Number of timesteps.
    pub fn steps(&self) -> usize {
        self.betas.len()
    }

    /// β of each timestep.
    pub fn betas(&self) -> &[f64] {
        &self.betas
    }

    /// ᾱ of each timestep: the share of x₀ in the variance of x_t.
    pub fn alpha_bars(&self) -> &[f64] {
        &self.alpha_bars
    }

    /// A shorter process over `timesteps` (ascending) of this one: the marginals at those
    /// timesteps are the same. Timestep i of the new one is `timesteps[i]` of this one.
    ///
    /// # Panics
    /// If a timestep is not one of this process or they do not ascend.
    pub fn respaced(&self, timesteps: &[usize]) -> Self {
        let alpha_bars: Vec<f64> = timesteps.iter().map(|&t| self.alpha_bars[t]).collect();
        let mut previous = 1.0;
        let betas = alpha_bars
            .iter()
            .map(|bar| {
                assert!(*bar < previous, "timesteps must ascend");
                let beta = 1.0 - bar / previous;
                previous = *bar;
                beta
            })
            .collect();
        // ᾱ is kept, not multiplied up again: that would cost digits where it is small.
        Self {
            betas,
            alpha_bars,
            ..*self
        }
    }

    /// q(x_prev | x_t, x₀); `previous` None means x₀ itself.
    ///
    /// # Panics
    /// If a timestep is not one of this process.
    pub fn posterior(&self, t: usize, previous: Option<usize>) -> Posterior {
        let bar = self.alpha_bars[t];
        let bar_previous = previous.map_or(1.0, |p| self.alpha_bars[p]);
        let is_single_step = previous.map_or(t == 0, |p| p + 1 == t);
        let beta = if is_single_step {
            self.betas[t]
        } else {
            1.0 - bar / bar_previous
        };
        Posterior {
            start: bar_previous.sqrt() * beta / (1.0 - bar),
            current: (1.0 - beta).sqrt() * (1.0 - bar_previous) / (1.0 - bar),
            variance: (1.0 - bar_previous) / (1.0 - bar) * beta,
            beta,
        }
    }

    /// x_t = √ᾱ x₀ + √(1−ᾱ) ε, with a timestep for each element of the batch.
    ///
    /// # Panics
    /// If there is not one timestep of this process for each element.
    pub fn add_noise<const D: usize>(
        &self,
        start: Tensor<D>,
        noise: Tensor<D>,
        timesteps: &[usize],
    ) -> Tensor<D> {
        let (signal, sigma) = self.factors(&start, timesteps);
        start * signal + noise * sigma
    }

    /// v = √ᾱ ε − √(1−ᾱ) x₀, what a velocity network is trained to predict.
    ///
    /// # Panics
    /// If there is not one timestep of this process for each element.
    pub fn velocity<const D: usize>(
        &self,
        start: Tensor<D>,
        noise: Tensor<D>,
        timesteps: &[usize],
    ) -> Tensor<D> {
        let (signal, sigma) = self.factors(&start, timesteps);
        noise * signal - start * sigma
    }

    /// √ᾱ and √(1−ᾱ) of each element's timestep, shaped to broadcast over its values.
    fn factors<const D: usize>(
        &self,
        like: &Tensor<D>,
        timesteps: &[usize],
    ) -> (Tensor<D>, Tensor<D>) {
        assert_eq!(timesteps.len(), like.dims()[0], "one timestep an element");
        let mut shape = [1; D];
        shape[0] = timesteps.len();
        let factor = |f: fn(f64) -> f64| {
            let bars = timesteps.iter().map(|&t| self.alpha_bars[t]);
            let values: Vec<f32> = bars.map(|bar| f(bar) as f32).collect();
            let data = TensorData::new(values, shape);
            Tensor::from_data(data, (&like.device(), like.dtype()))
        };
        (factor(f64::sqrt), factor(|bar| (1.0 - bar).sqrt()))
    }
}
