//! Progress bars, and how much memory was used.

use std::{collections::HashMap, ops::ControlFlow};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use unclip::{Stage, Step};

/// A progress bar for each stage, made when the stage makes its first step.
#[derive(Default)]
pub struct StageBars {
    all: MultiProgress,
    bars: HashMap<Stage, ProgressBar>,
}

impl StageBars {
    /// Shows a step; for `on_step`.
    pub fn show(&mut self, step: Step) -> ControlFlow<()> {
        let bar = self.bars.entry(step.stage).or_insert_with(|| {
            let style = ProgressStyle::with_template(
                "{prefix:>13} {bar:32} {pos:>3}/{len:<3} {elapsed} (left {eta})",
            );
            self.all.add(
                ProgressBar::new(step.steps as u64)
                    .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
                    .with_prefix(step.stage.to_string()),
            )
        });
        bar.set_position(step.done as u64);
        if step.done == step.steps {
            bar.finish();
        }
        ControlFlow::Continue(())
    }
}

/// The most memory this process has held since the last [`reset_peak_memory`], in MiB, where the
/// system tells (Linux).
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    line.split_whitespace()
        .nth(1)?
        .parse::<u64>()
        .ok()
        .map(|kib| kib / 1024)
}

/// Starts [`peak_memory`] anew, where the system can (Linux).
pub fn reset_peak_memory() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
