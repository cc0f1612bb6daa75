//! Which worker runs the next session?

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::session::WorkerHandle;

/// The worker threads and how many sessions each runs. Streams are long-lived: the least loaded is right, a hash would leave
/// cores idle.
pub struct Workers {
    workers: Vec<(WorkerHandle, Arc<AtomicUsize>)>,
    accepted: Arc<AtomicUsize>,
}

impl Workers {
    /// At least one worker.
    pub fn new(workers: impl IntoIterator<Item = WorkerHandle>) -> Self {
        let workers = workers.into_iter().map(|worker| (worker, Arc::default())).collect();
        Self { workers, accepted: Arc::default() }
    }

    /// A place on the least loaded worker, unless `cap` sockets are open already.
    pub fn place(&self, cap: usize) -> Option<(&WorkerHandle, Slot)> {
        let (worker, load) = self.workers.iter().min_by_key(|(_, load)| load.load(Relaxed))?;
        if self.accepted.fetch_add(1, Relaxed) >= cap {
            self.accepted.fetch_sub(1, Relaxed);
            return None;
        }
        load.fetch_add(1, Relaxed);
        Some((worker, Slot { accepted: Arc::clone(&self.accepted), load: Arc::clone(load) }))
    }

    /// Sockets that are open now.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Relaxed)
    }
}

/// One accepted socket's place, given back when dropped.
#[derive(Debug)]
pub struct Slot {
    accepted: Arc<AtomicUsize>,
    load: Arc<AtomicUsize>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.accepted.fetch_sub(1, Relaxed);
        self.load.fetch_sub(1, Relaxed);
    }
}
