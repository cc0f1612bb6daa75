//! What the sessions of one worker thread share.

use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::buffer::{BufferStats, Pool};
use super::seat::Wheel;
use crate::telemetry::WorkerTraffic;

thread_local! {
    static WORKER: OnceCell<Rc<Worker>> = const { OnceCell::new() };
}

/// What a worker is made of; sent to its thread once.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// How long a message may be held; 0: not at all.
    pub hold: Duration,
    /// Spare buffers to keep.
    pub keep_buffers: usize,
    /// Shared by all workers.
    pub buffers: Arc<BufferStats>,
    /// This worker's bytes.
    pub traffic: Arc<WorkerTraffic>,
}

/// One worker's wheel, buffers and byte counts.
pub(super) struct Worker {
    pub(super) wheel: Rc<Wheel>,
    pub(super) pool: Rc<Pool>,
    pub(super) traffic: Arc<WorkerTraffic>,
}

/// Prepares this thread to run sessions and starts its wheel. Once a thread; a second call changes nothing.
pub(super) fn prepare_worker(settings: &WorkerSettings) {
    WORKER.with(|cell| {
        cell.get_or_init(|| {
            let wheel = Wheel::new(settings.hold);
            actix_rt::spawn(Rc::clone(&wheel).serve_holds());
            actix_rt::spawn(Rc::clone(&wheel).serve_idle(Arc::clone(&settings.traffic)));
            let pool = Pool::new(settings.keep_buffers, Arc::clone(&settings.buffers));
            Rc::new(Worker { wheel, pool, traffic: Arc::clone(&settings.traffic) })
        });
    });
}

/// Changes what may change of this thread's worker: how long a message may be held, and the spare buffers to keep.
pub fn adjust_worker(hold: Duration, keep_buffers: usize) {
    if let Some(worker) = worker() {
        worker.wheel.configure(hold, Instant::now());
        worker.pool.configure(keep_buffers);
    }
}

/// This thread's worker, if it was prepared.
pub(super) fn worker() -> Option<Rc<Worker>> {
    WORKER.with(|cell| cell.get().cloned())
}
