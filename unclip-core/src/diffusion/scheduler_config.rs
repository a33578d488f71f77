//! diffusers' `scheduler_config.json`, as far as unCLIP checkpoints use it.

use std::path::Path;

use serde::Deserialize;

use super::{BetaSchedule, Process, Target, Variance};
use crate::{
    error::{Error, Result},
    json,
};

/// The settings of a `UnCLIPScheduler`; missing keys have the reference's defaults.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct SchedulerConfig {
    /// `UnCLIPScheduler`.
    #[serde(rename = "_class_name")]
    pub class_name: String,
    /// Timesteps the network was trained with.
    pub num_train_timesteps: usize,
    /// `squaredcos_cap_v2`, `linear` or `scaled_linear`.
    pub beta_schedule: String,
    /// First β of the linear schedules.
    pub beta_start: f64,
    /// Last β of the linear schedules.
    pub beta_end: f64,
    /// `epsilon`, `sample` or `v_prediction`.
    pub prediction_type: String,
    /// `fixed_small`, `fixed_small_log`, `fixed_large`, `learned` or `learned_range`.
    pub variance_type: String,
    /// Whether predicted x₀ is clamped.
    pub clip_sample: bool,
    /// To ± this.
    pub clip_sample_range: Option<f64>,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            class_name: "UnCLIPScheduler".into(),
            num_train_timesteps: 1000,
            beta_schedule: "squaredcos_cap_v2".into(),
            beta_start: 1e-4,
            beta_end: 0.02,
            prediction_type: "epsilon".into(),
            variance_type: "fixed_small_log".into(),
            clip_sample: true,
            clip_sample_range: Some(1.0),
        }
    }
}

impl SchedulerConfig {
    /// Reads `scheduler_config.json` in `folder` and builds its process.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Json`], or [`Error::Config`] for a value not supported.
    pub fn load(folder: &Path) -> Result<Process> {
        let path = folder.join("scheduler_config.json");
        let config: Self = json::read(&path)?;
        config.process(&path.display().to_string())
    }

    /// The process these settings describe; `origin` names them in errors.
    ///
    /// # Errors
    /// [`Error::Config`] for a value that is not supported.
    pub fn process(&self, origin: &str) -> Result<Process> {
        let wrong = |key, value: &dyn std::fmt::Display, expected: &str| {
            Err(Error::config(origin, key, value, expected))
        };
        if self.class_name != "UnCLIPScheduler" {
            return wrong("_class_name", &self.class_name, "expected UnCLIPScheduler");
        }
        if !(2..=1_000_000).contains(&self.num_train_timesteps) {
            return wrong(
                "num_train_timesteps",
                &self.num_train_timesteps,
                "expected 2 to 1,000,000",
            );
        }
        let (start, end) = (self.beta_start, self.beta_end);
        for (key, beta) in [("beta_start", start), ("beta_end", end)] {
            if self.beta_schedule != "squaredcos_cap_v2" && !(beta > 0.0 && beta < 1.0) {
                return wrong(key, &beta, "expected a number between 0 and 1");
            }
        }
        let schedule = match self.beta_schedule.as_str() {
            "squaredcos_cap_v2" => BetaSchedule::SquaredCosine,
            "linear" => BetaSchedule::Linear { start, end },
            "scaled_linear" => BetaSchedule::ScaledLinear { start, end },
            other => {
                return wrong(
                    "beta_schedule",
                    &other,
                    "expected squaredcos_cap_v2, linear or scaled_linear",
                );
            }
        };
        let target = match self.prediction_type.as_str() {
            "epsilon" => Target::Epsilon,
            "sample" => Target::Sample,
            "v_prediction" => Target::Velocity,
            other => {
                return wrong(
                    "prediction_type",
                    &other,
                    "expected epsilon, sample or v_prediction",
                );
            }
        };
        let variance = match self.variance_type.as_str() {
            "fixed_small" => Variance::FixedSmall,
            "fixed_small_log" => Variance::FixedSmallLog,
            "fixed_large" => Variance::FixedLarge,
            "learned" => Variance::Learned,
            "learned_range" => Variance::LearnedRange,
            other => {
                return wrong(
                    "variance_type",
                    &other,
                    "expected fixed_small, fixed_small_log, fixed_large, learned or learned_range",
                );
            }
        };
        let clip = match (self.clip_sample, self.clip_sample_range) {
            (false, _) => None,
            (true, Some(range)) if range > 0.0 => Some(range),
            (true, range) => {
                return wrong(
                    "clip_sample_range",
                    &format!("{range:?}"),
                    "expected a positive number",
                );
            }
        };
        Ok(Process::new(schedule, self.num_train_timesteps, target, variance).with_clip(clip))
    }
}
