//! Networks that stay in memory, and networks that are read when they are needed.

use std::{fmt, ops::Deref};

use crate::error::Result;

type Loader<M> = Box<dyn Fn() -> Result<M> + Send>;

/// A network (or a whole stage) that is kept, or loaded for each use and dropped after it.
///
/// With every stage [`OnDemand`](Self::OnDemand) a whole checkpoint runs in the memory of its
/// largest network.
pub enum Resident<M> {
    /// In memory all the time.
    Kept(M),
    /// Loaded by this function for each use.
    OnDemand(Loader<M>),
}

/// A network in use.
#[derive(Debug)]
pub enum Held<'a, M> {
    /// One that is kept anyway.
    Borrowed(&'a M),
    /// One that goes when the use is over.
    Owned(M),
}

impl<M> Resident<M> {
    /// Loads at once if `keep`, else at each use.
    ///
    /// # Errors
    /// Whatever `load` gives, if `keep`.
    pub fn new(keep: bool, load: impl Fn() -> Result<M> + Send + 'static) -> Result<Self> {
        Ok(if keep {
            Self::Kept(load()?)
        } else {
            Self::OnDemand(Box::new(load))
        })
    }

    /// The network for one use.
    ///
    /// # Errors
    /// Whatever loading gives.
    pub fn hold(&self) -> Result<Held<'_, M>> {
        match self {
            Self::Kept(model) => Ok(Held::Borrowed(model)),
            Self::OnDemand(load) => load().map(Held::Owned),
        }
    }
}

impl<M> Deref for Held<'_, M> {
    type Target = M;

    fn deref(&self) -> &M {
        match self {
            Self::Borrowed(model) => model,
            Self::Owned(model) => model,
        }
    }
}

impl<M> fmt::Debug for Resident<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kept(_) => "Resident::Kept",
            Self::OnDemand(_) => "Resident::OnDemand",
        })
    }
}
