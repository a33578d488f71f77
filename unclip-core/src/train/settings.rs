//! The numbers of a training run.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Settings of a [`Trainer`](super::Trainer). Learning rates are those of AdamW (arXiv 1711.05101).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainSettings {
    /// Steps in all.
    pub steps: usize,
    /// Samples in a step.
    pub batch: usize,
    /// Pieces that a batch is computed in: less memory, the same gradients.
    pub pieces: usize,
    /// Seed of the data's order and of every random number.
    pub seed: u64,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Steps over which the learning rate rises from 0.
    pub warm_up: usize,
    /// Whether the learning rate falls to 0 on a cosine after that, or stays.
    pub cosine: bool,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay; only matrices and convolutions are decayed.
    pub weight_decay: f64,
    /// Gradients longer than this, over all parameters, are scaled to it. None: never.
    pub clip_norm: Option<f64>,
    /// Decay of the averaged weights (EMA). 0: none are kept.
    pub ema: f64,
    /// Steps between checkpoints.
    pub save_every: usize,
    /// Checkpoints kept, the newest ones.
    pub keep: usize,
    /// The run stops if a step's loss is this many times the running mean. None: only for NaN.
    pub spike: Option<f64>,
    /// The run stops if more samples than this are broken.
    pub max_broken: usize,
    /// Threads that read data.
    pub workers: usize,
}

impl TrainSettings {
    /// What serves small models: AdamW with 3e-4, warm-up and cosine, clipping at 1, EMA 0.999.
    pub fn new(steps: usize, batch: usize) -> Self {
        Self {
            steps,
            batch,
            pieces: 1,
            seed: 0,
            learning_rate: 3e-4,
            warm_up: (steps / 50).clamp(1, 1000),
            cosine: true,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.01,
            clip_norm: Some(1.0),
            ema: 0.999,
            save_every: 1000,
            keep: 3,
            spike: None,
            max_broken: 100,
            workers: 2,
        }
    }

    /// The learning rate of a step, counted from 0.
    pub fn learning_rate_at(&self, step: usize) -> f64 {
        if step < self.warm_up {
            return self.learning_rate * (step + 1) as f64 / self.warm_up as f64;
        }
        if !self.cosine {
            return self.learning_rate;
        }
        let rest = self.steps.saturating_sub(self.warm_up).max(1);
        let share = ((step - self.warm_up) as f64 / rest as f64).min(1.0);
        self.learning_rate * 0.5 * (1.0 + (std::f64::consts::PI * share).cos())
    }

    /// The decay of the averaged weights after a step, counted from 0: less at the start, where the
    /// weights are still far from any worth keeping.
    pub fn ema_at(&self, step: usize) -> f64 {
        self.ema.min((1 + step) as f64 / (10 + step) as f64)
    }

    /// Refuses settings that cannot be run.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn check(&self) -> Result<()> {
        for (name, value) in [
            ("steps", self.steps),
            ("batch", self.batch),
            ("pieces", self.pieces),
            ("save_every", self.save_every),
            ("keep", self.keep),
            ("workers", self.workers),
        ] {
            if value == 0 {
                return Err(Error::setting(name, 0, "at least 1 is needed"));
            }
        }
        let shares = [
            ("beta1", self.beta1),
            ("beta2", self.beta2),
            ("ema", self.ema),
        ];
        for (name, value) in shares {
            if !(0.0..1.0).contains(&value) {
                return Err(Error::setting(name, value, "at least 0 and below 1"));
            }
        }
        for (name, value) in [
            ("learning_rate", self.learning_rate),
            ("epsilon", self.epsilon),
            ("weight_decay", self.weight_decay),
            ("clip_norm", self.clip_norm.unwrap_or(1.0)),
            ("spike", self.spike.unwrap_or(1.0)),
        ] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(Error::setting(name, value, "a finite number of at least 0"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_learning_rate_rises_and_falls() {
        let settings = TrainSettings {
            warm_up: 10,
            ..TrainSettings::new(110, 1)
        };
        let rate = |step| settings.learning_rate_at(step) / settings.learning_rate;
        assert!((rate(0) - 0.1).abs() < 1e-12 && (rate(9) - 1.0).abs() < 1e-12);
        assert!((rate(60) - 0.5).abs() < 1e-12 && rate(110) < 1e-12 && rate(500) < 1e-12);
        assert!((10..110).all(|step| rate(step) > rate(step + 1)));
    }

    #[test]
    fn nonsense_is_named() {
        let wrong = |change: fn(&mut TrainSettings)| {
            let mut settings = TrainSettings::new(10, 2);
            change(&mut settings);
            match settings.check() {
                Err(Error::Setting { name, .. }) => name,
                other => panic!("{other:?}"),
            }
        };
        assert!(TrainSettings::new(10, 2).check().is_ok());
        assert_eq!(wrong(|s| s.batch = 0), "batch");
        assert_eq!(wrong(|s| s.ema = 1.0), "ema");
        assert_eq!(wrong(|s| s.learning_rate = f64::NAN), "learning_rate");
        assert_eq!(wrong(|s| s.clip_norm = Some(f64::INFINITY)), "clip_norm");
    }
}
