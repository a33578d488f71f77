//! The CPU's cores, divided among the shares of a batch.

use std::{
    collections::btree_map::{BTreeMap, Entry},
    sync::{Arc, Mutex, PoisonError},
};

use rayon::{ThreadPool, ThreadPoolBuilder};

/// By the number of shares: one pool for each.
static POOLS: Mutex<BTreeMap<usize, Vec<Arc<ThreadPool>>>> = Mutex::new(BTreeMap::new());

/// Runs `run` on the cores that are for this one of `shares`.
///
/// Were they to use all cores together, each would wait at every operation until the threads come
/// back from another's: with two shares on two cores, for a third of the time.
pub(super) fn within<T: Send>(share: usize, shares: usize, run: impl FnOnce() -> T + Send) -> T {
    match pool(share, shares) {
        Some(pool) => pool.install(run),
        // The system gives no threads: slower on those that there are.
        None => run(),
    }
}

fn pool(share: usize, shares: usize) -> Option<Arc<ThreadPool>> {
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Entry::Vacant(entry) = pools.entry(shares) {
        let threads = (rayon::current_num_threads() / shares).max(1);
        let pool = |_| {
            let built = ThreadPoolBuilder::new().num_threads(threads).build();
            built.ok().map(Arc::new)
        };
        entry.insert((0..shares).map(pool).collect::<Option<_>>()?);
    }
    pools.get(&shares)?.get(share).cloned()
}
