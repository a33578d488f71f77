//! How much noise each step of a process adds.

use serde::{Deserialize, Serialize};

/// The schedules of unCLIP, GLIDE and their relatives, by their usual names.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum BetaSchedule {
    /// β from `start` to `end` in equal steps (DDPM, arXiv 2006.11239; `linear`).
    Linear {
        /// First β.
        start: f64,
        /// Last β.
        end: f64,
    },
    /// √β from √`start` to √`end` in equal steps (latent diffusion; `scaled_linear`).
    ScaledLinear {
        /// First β.
        start: f64,
        /// Last β.
        end: f64,
    },
    /// ᾱ(t) = cos²((t + 0.008) / 1.008 · π/2), β capped at 0.999 (arXiv 2102.09672;
    /// `squaredcos_cap_v2`). What unCLIP's prior, decoder and first upsampler use.
    SquaredCosine,
    /// β along a sigmoid from −6 to 6, between `start` and `end` (GeoDiff; `sigmoid`).
    Sigmoid {
        /// First β, nearly.
        start: f64,
        /// Last β, nearly.
        end: f64,
    },
}

impl BetaSchedule {
    /// β of each of `steps` timesteps.
    pub fn betas(&self, steps: usize) -> Vec<f64> {
        let line = |start: f64, end: f64| {
            let last = steps.saturating_sub(1).max(1) as f64;
            (0..steps).map(move |i| start + (end - start) * i as f64 / last)
        };
        match *self {
            Self::Linear { start, end } => line(start, end).collect(),
            Self::ScaledLinear { start, end } => {
                // Roots and squares in f32: only so were models trained with it.
                line(start.sqrt(), end.sqrt())
                    .map(|root| f64::from((root as f32).powi(2)))
                    .collect()
            }
            Self::Sigmoid { start, end } => line(-6.0, 6.0)
                .map(|x| start + (end - start) / (1.0 + (-x).exp()))
                .collect(),
            Self::SquaredCosine => {
                // Division in floating point: integer division here is a bug other ports have.
                let alpha_bar = |i: usize| {
                    let t = i as f64 / steps as f64;
                    ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2)
                        .cos()
                        .powi(2)
                };
                (0..steps)
                    .map(|i| (1.0 - alpha_bar(i + 1) / alpha_bar(i)).min(0.999))
                    .collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cosine_schedule_has_the_reference_values() {
        let betas = BetaSchedule::SquaredCosine.betas(1000);
        // The reference keeps them in f32.
        assert_eq!(betas[0] as f32, 4.128_422_4e-5);
        assert_eq!(betas[999], 0.999);
    }

    #[test]
    fn linear_schedules_keep_their_ends() {
        for schedule in [
            BetaSchedule::Linear {
                start: 1e-4,
                end: 0.02,
            },
            BetaSchedule::ScaledLinear {
                start: 1e-4,
                end: 0.02,
            },
        ] {
            let betas = schedule.betas(1000);
            assert!((betas[0] - 1e-4).abs() < 1e-11 && (betas[999] - 0.02).abs() < 1e-8);
        }
    }
}
