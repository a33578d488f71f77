//! Samples, and threads that read them ahead.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use super::{Order, order::mix};
use crate::error::{Error, Result};

/// Data to train on.
pub trait Samples: Send + Sync + 'static {
    /// What a sample is, on the host.
    type Item: Send + 'static;

    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads a sample. `draw` is another number each time it is read, for crops and flips.
    ///
    /// # Errors
    /// Whatever is wrong with this sample; it is then left out.
    fn get(&self, index: usize, draw: u64) -> Result<Self::Item>;

    /// Neighbours that are read into one batch: shuffling moves them together. A loss that compares
    /// samples with each other learns most from those that hardly differ.
    fn together(&self) -> usize {
        1
    }

    /// Its name in messages.
    fn name(&self, index: usize) -> String {
        format!("sample {index}")
    }
}

/// A sample that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its name.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}

/// The samples of a step.
#[derive(Debug)]
pub struct Batch<T> {
    /// Those that can be used.
    pub items: Vec<T>,
    /// Their names.
    pub names: Vec<String>,
    /// The others.
    pub broken: Vec<Broken>,
}

/// Reads the batches of a run in threads, in order.
#[derive(Debug)]
pub struct Loader<T> {
    workers: Vec<Receiver<Batch<T>>>,
    next: usize,
}

/// Batches that a worker reads ahead.
const AHEAD: usize = 2;

impl<T: Send + 'static> Loader<T> {
    /// A loader that begins with the batch of step `first`. Threads end when it is dropped.
    ///
    /// # Errors
    /// [`Error::Setting`] if there are no samples or a count is 0.
    pub fn new(
        samples: Arc<dyn Samples<Item = T>>,
        batch: usize,
        seed: u64,
        first: usize,
        workers: usize,
    ) -> Result<Self> {
        for (name, value) in [
            ("samples", samples.len()),
            ("batch", batch),
            ("workers", workers),
        ] {
            if value == 0 {
                return Err(Error::setting(name, 0, "at least 1 is needed"));
            }
        }
        let together = samples.together().max(1);
        if !samples.len().is_multiple_of(together) || !batch.is_multiple_of(together) {
            let expected = format!("a multiple of {together}, as samples stand together");
            let found = format!("{batch} of {}", samples.len());
            return Err(Error::setting("batch", found, expected));
        }
        let order = Order::new(samples.len() / together, seed);
        let start = |worker: usize| {
            let (sender, receiver) = sync_channel(AHEAD);
            let samples = samples.clone();
            let steps = (first + worker..).step_by(workers);
            thread::spawn(move || read(&*samples, order, batch, seed, steps, &sender));
            receiver
        };
        Ok(Self {
            workers: (0..workers).map(start).collect(),
            next: 0,
        })
    }

    /// The next step's batch.
    ///
    /// # Errors
    /// [`Error::Setting`] if the thread that reads it has ended, which only a panic in
    /// [`Samples::get`] can do.
    pub fn next_batch(&mut self) -> Result<Batch<T>> {
        let worker = self.next % self.workers.len();
        self.next += 1;
        self.workers[worker].recv().map_err(|_| {
            let expected = "reading must not panic: see the message above";
            Error::setting("samples", "a reading thread has ended", expected)
        })
    }
}

/// Reads batches until nobody takes them.
fn read<T: Send + 'static>(
    samples: &dyn Samples<Item = T>,
    order: Order,
    batch: usize,
    seed: u64,
    steps: impl Iterator<Item = usize>,
    sender: &SyncSender<Batch<T>>,
) {
    let together = samples.together().max(1) as u64;
    for step in steps {
        let mut found = Batch {
            items: Vec::with_capacity(batch),
            names: Vec::with_capacity(batch),
            broken: Vec::new(),
        };
        for row in 0..batch {
            let place = (step * batch + row) as u64;
            let index =
                order.at(place / together) * together as usize + (place % together) as usize;
            match samples.get(index, mix(seed ^ mix(place))) {
                Ok(item) => {
                    found.items.push(item);
                    found.names.push(samples.name(index));
                }
                Err(error) => found.broken.push(Broken {
                    name: samples.name(index),
                    reason: error.to_string(),
                }),
            }
        }
        if sender.send(found).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Numbers;

    impl Samples for Numbers {
        type Item = (usize, u64);

        fn len(&self) -> usize {
            20
        }

        fn get(&self, index: usize, draw: u64) -> Result<Self::Item> {
            match index {
                13 => Err(Error::setting("number", 13, "another")),
                _ => Ok((index, draw)),
            }
        }
    }

    type Read = (Vec<(usize, u64)>, Vec<Broken>);

    fn batches(first: usize, workers: usize, count: usize) -> Vec<Read> {
        let mut loader = Loader::new(Arc::new(Numbers), 6, 3, first, workers).unwrap();
        (0..count)
            .map(|_| loader.next_batch().unwrap())
            .map(|batch| (batch.items, batch.broken))
            .collect()
    }

    #[test]
    fn any_number_of_workers_reads_the_same_from_any_step() {
        let one = batches(0, 1, 12);
        assert_eq!(batches(0, 3, 12), one);
        assert_eq!(batches(5, 2, 7), one[5..]);
        // An epoch and a fifth: the broken one is named each time and nothing else is missing.
        let broken: usize = one.iter().map(|(_, broken)| broken.len()).sum();
        let read: usize = one.iter().map(|(items, _)| items.len()).sum();
        assert_eq!((broken + read, one[0].0.len() <= 6), (72, true));
        assert!(
            broken >= 3
                && one
                    .iter()
                    .flat_map(|(_, b)| b)
                    .all(|b| b.name == "sample 13")
        );
        // The same sample gets another draw in the next epoch.
        let draws: Vec<u64> = one
            .iter()
            .flat_map(|(items, _)| items.iter().filter(|i| i.0 == 5).map(|i| i.1))
            .collect();
        assert!(draws.len() >= 3 && draws[0] != draws[1]);
    }
}
