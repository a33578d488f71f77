//! Samples that are all in memory.

use crate::{error::Result, train::Samples};

/// Samples that are all in memory.
#[derive(Clone, Debug)]
pub struct InMemory<T>(pub Vec<T>);

impl<T: Clone + Send + Sync + 'static> Samples for InMemory<T> {
    type Item = T;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, index: usize, _: u64) -> Result<T> {
        Ok(self.0[index].clone())
    }
}
