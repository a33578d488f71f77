//! DPM-Solver (arXiv 2206.00927) and DPM-Solver++ (arXiv 2211.01095), multistep.

use std::collections::VecDeque;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    FinalSigma, Level, Method, Sigmas, Spacing, Tables, Timestep, Tools,
    sigmas::{check_falling, timestep_of},
};
use crate::{
    diffusion::Process,
    error::{Error, Result},
};

/// Which equation is solved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// In predicted x₀ (DPM-Solver++).
    PlusPlus,
    /// In predicted ε (DPM-Solver).
    Noise,
    /// In predicted x₀, with fresh noise in every step (SDE-DPM-Solver++).
    SdePlusPlus,
    /// In predicted ε, with fresh noise in every step (SDE-DPM-Solver).
    SdeNoise,
}

impl Algorithm {
    fn is_stochastic(self) -> bool {
        matches!(self, Self::SdePlusPlus | Self::SdeNoise)
    }

    fn solves_for_noise(self) -> bool {
        matches!(self, Self::Noise | Self::SdeNoise)
    }
}

/// How the second order uses the slope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Correction {
    /// At the middle of the step.
    Midpoint,
    /// Over the whole step.
    Heun,
}

/// Settings of [`Sampler::DpmSolver`](super::Sampler::DpmSolver).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DpmSolver {
    /// Network evaluations.
    pub steps: usize,
    /// 1 to 3; stochastic algorithms have 1 and 2.
    pub order: usize,
    /// Which equation is solved.
    pub algorithm: Algorithm,
    /// How the second order uses the slope.
    pub correction: Correction,
    /// The noise levels.
    pub sigmas: Sigmas,
    /// Where the last step ends; algorithms on ε need [`FinalSigma::Smallest`].
    pub end: FinalSigma,
    /// With fewer than 15 steps, lower order in the last ones, for stability.
    pub is_last_lower: bool,
    /// First order in the last step.
    pub is_last_euler: bool,
    /// Leaves out timesteps with λ = ln(√ᾱ / √(1−ᾱ)) below this.
    pub min_lambda: Option<f64>,
    /// Arithmetic of the levels.
    pub tables: Tables,
}

impl DpmSolver {
    /// DPM-Solver++ of order 2 on evenly spread timesteps.
    pub fn new(steps: usize) -> Self {
        Self {
            steps,
            order: 2,
            algorithm: Algorithm::PlusPlus,
            correction: Correction::Midpoint,
            sigmas: Sigmas::Timesteps(Spacing::Linspace),
            end: FinalSigma::Zero,
            is_last_lower: true,
            is_last_euler: false,
            min_lambda: None,
            tables: Tables::Diffusers,
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let most = if self.algorithm.is_stochastic() { 2 } else { 3 };
        if !(1..=most).contains(&self.order) {
            let expected = format!("1 to {most} for this algorithm");
            return Err(Error::setting("order", self.order, expected));
        }
        if self.algorithm.solves_for_noise() && self.end == FinalSigma::Zero {
            let expected =
                "this algorithm needs `Smallest`: noise cannot be solved for without any";
            return Err(Error::setting("end", "Zero", expected));
        }
        Ok(())
    }

    pub(super) fn method<const D: usize>(&self, process: &Process) -> Result<SolverMethod<D>> {
        let view = self.tables.of(process);
        let all = view.sigmas();
        let (smallest, largest) = (all[0], all[all.len() - 1]);
        let (timesteps, mut sigmas): (Vec<f64>, Vec<f64>) = match self.sigmas {
            Sigmas::Timesteps(spacing) => {
                // λ = −ln σ falls with t.
                let kept = self.min_lambda.map_or(all.len(), |least| {
                    all.iter().filter(|sigma| -sigma.ln() >= least).count()
                });
                let timesteps = spacing.solver_timesteps(all.len(), kept, self.steps);
                let sigmas = timesteps.iter().map(|t| all[*t as usize]).collect();
                (timesteps, sigmas)
            }
            chosen => {
                let logs: Vec<f64> = all.iter().map(|s| view.round(s.ln())).collect();
                let sigmas = chosen.between(largest, smallest, self.steps);
                let timestep = |sigma: &f64| timestep_of(*sigma, &logs).round_ties_even();
                (sigmas.iter().map(timestep).collect(), sigmas)
            }
        };
        sigmas.push(match self.end {
            FinalSigma::Zero => 0.0,
            FinalSigma::Smallest => smallest,
        });
        check_falling(&sigmas[..timesteps.len()])?;
        let levels = sigmas
            .iter()
            .map(|sigma| {
                let sigma = view.round(*sigma);
                let signal = 1.0 / sigma.hypot(1.0);
                Level {
                    signal: view.round(signal),
                    sigma: view.round(sigma * signal),
                }
            })
            .collect();
        Ok(SolverMethod {
            settings: *self,
            sigmas: sigmas.iter().map(|s| view.round(*s)).collect(),
            timesteps,
            levels,
            history: VecDeque::new(),
        })
    }
}

pub(super) struct SolverMethod<const D: usize> {
    settings: DpmSolver,
    timesteps: Vec<f64>,
    sigmas: Vec<f64>,
    levels: Vec<Level>,
    /// What the network said at this and at earlier levels, as the algorithm needs it; newest
    /// first.
    history: VecDeque<Tensor<D>>,
}

impl<const D: usize> SolverMethod<D> {
    fn lambda(&self, index: usize) -> f64 {
        -self.sigmas[index].ln()
    }

