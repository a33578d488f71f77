//! The training loop.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Instant,
};

use burn::{module::Module, tensor::Device};

use super::{
    Broken, Loader, LogRow, Optimizer, Pass, Recipe, Samples, TrainSettings,
    ahead::Ahead,
    checkpoint::{self, State, checkpoints},
    latest_checkpoint,
    log::{Log, read_log},
    loss_curve,
    optimizer::{norm, numbers},
    recording::Recording,
};
use crate::{
    error::{Error, Result},
    image::save_png,
    kernels::step::can_record,
};

/// What a run is told after each step.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Steps done, of `steps`.
    pub row: LogRow,
    /// Steps in all.
    pub steps: usize,
    /// Samples that could not be used so far.
    pub broken: usize,
    /// Whether a checkpoint was written after this step.
    pub is_saved: bool,
    /// Whether the device repeated a step that it had recorded.
    pub is_recorded: bool,
}

/// Trains a model by a [`Recipe`].
///
/// # Example
///
/// ```ignore
/// let mut trainer = Trainer::new(recipe, model, settings, &[device])?;
/// trainer.resume("run".as_ref())?; // goes on if there is something to go on with
/// trainer.run(samples, "run".as_ref(), |_, progress| {
///     println!("{}: {}", progress.row.step, progress.row.loss);
///     ControlFlow::Continue(())
/// })?;
/// let model = trainer.averaged();
/// ```
#[derive(Debug)]
pub struct Trainer<R: Recipe> {
    recipe: Arc<R>,
    /// Tracks gradients.
    model: Option<R::Model>,
    optimizer: Optimizer,
    settings: TrainSettings,
    devices: Vec<Device>,
    step: usize,
    running_loss: Option<f64>,
    broken: Vec<Broken>,
    /// Samples of the run.
    samples: Option<usize>,
    records: bool,
}

