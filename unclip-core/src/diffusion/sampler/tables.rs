//! In which arithmetic a sampler's coefficients are computed.

use serde::{Deserialize, Serialize};

use crate::diffusion::Process;

/// Whose arithmetic a sampler's coefficients have.
///
/// The difference is visible: at t = 0 diffusers' f32 tables return 0.99947 · x₀ where exact ones
/// return x₀, and the final picture differs by 4e-3 on average.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tables {
    /// Every operation rounded to f32, as diffusers' schedulers do, with their choice of the
    /// previous timestep.
    #[default]
    Diffusers,
    /// f64, as the original Karlo and guided-diffusion do.
    Karlo,
}

impl Tables {
    /// Rounds a result. Applied after each operation on rounded operands this is f32 arithmetic:
    /// +, −, ·, / and √ in f64 keep enough digits for the second rounding to change nothing.
    pub(super) fn round(self, value: f64) -> f64 {
        match self {
            Self::Diffusers => f64::from(value as f32),
            Self::Karlo => value,
        }
    }

    /// The tables of a process in this arithmetic.
    pub(super) fn of(self, process: &Process) -> ProcessTables {
        let betas: Vec<f64> = process.betas().iter().map(|b| self.round(*b)).collect();
        let alpha_bars = match self {
            Self::Karlo => process.alpha_bars().to_vec(),
            // α = 1 − β is taken in f32; the product accumulates in f64 and is rounded entry by
            // entry, as PyTorch does on a CPU.
            Self::Diffusers => betas
                .iter()
                .scan(1.0, |product, beta| {
                    *product *= self.round(1.0 - beta);
                    Some(self.round(*product))
                })
                .collect(),
        };
        ProcessTables {
            betas,
            alpha_bars,
            tables: self,
        }
    }
}

/// β and ᾱ of a process, and how to compute with them.
#[derive(Clone, Debug)]
pub(super) struct ProcessTables {
    pub betas: Vec<f64>,
    pub alpha_bars: Vec<f64>,
    pub tables: Tables,
}

impl ProcessTables {
    pub(super) fn round(&self, value: f64) -> f64 {
        self.tables.round(value)
    }

    /// √ᾱ and √(1−ᾱ) for a given ᾱ.
    pub(super) fn signal_and_sigma(&self, alpha_bar: f64) -> (f64, f64) {
        (
            self.round(alpha_bar.sqrt()),
            self.round(self.round(1.0 - alpha_bar).sqrt()),
        )
    }

    /// σ = √((1−ᾱ)/ᾱ) of every timestep, for samplers on x₀ + σ ε.
    ///
    /// A process without any signal at its end, where σ would be infinite, ends at 4096 instead, as
    /// in diffusers (ᾱ = 2⁻²⁴, the smallest positive f16).
    pub(super) fn sigmas(&self) -> Vec<f64> {
        let sigma = |bar: &f64| match *bar {
            0.0 => 4096.0,
            bar => self.round(self.round(self.round(1.0 - bar) / bar).sqrt()),
        };
        self.alpha_bars.iter().map(sigma).collect()
    }
}
