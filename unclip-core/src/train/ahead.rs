//! The examples of a step, which are prepared while the step before is computed.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::Scope,
};

use super::{Broken, Loader, Recipe, order::mix};
use crate::{
    error::{Error, Result},
    noise::Noise,
};

/// What a step is computed on.
#[derive(Debug)]
pub(super) struct Prepared<E> {
    /// None if no sample could be used.
    pub(super) examples: Vec<E>,
    /// The samples' names.
    pub(super) names: Vec<String>,
    /// Samples that could not be used.
    pub(super) broken: Vec<Broken>,
}

/// A thread that prepares steps in order; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Ahead<E> {
    ask: SyncSender<usize>,
    given: Receiver<Result<Prepared<E>>>,
    /// Whether a step is only prepared when the one before is done.
    waits: bool,
    steps: usize,
    /// Held while a step is prepared.
    busy: Arc<Mutex<()>>,
}

impl<E: Send> Ahead<E> {
    /// Begins with `step`, of `steps` in all, which is the one that the loader is at.
    pub(super) fn start<'s, R>(
        scope: &'s Scope<'s, '_>,
        recipe: Arc<R>,
        mut loader: Loader<R::Sample>,
        seed: u64,
        step: usize,
        steps: usize,
    ) -> Self
    where
        R: Recipe<Example = E> + 's,
        E: 's,
    {
        let (ask, asked) = sync_channel::<usize>(1);
        let (give, given) = sync_channel(1);
        let waits = recipe.learns_from_losses();
        let busy = Arc::new(Mutex::new(()));
        let is_busy = busy.clone();
        scope.spawn(move || {
            for step in asked {
                let prepared = {
                    let _busy = held(&is_busy);
                    prepare(&*recipe, &mut loader, seed, step)
                };
                if give.send(prepared).is_err() {
                    return;
                }
            }
        });
        let ahead = Self {
            ask,
            given,
            waits,
            steps,
            busy,
        };
        ahead.ask(step);
        ahead
    }

    fn ask(&self, step: usize) {
        if step < self.steps {
            // If the thread has ended, `next` says so.
            let _ = self.ask.send(step);
        }
    }

    /// The examples of `step`.
    pub(super) fn take(&self, step: usize) -> Result<Prepared<E>> {
        let prepared = self.given.recv().map_err(|_| {
            let expected = "preparing must not panic: see the message above";
            Error::setting("samples", "the thread that prepares them ended", expected)
        })?;
        if !self.waits {
            self.ask(step + 1);
        }
        prepared
    }

    /// Nothing is prepared while this is held.
    pub(super) fn pause(&self) -> MutexGuard<'_, ()> {
        held(&self.busy)
    }

    /// Says that `step` is done.
    pub(super) fn done(&self, step: usize) {
        if self.waits {
            self.ask(step + 1);
        }
    }
}

fn held(lock: &Mutex<()>) -> MutexGuard<'_, ()> {
    lock.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Reads and prepares the samples of a step.
fn prepare<R: Recipe>(
    recipe: &R,
    loader: &mut Loader<R::Sample>,
    seed: u64,
    step: usize,
) -> Result<Prepared<R::Example>> {
    let batch = loader.next_batch()?;
    let mut noise = Noise::from_seed(mix(seed ^ mix(step as u64)));
    let examples = match batch.items.is_empty() {
        true => Vec::new(),
        false => recipe.prepare(batch.items, &mut noise)?,
    };
    Ok(Prepared {
        examples,
        names: batch.names,
        broken: batch.broken,
    })
}
