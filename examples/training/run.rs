//! Flags of a run, and running it.

use std::{
    error::Error,
    ops::ControlFlow,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use unclip::{
    burn::tensor::Device,
    core::train::{Progress, Recipe, Samples, TrainSettings, Trainer, latest_checkpoint},
};

use super::pace::Pace;
use crate::support::{DEVICES, Done, Units, parse_device};

/// Flags of a run.
#[derive(Args, Clone, Debug)]
pub struct Flags {
    /// Go on from the last checkpoint in the run's folder. Runs that were killed and resumed end with
    /// the same weights as runs that were not.
    #[arg(long)]
    pub resume: bool,

    /// Steps, instead of the recipe's.
    #[arg(long)]
    pub steps: Option<usize>,

    /// Samples in a step, instead of the recipe's.
    #[arg(long)]
    pub batch: Option<usize>,

    /// Pieces that a batch is computed in: less memory, the same gradients.
    #[arg(long, default_value_t = 1)]
    pub accumulate: usize,

    /// Highest learning rate, instead of the recipe's.
    #[arg(long)]
    pub lr: Option<f64>,

    /// Seed of the data's order and of all that is drawn.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,

    /// Steps between checkpoints, instead of the recipe's.
    #[arg(long)]
    pub save_every: Option<usize>,

    /// Stop after so many minutes, with a checkpoint.
    #[arg(long, value_parser = parse_minutes)]
    pub minutes: Option<f64>,

    /// Train for so many minutes in all: however many steps that is, the learning rate falls to 0 at the
    /// end.
    #[arg(long, value_name = "MINUTES", value_parser = parse_minutes)]
    #[arg(conflicts_with_all = ["steps", "minutes"])]
    pub within: Option<f64>,

    /// Threads that read data.
    #[arg(long, default_value_t = 1)]
    pub workers: usize,

    /// Where to compute; a GPU of several as NAME:NUMBER. Several share each batch: cuda:0,cuda:1. On
    /// two cores flex,flex is faster than flex.
    #[arg(long, value_parser = parse_device, value_delimiter = ',', default_value = DEVICES[0])]
    pub device: Vec<Device>,

    /// Have a GPU record a step and repeat it with other numbers, where the recipe can (decoder,
    /// upsamplers): for small networks, whose launches take the time, with up to twice the memory.
    #[arg(long)]
    pub record: bool,

    #[command(flatten)]
    pub units: Units,
}

/// Steps over which the rate of a run `--within` a time rises at most.
const WARM_UP: usize = 200;

fn parse_minutes(text: &str) -> Result<f64, String> {
    match text.parse() {
        // Up to a year.
        Ok(minutes) if (0.0..=525_600.0).contains(&minutes) => Ok(minutes),
        _ => Err("a number of minutes is needed, such as 90 or 0.5".into()),
    }
}

impl Flags {
    /// A recipe's settings with what the flags say.
    pub fn settings(&self, recipe: TrainSettings) -> TrainSettings {
        let steps = self.steps.unwrap_or(recipe.steps);
        TrainSettings {
            steps,
            batch: self.batch.unwrap_or(recipe.batch),
            pieces: self.accumulate,
            learning_rate: self.lr.unwrap_or(recipe.learning_rate),
            warm_up: match self.within {
                // How many steps there will be is not known yet.
                Some(_) => recipe.warm_up.min(WARM_UP),
                None => recipe.warm_up.min(steps.div_ceil(20)),
            },
            seed: self.seed,
            save_every: self.save_every.unwrap_or(recipe.save_every),
            workers: self.workers,
            ..recipe
        }
    }

    /// Runs a recipe in `folder` with a progress bar. `watch` is called after each step.
    pub fn run<R: Recipe>(
        &self,
        folder: &Path,
        recipe: R,
        model: R::Model,
        settings: TrainSettings,
        samples: Arc<dyn Samples<Item = R::Sample>>,
        mut watch: impl FnMut(&Trainer<R>, Progress) -> Done,
    ) -> Result<Trainer<R>, Box<dyn Error>> {
        self.units.choose();
        let bar = bar(folder, settings.steps)?;
        let mut trainer = Trainer::new(recipe, model, settings, &self.device)?;
        if self.record {
            trainer = trainer.with_recorded_steps();
        }
        if let Some(checkpoint) = latest_checkpoint(folder) {
            if !self.resume {
                return Err(format!(
                    "there is a run in {} already: --resume goes on with it, another folder \
                     begins a new one",
                    checkpoint.display()
                )
                .into());
            }
            trainer.resume(folder)?;
            bar.set_position(trainer.step() as u64);
            bar.reset_eta();
        }
        let start = Instant::now();
        let limit = self.minutes.map(|m| Duration::from_secs_f64(60.0 * m));
        let mut pace = self.within.map(Pace::new);
        let (mut mean, mut failed) = (None, None);
        let result = loop {
            if let Some(pace) = &mut pace {
                trainer.set_steps(pace.steps(trainer.step()));
            }
            let result = trainer.run(samples.clone(), folder, |trainer, progress| {
                let row = progress.row;
                // A step none of whose samples could be used has no loss.
                if row.loss.is_finite() {
                    let mean = mean.get_or_insert(row.loss);
                    *mean += 0.02 * (row.loss - *mean);
                }
                let mean = mean.unwrap_or(f64::NAN);
                bar.set_length(progress.steps as u64);
                bar.set_position(row.step as u64);
                let broken = match progress.broken {
                    0 => String::new(),
                    count => format!(", {count} samples left out"),
                };
                bar.set_message(format!(
                    "loss {mean:.4}, {:.1} samples/s{broken}",
                    row.samples_per_second
                ));
                if let Err(error) = bar.suspend(|| watch(trainer, progress)) {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
                let is_over = limit.is_some_and(|limit| start.elapsed() > limit);
                match is_over || pace.as_mut().is_some_and(|pace| pace.is_due()) {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            });
            let is_paused = matches!(result, Err(unclip::Error::Cancelled { .. }));
            if !(is_paused && pace.is_some() && failed.is_none()) {
                break result;
            }
        };
        bar.abandon();
        for broken in trainer.broken() {
            eprintln!("left out: {}: {}", broken.name, broken.reason);
        }
        if let Some(error) = failed {
            return Err(error);
        }
        match result {
            // What was asked for: this much time and no more.
            Err(unclip::Error::Cancelled { .. }) if limit.is_some() => Ok(trainer),
            result => result.map(|()| trainer).map_err(Into::into),
        }
    }
}

fn bar(folder: &Path, steps: usize) -> Result<ProgressBar, Box<dyn Error>> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let style = format!("{name:>16} {{bar:32}} {{pos}}/{{len}} {{elapsed}} (left {{eta}}) {{msg}}");
    Ok(ProgressBar::new(steps as u64).with_style(ProgressStyle::with_template(&style)?))
}