impl<R: Recipe> Trainer<R> {
    /// A trainer of `model` on `devices`: with several, each computes its share of every batch, and
    /// the first one keeps model and optimiser.
    ///
    /// Parameters that the model has frozen stay as they are.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn new(
        recipe: R,
        model: R::Model,
        settings: TrainSettings,
        devices: &[Device],
    ) -> Result<Self> {
        settings.check()?;
        let Some(main) = devices.first() else {
            return Err(Error::setting("devices", 0, "at least 1 is needed"));
        };
        let devices: Vec<Device> = devices.iter().map(|d| d.clone().autodiff()).collect();
        Ok(Self {
            recipe: Arc::new(recipe),
            model: Some(tracked(model, &main.clone().autodiff())),
            optimizer: Optimizer::default(),
            settings,
            devices,
            step: 0,
            running_loss: None,
            broken: Vec::new(),
            samples: None,
            records: false,
        })
    }

    /// Has the device record a step and repeat it with other numbers, where one device that can
    /// ([`Device`]s of CubeCL without fusion: CUDA graphs on NVIDIA's) computes a recipe whose steps can be
    /// [recorded](Recipe::recordable), a batch in one piece; elsewhere it changes nothing. It is meant for
    /// networks whose launches take longer than their arithmetic; it takes up to twice the memory.
    /// Until [`run`](Self::run) ends, clones of [`model`](Self::model) may change with the steps.
    pub fn with_recorded_steps(mut self) -> Self {
        self.records = true;
        self
    }

    /// Goes on from the newest checkpoint of a run's folder; whether there was one.
    ///
    /// # Errors
    /// A damaged checkpoint, one of another model, or one that was made with another seed or batch,
    /// with which the data would be read in another order.
    pub fn resume(&mut self, folder: &Path) -> Result<bool> {
        let Some(path) = latest_checkpoint(folder) else {
            return Ok(false);
        };
        let (model, optimizer, state) =
            checkpoint::read(&path, self.model().valid()).map_err(|error| damaged(&path, error))?;
        let key = |s: &TrainSettings| (s.seed, s.batch);
        if key(&state.settings) != key(&self.settings) {
            let found = format!("{:?}", key(&self.settings));
            let expected = format!("{:?}, as in {}", key(&state.settings), path.display());
            return Err(Error::setting("seed and batch", found, expected));
        }
        self.recipe.restore(&state.recipe)?;
        self.broken = state.broken();
        self.model = Some(tracked(model, &self.devices[0]));
        (self.optimizer, self.step) = (optimizer, state.step);
        self.running_loss = state.running_loss.map(f64::from_bits);
        self.samples = state.samples;
        Ok(true)
    }

    /// Trains until all steps are done, with checkpoints, `log.csv` and `loss.png` in `folder`.
    ///
    /// `watch` is called after each step; `ControlFlow::Break(())` writes a checkpoint and ends.
    ///
    /// # Errors
    /// [`Error::Diverged`] for a loss that is not finite or spikes, with the batch and the last good
    /// checkpoint; [`Error::Cancelled`]; too many broken samples or none that can be used; a folder whose
    /// run is further on; another number of samples than the run began with, as they would come in another
    /// order; what reading and writing gives.
    pub fn run(
        &mut self,
        samples: Arc<dyn Samples<Item = R::Sample>>,
        folder: &Path,
        mut watch: impl FnMut(&Self, Progress) -> ControlFlow<()>,
    ) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e, "cannot be made"))?;
        let settings = self.settings.clone();
        self.check_run(folder, samples.len())?;
        let mut log = Log::open(folder, self.step)?;
        if latest_checkpoint(folder).is_none() {
            self.save(folder)?;
        }
        let (batch, seed) = (settings.batch, settings.seed);
        let loader = Loader::new(samples, batch, seed, self.step, settings.workers)?;
        let (recipe, step, steps) = (self.recipe.clone(), self.step, settings.steps);
        thread::scope(|scope| {
            let ahead = Ahead::start(scope, recipe, loader, seed, step, steps);
            self.steps(&mut log, folder, &ahead, &mut watch)
        })
    }

    /// Whether the run in `folder` is the one that this trainer has got to, of as many samples.
    fn check_run(&mut self, folder: &Path, samples: usize) -> Result<()> {
        if let Some((step, path)) = checkpoints(folder).pop()
            && step > self.step
        {
            let found = format!("{}, after step {step}", path.display());
            let expected = format!(
                "no checkpoint after step {}: `resume` goes on with that run, another folder begins one",
                self.step
            );
            return Err(Error::setting("the run's folder", found, expected));
        }
        match self.samples.replace(samples) {
            Some(known) if known != samples => {
                self.samples = Some(known);
                let expected = format!(
                    "{known}, as when the run began: with others, begin a new run from its model (if the \
                     run is in the data's folder, what it writes there counts)"
                );
                Err(Error::setting("samples", samples, expected))
            }
            _ => Ok(()),
        }
    }

    /// The steps that are left.
    fn steps(
        &mut self,
        log: &mut Log,
        folder: &Path,
        ahead: &Ahead<R::Example>,
        watch: &mut impl FnMut(&Self, Progress) -> ControlFlow<()>,
    ) -> Result<()> {
        let settings = self.settings.clone();
        let recipe = self.recipe.clone();
        let mut recording = Recording::new(self, &*recipe);
        while self.step < settings.steps {
            let start = Instant::now();
            let next = ahead.take(self.step)?;
            self.note_broken(next.broken)?;
            let (loss, gradient_norm) = match next.examples.is_empty() {
                true => (f64::NAN, 0.0),
                false => {
                    let names = next.names.join(", ");
                    self.update(&next.examples, &names, folder, ahead, &mut recording)?
                }
            };
            ahead.done(self.step);
            let row = LogRow {
                step: self.step + 1,
                loss,
                gradient_norm,
                learning_rate: settings.learning_rate_at(self.step),
                samples_per_second: settings.batch as f64 / start.elapsed().as_secs_f64(),
            };
            self.step += 1;
            log.write(&row)?;
            let is_last = self.step == settings.steps;
            let is_saved = is_last || self.step.is_multiple_of(settings.save_every);
            if is_saved {
                self.save(folder)?;
            }
            let progress = Progress {
                row,
                steps: settings.steps,
                broken: self.broken.len(),
                is_saved,
                is_recorded: recording.is_on(),
            };
            if watch(self, progress).is_break() && !is_last {
                if !is_saved {
                    self.save(folder)?;
                }
                return Err(Error::Cancelled {
                    stage: "training".into(),
                    step: self.step,
                    steps: settings.steps,
                });
            }
        }
        Ok(())
    }

    /// One step on these examples; mean loss and length of the gradient.
    fn update<'r>(
        &mut self,
        examples: &[R::Example],
        names: &str,
        folder: &Path,
        ahead: &Ahead<R::Example>,
        recording: &mut Recording<'r, R>,
    ) -> Result<(f64, f64)> {
        let step = self.step;
        let diverged = |reason: String| Error::Diverged {
            step: step + 1,
            reason,
            batch: names.to_owned(),
            checkpoint: latest_checkpoint(folder),
        };
        let found = match recording.pass(self, examples, ahead) {
            Ok(Some((losses, length))) => Ok((losses, length, None)),
            Ok(None) => self.backward(examples).and_then(|pass| {
                let length = norm(self.model(), &pass.gradients)?;
                Ok((pass.losses, length, Some(pass.gradients)))
            }),
            Err(error) => Err(error),
        };
        let (losses, length, gradients) = match found {
            Err(Error::NotFinite { stage, .. }) => {
                return Err(diverged(format!("the {stage} is not finite")));
            }
            found => found?,
        };
        let loss = losses.iter().map(|l| f64::from(*l)).sum::<f64>() / examples.len() as f64;
        if let (Some(factor), Some(mean)) = (self.settings.spike, self.running_loss)
            && step >= self.settings.warm_up
            && loss > factor * mean
        {
            return Err(diverged(format!(
                "the loss rose to {loss:.4} from {mean:.4}"
            )));
        }
        let mean = self.running_loss.unwrap_or(loss);
        self.running_loss = Some(mean + (loss - mean) * 0.02);
        let scale = match self.settings.clip_norm {
            Some(limit) if length > limit => limit / length,
            _ => 1.0,
        };
        match gradients {
            Some(gradients) => {
                if let Some(model) = self.model.take() {
                    let settings = &self.settings;
                    let model = self.optimizer.step(model, gradients, scale, settings, step);
                    self.model = Some(self.recipe.constrained(model));
                }
            }
            None => recording.update(&numbers(scale, &self.settings, step)),
        }
        self.recipe.observe(examples, &losses);
        Ok((loss, length))
    }

    /// Gradients of the mean loss, each device with a share of the examples.
    fn backward(&self, examples: &[R::Example]) -> Result<Pass> {
        let scale = 1.0 / examples.len() as f64;
        let all: Vec<&R::Example> = examples.iter().collect();
        let (recipe, pieces) = (&self.recipe, self.settings.pieces);
        recipe.backward(self.model(), &all, pieces, scale, &self.devices)
    }

    fn note_broken(&mut self, broken: Vec<Broken>) -> Result<()> {
        for one in broken {
            if !self.broken.iter().any(|known| known.name == one.name) {
                self.broken.push(one);
            }
        }
        match self.broken.last() {
            Some(last) if self.broken.len() > self.settings.max_broken => {
                let found = format!("{} ({}: {})", self.broken.len(), last.name, last.reason);
                let expected = format!("at most {}: see max_broken", self.settings.max_broken);
                Err(Error::setting("broken samples", found, expected))
            }
            Some(last) if self.samples.is_some_and(|all| self.broken.len() >= all) => {
                let found = format!("all that there are ({}: {})", last.name, last.reason);
                Err(Error::setting(
                    "broken samples",
                    found,
                    "a sample that can be used",
                ))
            }
            _ => Ok(()),
        }
    }

    /// Writes a checkpoint of this moment and the curve of the loss.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, folder: &Path) -> Result<PathBuf> {
        let state = State {
            step: self.step,
            settings: self.settings.clone(),
            trained: self.optimizer.first.keys().cloned().collect(),
            broken: self
                .broken
                .iter()
                .map(|b| (b.name.clone(), b.reason.clone()))
                .collect(),
            running_loss: self.running_loss.map(f64::to_bits),
            samples: self.samples,
            recipe: self.recipe.state(),
        };
        let model = self.model().valid();
        let keep = self.settings.keep;
        let path = checkpoint::write(folder, &model, &self.optimizer, &state, keep)?;
        let record = folder.join("log.csv");
        if record.exists() {
            save_png(
                &loss_curve(&read_log(&record)?),
                &folder.join("loss.png"),
                &[],
            )?;
        }
        Ok(path)
    }

    /// Changes how many steps there are in all, and with them how fast the learning rate falls. It rises
    /// over a twentieth of them at most.
    pub fn set_steps(&mut self, steps: usize) {
        self.settings.steps = steps.max(1);
        self.settings.warm_up = self.settings.warm_up.min(steps.div_ceil(20));
    }

    /// Steps done.
    pub fn step(&self) -> usize {
        self.step
    }

    /// Where steps are to be recorded: the device, if it can.
    pub(super) fn recorder(&self) -> Option<&Device> {
        match &self.devices[..] {
            [device] if self.records && self.settings.pieces <= 1 && can_record(device) => {
                Some(device)
            }
            _ => None,
        }
    }

    /// Examples of a step.
    pub(super) fn batch(&self) -> usize {
        self.settings.batch
    }

    pub(super) fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    /// The recipe.
    pub fn recipe(&self) -> &R {
        &self.recipe
    }

    /// Samples that could not be used.
    pub fn broken(&self) -> &[Broken] {
        &self.broken
    }

    /// The model as trained, which tracks gradients.
    pub fn model(&self) -> &R::Model {
        // It is away only while the optimiser has it, which nothing can see.
        self.model.as_ref().expect("the trainer has its model")
    }

    /// The model with averaged weights, not tracked: the one to sample with.
    pub fn averaged(&self) -> R::Model {
        self.optimizer.averaged(self.model().valid(), self.records)
    }
}

/// What a checkpoint of a run lacks cannot be had from elsewhere.
fn damaged(path: &Path, error: Error) -> Error {
    match error {
        Error::NotFound { .. } | Error::WeightFile { .. } | Error::Json { .. } => {
            let remedy = "without this folder the run goes on from the checkpoint before it";
            Error::data(path.display(), format!("{error}; {remedy}"))
        }
        other => other,
    }
}

/// The model with parameters that are tracked, but for frozen ones.
fn tracked<M: Module>(model: M, device: &Device) -> M {
    model.to_device(device).train()
}
