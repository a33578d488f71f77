//! What diffusion networks are trained on.

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::diffusion::{Process, Target, Variance};

/// How much each timestep's error counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Weighting {
    /// All the same.
    #[default]
    Even,
    /// min(SNR, this) / SNR for ε, and what is equal to it for other targets (arXiv 2303.09556);
    /// usually 5.
    MinSnr(f64),
    /// x₀'s squared error counts SNR times, at least and at most so many (arXiv 2202.00512, which has at
    /// least once). The lower bound is for what is settled at high noise, such as what stands where: ε hardly
    /// changes with it there.
    TruncatedSnr {
        /// The lower bound.
        least: f64,
        /// The upper one.
        most: f64,
    },
    /// 1 / (1 + SNR)^this (arXiv 2204.00227); usually 0.5 or 1.
    P2(f64),
}

/// The loss of a diffusion network: the squared error of what it predicts, and where it also predicts
/// variances, the variational bound for these (arXiv 2102.09672, equation 16).
#[derive(Clone, Debug)]
pub struct DiffusionLoss {
    process: Process,
    weighting: Weighting,
}

/// An example on its way through the loss; every tensor f32, `[b, ..]`.
#[derive(Clone, Debug)]
pub struct Noised<const D: usize> {
    /// x₀.
    pub start: Tensor<D>,
    /// ε.
    pub noise: Tensor<D>,
    /// x_t.
    pub current: Tensor<D>,
    /// A timestep for each.
    pub timesteps: Vec<usize>,
}

