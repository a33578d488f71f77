//! Which timesteps of a process a sampler visits.

use serde::{Deserialize, Serialize};

/// How timesteps are spread over a process of T (arXiv 2305.08891, table 2; diffusers'
/// `timestep_spacing`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Spacing {
    /// Evenly from T − 1 to 0, rounded half to even.
    Linspace,
    /// Multiples of ⌊T / steps⌋ plus `offset`; never reaches T − 1.
    Leading {
        /// Added to every timestep.
        offset: usize,
    },
    /// From T − 1 down in steps of T / steps; never reaches 0.
    Trailing,
}

impl Spacing {
    /// `steps` timesteps of `available`, descending.
    pub fn timesteps(self, available: usize, steps: usize) -> Vec<f64> {
        match self {
            Self::Linspace => {
                let mut all = linspace(0.0, available.saturating_sub(1) as f64, steps);
                all.reverse();
                all.into_iter().map(f64::round_ties_even).collect()
            }
            Self::Leading { offset } => {
                let ratio = available / steps.max(1);
                let at = |i: usize| (i * ratio + offset).min(available.saturating_sub(1)) as f64;
                (0..steps).rev().map(at).collect()
            }
            Self::Trailing => trailing(available, available, steps),
        }
    }

    /// The timesteps of diffusers' DPM-Solver: of `steps` + 1 evenly spread ones the last is left
    /// out. Only timesteps below `last` are used.
    pub(super) fn solver_timesteps(self, available: usize, last: usize, steps: usize) -> Vec<f64> {
        match self {
            Self::Linspace => {
                let mut all = linspace(0.0, last.saturating_sub(1) as f64, steps + 1);
                all.reverse();
                all.truncate(steps);
                all.into_iter().map(f64::round_ties_even).collect()
            }
            Self::Leading { offset } => {
                let ratio = last / (steps + 1);
                let at = |i: usize| (i * ratio + offset).min(available.saturating_sub(1)) as f64;
                (1..=steps).rev().map(at).collect()
            }
            Self::Trailing => trailing(available, last, steps),
        }
    }
}

/// numpy's `linspace`: the last value is exactly `end`.
pub(super) fn linspace(start: f64, end: f64, count: usize) -> Vec<f64> {
    let step = (end - start) / count.saturating_sub(1).max(1) as f64;
    (0..count)
        .map(|i| match i + 1 == count && count > 1 {
            true => end,
            false => start + i as f64 * step,
        })
        .collect()
}

fn trailing(available: usize, last: usize, steps: usize) -> Vec<f64> {
    let ratio = available as f64 / steps.max(1) as f64;
    let count = (last as f64 / ratio).ceil() as usize;
    (0..count)
        .map(|i| (last as f64 - i as f64 * ratio).round_ties_even() - 1.0)
        // Where the ratio is rounded, as with 61 steps of 1000, the count is one too many.
        .take_while(|timestep| *timestep >= 0.0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spacings_are_the_references() {
        assert_eq!(
            Spacing::Linspace.timesteps(1000, 7),
            [999.0, 832.0, 666.0, 500.0, 333.0, 166.0, 0.0]
        );
        assert_eq!(
            Spacing::Leading { offset: 1 }.timesteps(1000, 4),
            [751.0, 501.0, 251.0, 1.0]
        );
        assert_eq!(Spacing::Trailing.timesteps(1000, 3), [999.0, 666.0, 332.0]);
        assert_eq!(
            Spacing::Linspace.solver_timesteps(1000, 1000, 5),
            [999.0, 799.0, 599.0, 400.0, 200.0]
        );
    }

    #[test]
    fn every_count_is_possible_and_stays_inside() {
        for spacing in [
            Spacing::Linspace,
            Spacing::Leading { offset: 1 },
            Spacing::Trailing,
        ] {
            // 100 / (100 / 29) is a little more than 29.
            for steps in [1, 2, 3, 7, 29, 60, 100] {
                let timesteps = spacing.timesteps(100, steps);
                assert_eq!(timesteps.len(), steps, "{spacing:?}");
                assert!(timesteps.iter().all(|t| (0.0..100.0).contains(t)));
                assert!(timesteps.is_sorted_by(|a, b| a >= b));
            }
        }
    }
}
