//! As many steps as there is time for.

use std::time::{Duration, Instant};

/// When the number of steps is estimated again, in shares of the time. The first steps, which compile
/// kernels on a GPU, say little of those that follow; and others may come to share the device.
const ESTIMATES: [f64; 6] = [0.1, 0.2, 0.4, 0.6, 0.8, 0.92];

/// Sets a run's number of steps.
#[derive(Debug)]
pub struct Pace {
    start: Instant,
    limit: Duration,
    estimates: usize,
    /// When each step since the last estimate was done.
    done: Vec<Instant>,
}

impl Pace {
    /// A run that begins now.
    pub fn new(minutes: f64) -> Self {
        Self {
            start: Instant::now(),
            limit: Duration::from_secs_f64(60.0 * minutes),
            estimates: 0,
            done: Vec::new(),
        }
    }

    /// Steps in all, when so many are done.
    pub fn steps(&mut self, done: usize) -> usize {
        // The later half of the steps, of which the first do not count.
        let recent = &self.done[self.done.len() / 2..];
        let steps = match (recent.first(), recent.last()) {
            (Some(first), Some(last)) if recent.len() > 1 => {
                let each = (*last - *first).div_f64((recent.len() - 1) as f64);
                let left = self.limit.saturating_sub(self.start.elapsed());
                let more = (left.as_secs_f64() / each.as_secs_f64().max(1e-6)) as usize;
                done + more.max(1)
            }
            // Nothing is known yet, and the learning rate need not fall yet.
            _ => usize::MAX / 2,
        };
        self.done.clear();
        steps
    }

    /// Notes a step; whether to estimate again.
    pub fn is_due(&mut self) -> bool {
        self.done.push(Instant::now());
        let due = ESTIMATES.get(self.estimates);
        let is_due = due.is_some_and(|share| self.start.elapsed() > self.limit.mul_f64(*share));
        // Without some steps there is nothing to estimate from.
        if !is_due || self.done.len() < 4 {
            return false;
        }
        self.estimates += 1;
        true
    }
}