impl DiffusionLoss {
    /// The loss of networks of `process`.
    pub fn new(process: Process, weighting: Weighting) -> Self {
        Self { process, weighting }
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// x_t of pictures or embeddings, noise and timesteps.
    ///
    /// # Panics
    /// If there is not one timestep of the process for each element.
    pub fn noised<const D: usize>(
        &self,
        start: Tensor<D>,
        noise: Tensor<D>,
        timesteps: Vec<usize>,
    ) -> Noised<D> {
        let current = self
            .process
            .add_noise(start.clone(), noise.clone(), &timesteps);
        Noised {
            start,
            noise,
            current,
            timesteps,
        }
    }

    /// The loss of each element, `[b]`, from the network's output: `[b, c, ..]`, or `[b, 2c, ..]`
    /// with variances behind.
    ///
    /// # Panics
    /// If shapes do not fit.
    pub fn losses<const D: usize>(&self, output: Tensor<D>, noised: &Noised<D>) -> Tensor<1> {
        let channels = noised.start.dims()[1];
        let predicted = output.clone().narrow(1, 0, channels);
        let wanted = match self.process.target {
            Target::Epsilon => noised.noise.clone(),
            Target::Sample => noised.start.clone(),
            Target::Velocity => {
                let (start, noise) = (noised.start.clone(), noised.noise.clone());
                self.process.velocity(start, noise, &noised.timesteps)
            }
        };
        let error = row_means((predicted.clone() - wanted).powi_scalar(2));
        let weights = noised.timesteps.iter().map(|t| self.weight(*t) as f32);
        let weights: Vec<f32> = weights.collect();
        let count = weights.len();
        let weights = TensorData::new(weights, [count]);
        let error = error.clone() * Tensor::from_data(weights, (&error.device(), error.dtype()));
        match self.process.variance {
            Variance::LearnedRange => {
                let variance = output.narrow(1, channels, channels);
                error + self.bound(predicted.detach(), variance, noised)
            }
            _ => error,
        }
    }

    /// Factor of the squared error at a timestep.
    fn weight(&self, t: usize) -> f64 {
        let bar = self.process.alpha_bars()[t];
        let snr = bar / (1.0 - bar);
        // From a factor for x₀'s error to that for the target's.
        let of_start = |factor: f64| match self.process.target {
            Target::Epsilon => factor / snr,
            Target::Sample => factor,
            Target::Velocity => factor / (snr + 1.0),
        };
        match self.weighting {
            Weighting::Even => 1.0,
            Weighting::P2(power) => (1.0 + snr).powf(-power),
            Weighting::MinSnr(limit) => of_start(snr.min(limit)),
            Weighting::TruncatedSnr { least, most } => of_start(snr.max(least).min(most)),
        }
    }

    /// The step's term of the variational bound in bits a value: it trains the variance alone, since
    /// the mean is given detached.
    fn bound<const D: usize>(
        &self,
        predicted: Tensor<D>,
        variance: Tensor<D>,
        noised: &Noised<D>,
    ) -> Tensor<1> {
        let process = &self.process;
        let like = &noised.start;
        let posteriors = noised
            .timesteps
            .iter()
            .map(|&t| (t, process.posterior(t, t.checked_sub(1))))
            .collect::<Vec<_>>();
        let factor = |of: &dyn Fn(usize, crate::diffusion::Posterior) -> f64| {
            let values = posteriors.iter().map(|(t, p)| of(*t, *p) as f32);
            let mut shape = [1; D];
            shape[0] = posteriors.len();
            let data = TensorData::new(values.collect::<Vec<f32>>(), shape);
            Tensor::<D>::from_data(data, (&like.device(), like.dtype()))
        };
        // The first posterior has no variance at all: the second's stands for it.
        let floor = |t: usize, variance: f64| match t {
            0 if process.steps() > 1 => process.posterior(1, Some(0)).variance.ln(),
            _ => variance.ln(),
        };
        let small = factor(&|t, p| floor(t, p.variance));
        let large = factor(&|_, p| p.beta.ln());
        let (start_of, current_of) = (factor(&|_, p| p.start), factor(&|_, p| p.current));
        let share = (variance + 1.0) * 0.5;
        let log_variance = share.clone() * large + (share * -1.0 + 1.0) * small.clone();

        let bars = |f: fn(f64) -> f64| factor(&move |t, _| f(process.alpha_bars()[t]));
        let (signal, sigma) = (bars(f64::sqrt), bars(|bar| (1.0 - bar).sqrt()));
        let start = match process.target {
            Target::Epsilon => (noised.current.clone() - predicted * sigma) / signal,
            Target::Sample => predicted,
            Target::Velocity => noised.current.clone() * signal - predicted * sigma,
        };
        let moved = noised.current.clone() * current_of;
        let mean = start * start_of.clone() + moved.clone();
        let wanted = noised.start.clone() * start_of + moved;

        let apart = (wanted - mean.clone()).powi_scalar(2);
        let divergence = (log_variance.clone() - small.clone() - 1.0
            + (small - log_variance.clone()).exp()
            + apart * (log_variance.clone() * -1.0).exp())
            * 0.5;
        let likelihood = negative_log_likelihood(like.clone(), mean, log_variance * 0.5);
        let is_first = factor(&|t, _| f64::from(u8::from(t == 0)));
        let bound = likelihood * is_first.clone() + divergence * (is_first * -1.0 + 1.0);
        row_means(bound) / std::f64::consts::LN_2
    }
}

/// −ln of the probability that a normal has for a byte's range of values; `x` in [-1, 1].
fn negative_log_likelihood<const D: usize>(
    x: Tensor<D>,
    mean: Tensor<D>,
    log_scale: Tensor<D>,
) -> Tensor<D> {
    let inverse = (log_scale * -1.0).exp();
    let centred = x.clone() - mean;
    let below = |edge: f64| normal_cdf((centred.clone() + edge) * inverse.clone());
    let (upper, lower) = (below(1.0 / 255.0), below(-1.0 / 255.0));
    let inside = (upper.clone() - lower.clone()).clamp_min(1e-12).log();
    let darkest = upper.clamp_min(1e-12).log();
    let brightest = (lower * -1.0 + 1.0).clamp_min(1e-12).log();
    let found = inside
        .mask_where(x.clone().lower_scalar(-0.999), darkest)
        .mask_where(x.greater_scalar(0.999), brightest);
    found * -1.0
}

/// The standard normal's distribution function, as guided-diffusion approximates it.
fn normal_cdf<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let cubic = x.clone() + x.powi_scalar(3) * 0.044_715;
    ((cubic * (2.0 / std::f64::consts::PI).sqrt()).tanh() + 1.0) * 0.5
}

/// The mean of each element's values.
fn row_means<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let rows = x.dims()[0];
    x.flatten::<2>(1, D - 1).mean_dim(1).reshape([rows])
}

/// How timesteps are drawn.
#[derive(Clone, Debug)]
pub struct TimestepSampler {
    steps: usize,
    /// The last losses of each timestep, if draws follow them.
    history: Option<Vec<Vec<f32>>>,
}

/// Losses that are remembered of each timestep.
const REMEMBERED: usize = 10;

impl TimestepSampler {
    /// Each timestep as often as any other.
    pub fn uniform(steps: usize) -> Self {
        Self {
            steps,
            history: None,
        }
    }

    /// More often where the loss is large, its root mean square over the last ten times, and with
    /// less weight in return (arXiv 2102.09672, equation 18). Even until every timestep has been
    /// drawn ten times.
    pub fn loss_aware(steps: usize) -> Self {
        Self {
            steps,
            history: Some(vec![Vec::new(); steps]),
        }
    }

