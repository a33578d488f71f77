//! What diffusion networks are trained on.

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::inputs::Inputs;
use crate::{
    diffusion::{Process, Target, Variance},
    error::Result,
    nn::TimeEmbedding,
};

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
    /// What [`DiffusionLoss::numbers`] gave for the timesteps, `[n, b]`.
    pub numbers: Tensor<2>,
}

/// The numbers of a timestep that losses need.
#[derive(Clone, Copy, Debug)]
enum Number {
    /// √ᾱ.
    Signal,
    /// √(1 − ᾱ).
    Sigma,
    /// Factor of the squared error.
    Weight,
    /// Those from here on are for learned variances: logarithm of the least.
    Small,
    /// Logarithm of the largest.
    Large,
    /// The posterior mean's factor of x₀.
    OfStart,
    /// And of x_t.
    OfCurrent,
    /// 1 at the first timestep, else 0.
    IsFirst,
}

impl<const D: usize> Noised<D> {
    /// A number of each element's timestep, to broadcast over its values.
    fn number(&self, number: Number) -> Tensor<D> {
        let mut shape = [1; D];
        shape[0] = self.numbers.dims()[1];
        self.numbers
            .clone()
            .narrow(0, number as usize, 1)
            .reshape(shape)
    }
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

    /// The numbers of timesteps that noise and loss need, `[n, b]` one row after the other; n is
    /// [`count`](Self::count).
    ///
    /// # Panics
    /// If a timestep is not one of the process.
    pub fn numbers(&self, timesteps: &[usize]) -> Vec<f32> {
        let of_each = |number: &dyn Fn(usize) -> f64| -> Vec<f32> {
            timesteps.iter().map(|t| number(*t) as f32).collect()
        };
        let bar = |t: usize| self.process.alpha_bars()[t];
        let mut numbers = of_each(&|t| bar(t).sqrt());
        numbers.extend(of_each(&|t| (1.0 - bar(t)).sqrt()));
        numbers.extend(of_each(&|t| self.weight(t)));
        if self.process.variance == Variance::LearnedRange {
            let posterior = |t: usize| self.process.posterior(t, t.checked_sub(1));
            // The first posterior has no variance at all: the second's stands for it.
            numbers.extend(of_each(&|t| match t {
                0 if self.process.steps() > 1 => posterior(1).variance.ln(),
                _ => posterior(t).variance.ln(),
            }));
            numbers.extend(of_each(&|t| posterior(t).beta.ln()));
            numbers.extend(of_each(&|t| posterior(t).start));
            numbers.extend(of_each(&|t| posterior(t).current));
            numbers.extend(of_each(&|t| f64::from(u8::from(t == 0))));
        }
        numbers
    }

    /// How many numbers there are of each timestep.
    pub fn count(&self) -> usize {
        match self.process.variance {
            Variance::LearnedRange => Number::IsFirst as usize + 1,
            _ => Number::Weight as usize + 1,
        }
    }

    /// Puts to a loss's inputs what [`noised_by`](Self::noised_by) takes, `timesteps`, and what a network is
    /// told of the time, `times`.
    ///
    /// # Errors
    /// None for timesteps of the process.
    pub fn put_times(
        &self,
        inputs: &mut Inputs,
        timesteps: &[usize],
        embedding: &TimeEmbedding,
    ) -> Result<()> {
        let rows = timesteps.len();
        inputs.put("timesteps", &[self.count(), rows], &self.numbers(timesteps))?;
        let times: Vec<f32> = timesteps.iter().map(|t| *t as f32).collect();
        let features = embedding.features(&times);
        inputs.put("times", &[rows, embedding.width()], &features)
    }

    /// x_t of pictures or embeddings, noise and timesteps.
    ///
    /// # Panics
    /// If there is not one timestep of the process for each element.
    pub fn noised<const D: usize>(
        &self,
        start: Tensor<D>,
        noise: Tensor<D>,
        timesteps: &[usize],
    ) -> Noised<D> {
        let numbers = TensorData::new(self.numbers(timesteps), [self.count(), timesteps.len()]);
        let numbers = Tensor::from_data(numbers, (&start.device(), start.dtype()));
        self.noised_by(start, noise, numbers)
    }

    /// The same with what [`numbers`](Self::numbers) gave for the timesteps, `[n, b]`.
    ///
    /// # Panics
    /// If there are not numbers for each element.
    pub fn noised_by<const D: usize>(
        &self,
        start: Tensor<D>,
        noise: Tensor<D>,
        numbers: Tensor<2>,
    ) -> Noised<D> {
        let (count, rows) = (self.count(), start.dims()[0]);
        assert_eq!(numbers.dims(), [count, rows], "one timestep an element");
        let mut noised = Noised {
            current: start.clone(),
            start,
            noise,
            numbers,
        };
        let signal = noised.number(Number::Signal);
        noised.current =
            noised.start.clone() * signal + noised.noise.clone() * noised.number(Number::Sigma);
        noised
    }

    /// The loss of each element, `[b]`, from the network's output: `[b, c, ..]`, or `[b, 2c, ..]`
    /// with variances behind.
    ///
    /// # Panics
    /// If shapes do not fit.
    pub fn losses<const D: usize>(&self, output: Tensor<D>, noised: &Noised<D>) -> Tensor<1> {
        let [rows, channels] = [noised.start.dims()[0], noised.start.dims()[1]];
        let predicted = output.clone().narrow(1, 0, channels);
        let wanted = match self.process.target {
            Target::Epsilon => noised.noise.clone(),
            Target::Sample => noised.start.clone(),
            Target::Velocity => {
                noised.noise.clone() * noised.number(Number::Signal)
                    - noised.start.clone() * noised.number(Number::Sigma)
            }
        };
        let error = row_means((predicted.clone() - wanted).powi_scalar(2));
        let error = error * noised.number(Number::Weight).reshape([rows]);
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
        let number = |number: Number| noised.number(number);
        let (small, large) = (number(Number::Small), number(Number::Large));
        let (start_of, current_of) = (number(Number::OfStart), number(Number::OfCurrent));
        let share = (variance + 1.0) * 0.5;
        let log_variance = share.clone() * large + (share * -1.0 + 1.0) * small.clone();

        let (signal, sigma) = (number(Number::Signal), number(Number::Sigma));
        let start = match self.process.target {
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
        let likelihood = negative_log_likelihood(noised.start.clone(), mean, log_variance * 0.5);
        let is_first = number(Number::IsFirst);
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
                let noised = loss.noised(start.clone(), epsilon.clone(), &timesteps);
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
