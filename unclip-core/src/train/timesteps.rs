//! The timesteps that examples are trained at.

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