    /// A timestep for a uniform number in [0, 1), and the factor of its loss.
    pub fn draw(&self, uniform: f32) -> (usize, f32) {
        let even = ((uniform * self.steps as f32) as usize).min(self.steps - 1);
        let Some(shares) = self.shares() else {
            return (even, 1.0);
        };
        let mut left = f64::from(uniform);
        for (t, share) in shares.iter().enumerate() {
            left -= share;
            if left < 0.0 {
                return (t, (1.0 / (share * self.steps as f64)) as f32);
            }
        }
        (even, 1.0)
    }

    /// Probability of each timestep, once there is one to speak of.
    fn shares(&self) -> Option<Vec<f64>> {
        let history = self.history.as_ref()?;
        if history.iter().any(|losses| losses.len() < REMEMBERED) {
            return None;
        }
        let root = |losses: &Vec<f32>| {
            let squares = losses.iter().map(|l| f64::from(*l).powi(2));
            (squares.sum::<f64>() / REMEMBERED as f64).sqrt()
        };
        let roots: Vec<f64> = history.iter().map(root).collect();
        let total: f64 = roots.iter().sum();
        // A little of the even distribution keeps every timestep possible.
        let share = |root: &f64| root / total * 0.999 + 0.001 / self.steps as f64;
        (total > 0.0).then(|| roots.iter().map(share).collect())
    }

    /// Whether draws follow the losses.
    pub fn is_loss_aware(&self) -> bool {
        self.history.is_some()
    }

    /// Remembers a loss as it was before its factor.
    pub fn observe(&mut self, t: usize, loss: f32) {
        if let Some(losses) = self.history.as_mut().and_then(|h| h.get_mut(t)) {
            if losses.len() == REMEMBERED {
                losses.remove(0);
            }
            losses.push(loss);
        }
    }

    /// What it has learned, for a checkpoint.
    pub fn state(&self) -> serde_json::Value {
        serde_json::json!(self.history)
    }

    /// Takes back what [`state`](Self::state) gave; another is ignored.
    pub fn restore(&mut self, state: &serde_json::Value) {
        let history: Option<Vec<Vec<f32>>> = serde_json::from_value(state.clone()).ok().flatten();
        if let (Some(own), Some(given)) = (&mut self.history, history)
            && own.len() == given.len()
        {
            *own = given;
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::{diffusion::BetaSchedule, image::to_host, noise::Noise};

    /// One guess of x₀ counts the same, whichever way a network says it.
    #[test]
    fn weights_by_snr_do_not_depend_on_the_target() {
        let device = Device::flex();
        let mut noise = Noise::from_seed(1);
        let mut tensor = || {
            let values = noise.normal_vec(3 * 8).expect("a small count");
            Tensor::<2>::from_data(TensorData::new(values, [3, 8]), &device)
        };
        let (start, epsilon, slip) = (tensor(), tensor(), tensor() * 0.1);
        let timesteps = vec![50, 500, 950];
        for (weighting, expected) in [
            (Weighting::MinSnr(5.0), [5.0, 0.9696, 0.005_854]),
            (
                Weighting::TruncatedSnr {
                    least: 1.0,
                    most: 5.0,
                },
                [5.0, 1.0, 1.0],
            ),
        ] {
            let squares =
                to_host(row_means(slip.clone().powi_scalar(2)), "squares").expect("values");
            for target in [Target::Epsilon, Target::Sample, Target::Velocity] {
                let process = Process::new(
                    BetaSchedule::SquaredCosine,
                    1000,
                    target,
                    Variance::FixedSmall,
                );
                let loss = DiffusionLoss::new(process.clone(), weighting);
                let noised = loss.noised(start.clone(), epsilon.clone(), timesteps.clone());
                let bars = timesteps.iter().map(|t| process.alpha_bars()[*t] as f32);
                let bars = TensorData::new(bars.collect::<Vec<_>>(), [3, 1]);
                let bars = Tensor::<2>::from_data(bars, &device);
                let (signal, sigma) = (bars.clone().sqrt(), (bars * -1.0 + 1.0).sqrt());
                let guess = start.clone() + slip.clone();
                let output = match target {
                    Target::Epsilon => (noised.current.clone() - guess * signal) / sigma,
                    Target::Sample => guess,
                    Target::Velocity => (noised.current.clone() * signal - guess) / sigma,
                };
                let losses = to_host(loss.losses(output, &noised), "losses").expect("values");
                for ((loss, square), expected) in losses.iter().zip(&squares).zip(expected) {
                    let weight = loss / square;
                    assert!(
                        (weight / expected - 1.0).abs() < 0.02,
                        "{weighting:?} {target:?}: {weight} instead of {expected}"
                    );
                }
            }
        }
    }
}
