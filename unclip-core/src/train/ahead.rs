//! The examples of coming steps, which are prepared while a step is computed.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, PoisonError, RwLock, RwLockWriteGuard,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{Scope, available_parallelism},
};

use super::{Batch, Broken, Loader, Recipe, order::mix};
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

/// Threads that prepare as many steps; they end when this is dropped.
#[derive(Debug)]
pub(super) struct Ahead<E> {
    ask: SyncSender<usize>,
    /// Of each thread: it has every so many-th step.
    given: Vec<Receiver<Result<Prepared<E>>>>,
    /// Whether a step is only prepared when the one before is done.
    waits: bool,
    steps: usize,
    /// Shared by those that prepare a step.
    busy: Arc<RwLock<()>>,
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
        let waits = recipe.learns_from_losses();
        let cores = available_parallelism().map_or(1, |n| n.get());
        let threads = if waits { 1 } else { (cores / 4).clamp(2, 4) };
        let busy = Arc::new(RwLock::new(()));
        let (mut batches, mut given) = (Vec::new(), Vec::new());
        for _ in 0..threads {
            let (send, batch_of) = sync_channel::<(usize, Result<Batch<R::Sample>>)>(1);
            let (give, prepared) = sync_channel(1);
            let (recipe, busy) = (recipe.clone(), busy.clone());
            scope.spawn(move || {
                ended(|| {
                    for (step, batch) in batch_of {
                        let prepared = {
                            let _busy = busy.read().unwrap_or_else(PoisonError::into_inner);
                            batch.and_then(|batch| prepare(&*recipe, batch, seed, step))
                        };
                        if give.send(prepared).is_err() {
                            return;
                        }
                    }
                });
            });
            batches.push(send);
            given.push(prepared);
        }
        let (ask, asked) = sync_channel::<usize>(threads);
        scope.spawn(move || {
            ended(|| {
                for step in asked {
                    let batch = loader.next_batch();
                    if batches[step % threads].send((step, batch)).is_err() {
                        return;
                    }
                }
            });
        });
        let ahead = Self {
            ask,
            given,
            waits,
            steps,
            busy,
        };
        (step..step + threads).for_each(|step| ahead.ask(step));
        ahead
    }

    fn ask(&self, step: usize) {
        if step < self.steps {
            // If the thread has ended, `take` says so.
            let _ = self.ask.send(step);
        }
    }

    /// The examples of `step`.
    pub(super) fn take(&self, step: usize) -> Result<Prepared<E>> {
        let threads = self.given.len();
        let prepared = self.given[step % threads].recv().map_err(|_| {
            let expected = "preparing must not panic: see the message above";
            Error::setting("samples", "the thread that prepares them ended", expected)
        })?;
        if !self.waits {
            self.ask(step + threads);
        }
        prepared
    }

    /// Nothing is prepared while this is held.
    pub(super) fn pause(&self) -> RwLockWriteGuard<'_, ()> {
        self.busy.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that `step` is done.
    pub(super) fn done(&self, step: usize) {
        if self.waits {
            self.ask(step + 1);
        }
    }
}

/// Runs a thread's work. If it panics, what the work holds is dropped, which the others see by their closed
/// channels; the scope must not panic as well.
fn ended(work: impl FnOnce()) {
    // Its message has been printed, and nothing that it broke is used again.
    let _ = catch_unwind(AssertUnwindSafe(work));
}

/// Prepares the samples of a step.
fn prepare<R: Recipe>(
    recipe: &R,
    batch: Batch<R::Sample>,
    seed: u64,
    step: usize,
) -> Result<Prepared<R::Example>> {
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