    /// Order of a step: no higher than there are answers, and lower at the end.
    fn order(&self, index: usize) -> usize {
        let s = &self.settings;
        let count = self.timesteps.len();
        let is_short = s.is_last_lower && count < 15;
        let most =
            if index + 1 == count && (s.is_last_euler || is_short || s.end == FinalSigma::Zero) {
                1
            } else if index + 2 == count && is_short {
                2
            } else {
                3
            };
        s.order.min(most).min(self.history.len())
    }

    /// Divided differences of the answers over λ: value, slope, curvature, each scaled by the
    /// step's length.
    fn differences(&self, index: usize, order: usize) -> Vec<Tensor<D>> {
        let h = self.lambda(index + 1) - self.lambda(index);
        let ratio = |back: usize| (self.lambda(index - back) - self.lambda(index - back - 1)) / h;
        let answers = &self.history;
        let mut differences = vec![answers[0].clone()];
        if order == 1 {
            return differences;
        }
        let r0 = ratio(0);
        let slope = (answers[0].clone() - answers[1].clone()) / r0;
        if order == 2 {
            differences.push(slope);
            return differences;
        }
        let r1 = ratio(1);
        let slope_before = (answers[1].clone() - answers[2].clone()) / r1;
        let change = slope.clone() - slope_before;
        differences.push(slope + change.clone() * (r0 / (r0 + r1)));
        differences.push(change / (r0 + r1));
        differences
    }

    /// Factors of x, of each difference, and of noise.
    fn factors(&self, index: usize, order: usize) -> (f64, [f64; 3], f64) {
        let (from, to) = (self.levels[index], self.levels[index + 1]);
        let h = self.lambda(index + 1) - self.lambda(index);
        let is_whole = self.settings.correction == Correction::Heun || order == 3;
        match self.settings.algorithm {
            Algorithm::PlusPlus => {
                let e = (-h).exp_m1();
                let second = if is_whole { e / h + 1.0 } else { -0.5 * e };
                let third = (e + h) / (h * h) - 0.5;
                let a = to.signal;
                (to.sigma / from.sigma, [-a * e, a * second, -a * third], 0.0)
            }
            Algorithm::Noise => {
                let e = h.exp_m1();
                let second = if is_whole { e / h - 1.0 } else { 0.5 * e };
                let third = (e - h) / (h * h) - 0.5;
                let s = to.sigma;
                (
                    to.signal / from.signal,
                    [-s * e, -s * second, -s * third],
                    0.0,
                )
            }
            Algorithm::SdePlusPlus => {
                let e = -(-2.0 * h).exp_m1();
                let second = if is_whole {
                    e / (-2.0 * h) + 1.0
                } else {
                    0.5 * e
                };
                let a = to.signal;
                let x = to.sigma / from.sigma * (-h).exp();
                (x, [a * e, a * second, 0.0], to.sigma * e.sqrt())
            }
            Algorithm::SdeNoise => {
                let e = h.exp_m1();
                let second = if is_whole { 2.0 * (e / h - 1.0) } else { e };
                let s = to.sigma;
                let noise = s * (2.0 * h).exp_m1().sqrt();
                (
                    to.signal / from.signal,
                    [-2.0 * s * e, -s * second, 0.0],
                    noise,
                )
            }
        }
    }
}

impl<const D: usize> Method<D> for SolverMethod<D> {
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
        let (process, Level { signal, sigma }) = (tools.process, self.levels[index]);
        let answer = if !self.settings.algorithm.solves_for_noise() {
            process.clipped_start_of(x.clone(), target, signal, sigma)
        } else if process.clip.is_some() {
            let start = process.clipped_start_of(x.clone(), target, signal, sigma);
            (x.clone() - start * signal) / sigma
        } else {
            process.noise_of(x.clone(), target, signal, sigma)
        };
        self.history.push_front(answer);
        self.history.truncate(self.settings.order);

        let order = self.order(index);
        let (of_x, of_differences, of_noise) = self.factors(index, order);
        let shape = x.dims();
        let device = x.device();
        let mut next = x * of_x;
        for (difference, factor) in self
            .differences(index, order)
            .into_iter()
            .zip(of_differences)
        {
            next = next + difference * factor;
        }
        if self.settings.algorithm.is_stochastic() {
            next = next + tools.noise.normal(shape, &device)? * of_noise;
        }
        Ok(next)
    }

    fn forget(&mut self) {
        self.history.clear();
    }
}
