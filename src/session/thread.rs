//! The thread of a worker.
//!
//! It runs tokio's [`LocalRuntime`], not an actix Arbiter: an Arbiter's tasks live in a `LocalSet`, which wakes itself through the kernel
//! whenever the I/O driver has woken one of them: one write and one return of epoll_wait for nothing, beside each turn of real work.
//! Actors start there as they do on an Arbiter.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc as sync;
use std::thread;

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::mpsc;

use super::worker::{WorkerSettings, prepare_worker};

type Job = Box<dyn FnOnce() + Send>;

enum Order {
    Run(Job),
    Stop,
}

/// A running worker thread. Cheap to clone; the thread runs until [`Self::stop`], or until the last clone is gone.
#[derive(Debug, Clone)]
pub struct WorkerHandle {
    // Without a bound of its own: a job is an accepted socket, of which the listener has a cap, or comes of a reload.
    orders: mpsc::UnboundedSender<Order>,
}

impl WorkerHandle {
    /// Starts worker number `number`.
    ///
    /// # Errors
    /// The kernel gives no thread, or no descriptors for its runtime.
    pub fn start(number: usize, settings: WorkerSettings) -> io::Result<Self> {
        let (orders, received) = mpsc::unbounded_channel();
        let (ready, begun) = sync::channel();
        thread::Builder::new().name(format!("worker-{number}")).spawn(move || match runtime() {
            Ok(runtime) => {
                let _ = ready.send(Ok(()));
                runtime.block_on(serve(received, settings));
            }
            Err(e) => {
                let _ = ready.send(Err(e));
            }
        })?;
        begun.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))?;
        Ok(Self { orders })
    }

    /// Runs `job` there, soon; `false` where the thread has ended.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) -> bool {
        self.orders.send(Order::Run(Box::new(job))).is_ok()
    }

    /// Ends the thread. Sessions that are left are dropped where they are.
    pub fn stop(&self) {
        let _ = self.orders.send(Order::Stop);
    }
}

fn runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
}

async fn serve(mut orders: mpsc::UnboundedReceiver<Order>, settings: WorkerSettings) {
    prepare_worker(&settings);
    while let Some(Order::Run(job)) = orders.recv().await {
        // A panic is told by the hook, and must not take the thread's sessions along.
        let _ = catch_unwind(AssertUnwindSafe(job));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::session::BufferStats;

    fn settings() -> WorkerSettings {
        let buffers = BufferStats::new(1, 1);
        WorkerSettings { hold: Duration::ZERO, keep_buffers: 0, buffers, traffic: Arc::default() }
    }

    /// What `job` says on the thread, within 10 s.
    fn answer<T: Send + 'static>(worker: &WorkerHandle, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (say, said) = sync::channel();
        assert!(worker.run(move || say.send(job()).expect("the test listens")));
        said.recv_timeout(Duration::from_secs(10)).expect("an answer")
    }

    #[test]
    fn actors_run_there_and_a_job_that_panics_takes_nobody_along() {
        struct Counter(u32);
        impl actix::Actor for Counter {
            type Context = actix::Context<Self>;
        }
        impl actix::Handler<Add> for Counter {
            type Result = u32;
            fn handle(&mut self, Add(more): Add, _: &mut Self::Context) -> u32 {
                self.0 += more;
                self.0
            }
        }
        struct Add(u32);
        impl actix::Message for Add {
            type Result = u32;
        }
        let worker = WorkerHandle::start(7, settings()).expect("a thread");
        assert_eq!(answer(&worker, || thread::current().name().map(str::to_owned)).as_deref(), Some("worker-7"));
        let address = answer(&worker, || actix::Actor::start(Counter(1)));
        assert!(worker.run(|| panic!("a bug of ours")));
        let sum = actix_rt::System::new().block_on(async { (address.send(Add(1)).await, address.send(Add(2)).await) });
        assert_eq!((sum.0.ok(), sum.1.ok()), (Some(2), Some(4)));
    }

    #[test]
    fn a_stopped_thread_drops_what_runs_on_it_and_takes_no_more() {
        struct Told(sync::Sender<()>);
        impl Drop for Told {
            fn drop(&mut self) {
                let _ = self.0.send(());
            }
        }
        let worker = WorkerHandle::start(0, settings()).expect("a thread");
        let (tell, told) = sync::channel();
        answer(&worker, move || {
            let session = Told(tell);
            actix_rt::spawn(async move {
                std::future::pending::<()>().await;
                drop(session);
            });
        });
        worker.stop();
        told.recv_timeout(Duration::from_secs(10)).expect("it was dropped");
        while worker.run(|| ()) {
            thread::yield_now();
        }
    }
}
