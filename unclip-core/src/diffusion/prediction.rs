//! From what a network predicts to x₀ and ε, whatever it was trained to predict.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{Process, Target};

/// How predicted x₀ is kept in range.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Clip {
    /// Clamped to ±this.
    Range(f64),
    /// Clamped to ±s and divided by s, where s is this quantile of |x₀| in each picture, at least
    /// 1 and at most `max` (dynamic thresholding of Imagen, arXiv 2205.11487).
    Dynamic {
        /// The quantile, from 0 to 1.
        quantile: f64,
        /// The largest s.
        max: f64,
    },
}

impl Clip {
    /// Applies it to predicted x₀, `[b, ..]`.
    pub fn apply<const D: usize>(self, start: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Range(range) => start.clamp(-range, range),
            Self::Dynamic { quantile, max } => {
                let shape = start.dims();
                let [rows, count] = [shape[0], shape[1..].iter().product()];
                let flat = start.reshape([rows, count]);
                let limit = row_quantile(flat.clone().abs(), quantile).clamp(1.0, max);
                let limit = limit.expand([rows, count]);
                let clamped = flat.max_pair(limit.clone().neg()).min_pair(limit.clone());
                (clamped / limit).reshape(shape)
            }
        }
    }
}

/// The quantile of each row, `[b, n]` → `[b, 1]`, interpolated between neighbours.
fn row_quantile(x: Tensor<2>, quantile: f64) -> Tensor<2> {
    let last = x.dims()[1] - 1;
    let at = quantile.clamp(0.0, 1.0) * last as f64;
    let (low, share) = (at.floor() as usize, at.fract());
    let sorted = x.sort(1);
    let lower = sorted.clone().narrow(1, low, 1);
    let upper = sorted.narrow(1, (low + 1).min(last), 1);
    lower.clone() + (upper - lower) * share
}

impl Process {
    /// Predicted x₀ of x = `signal` · x₀ + `sigma` · ε, not clipped.
    pub fn start_of<const D: usize>(
        &self,
        x: Tensor<D>,
        target: Tensor<D>,
        signal: f64,
        sigma: f64,
    ) -> Tensor<D> {
        match self.target {
            Target::Epsilon => (x - target * sigma) / signal,
            Target::Sample => target,
            Target::Velocity => x * signal - target * sigma,
        }
    }

    /// Predicted ε of x = `signal` · x₀ + `sigma` · ε.
    pub fn noise_of<const D: usize>(
        &self,
        x: Tensor<D>,
        target: Tensor<D>,
        signal: f64,
        sigma: f64,
    ) -> Tensor<D> {
        match self.target {
            Target::Epsilon => target,
            Target::Sample => (x - target * signal) / sigma,
            Target::Velocity => target * signal + x * sigma,
        }
    }

    /// [`start_of`](Self::start_of), clipped as the process says.
    pub fn clipped_start_of<const D: usize>(
        &self,
        x: Tensor<D>,
        target: Tensor<D>,
        signal: f64,
        sigma: f64,
    ) -> Tensor<D> {
        let start = self.start_of(x, target, signal, sigma);
        match self.clip {
            Some(clip) => clip.apply(start),
            None => start,
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::diffusion::{BetaSchedule, Variance};

    #[test]
    fn every_target_gives_back_what_was_mixed() {
        let device = Device::flex();
        let start = Tensor::<2>::from_data([[0.5, -0.25]], &device);
        let noise = Tensor::<2>::from_data([[1.5, 0.75]], &device);
        let (signal, sigma) = (0.8, 0.6);
        let x = start.clone() * signal + noise.clone() * sigma;
        for (target, output) in [
            (Target::Epsilon, noise.clone()),
            (Target::Sample, start.clone()),
            (
                Target::Velocity,
                noise.clone() * signal - start.clone() * sigma,
            ),
        ] {
            let process = Process::new(
                BetaSchedule::SquaredCosine,
                10,
                target,
                Variance::FixedSmall,
            );
            let found = process.start_of(x.clone(), output.clone(), signal, sigma);
            assert!((found - start.clone()).abs().max().into_scalar::<f32>() < 1e-6);
            let found = process.noise_of(x.clone(), output, signal, sigma);
            assert!((found - noise.clone()).abs().max().into_scalar::<f32>() < 1e-6);
        }
    }

    #[test]
    fn dynamic_clipping_takes_each_rows_quantile() {
        let device = Device::flex();
        let x = Tensor::<2>::from_data([[0.0, -4.0, 2.0], [0.5, 0.25, -0.5]], &device);
        let clip = Clip::Dynamic {
            quantile: 0.75,
            max: 10.0,
        };
        // |x| sorted: 0, 2, 4; three quarters of the way is 3.
        let found: Vec<f32> = clip.apply(x).into_data().try_to_vec().unwrap();
        assert_eq!(found, [0.0, -1.0, 2.0 / 3.0, 0.5, 0.25, -0.5]);
    }
}
