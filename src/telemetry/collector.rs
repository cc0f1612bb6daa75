//! MetricsCollector: how many bytes have passed, and how fast?

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message};

use super::events::Panicked;
use super::rates::Window;
use super::worker::{Latencies, Seen, Total};
use super::{Telemetry, WorkerTraffic};

pub use super::rates::{Bytes, Rates};

/// Questions that wait; further askers wait at their own end.
const MAILBOX: usize = 256;
/// How often the workers' counts are summed.
const EVERY: Duration = Duration::from_secs(1);

/// Sums what the workers have counted. The actor sends it to itself each second; send it once more before the end.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Tick;

/// Asks how things stand.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Standing, CorePanicked>")]
pub struct Snapshot;

/// Panics inside the core, for tests.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<(), CorePanicked>")]
pub struct Panic;

/// Ends the actor, for tests.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Stop;

/// Bytes since start, and how fast they grow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// Since start, up to the last tick.
    pub bytes: Bytes,
    /// Over the last ten seconds.
    pub rates: Rates,
    /// How often the core has panicked and begun anew.
    pub panics: u64,
}

/// The question was lost in a panic; the next one will be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the collector has failed and begun anew")]
pub struct CorePanicked;

/// The actor. Totals live in the metrics themselves, so that nothing is lost or counted twice when the core begins anew.
pub struct MetricsCollector {
    telemetry: Telemetry,
    workers: Vec<Arc<WorkerTraffic>>,
    core: Window,
    panics: u64,
}

impl MetricsCollector {
    /// Sums the counts of `workers`, which begin at zero.
    pub fn new(telemetry: Telemetry, workers: Vec<Arc<WorkerTraffic>>) -> Self {
        Self { telemetry, workers, core: Window::default(), panics: 0 }
    }

    /// Calls the core; a panic there makes it anew.
    fn ask<T>(&mut self, question: impl FnOnce(&mut Window, Bytes) -> T) -> Result<T, CorePanicked> {
        let (core, total) = (&mut self.core, bytes(&self.telemetry));
        catch_unwind(AssertUnwindSafe(|| question(core, total))).map_err(|_| {
            self.core = Window::default();
            self.panics += 1;
            self.telemetry.emit(Panicked { place: "collector", session: None });
            CorePanicked
        })
    }

    fn count(&self) {
        let sum = |count: fn(&WorkerTraffic) -> u64| self.workers.iter().fold(0_u64, |sum, w| sum.wrapping_add(count(w)));
        let (metrics, counted) = (self.telemetry.metrics(), bytes(&self.telemetry));
        metrics.bytes_upstream.inc_by(sum(|worker| worker.to_upstream.get()).saturating_sub(counted.to_upstream));
        metrics.bytes_downstream.inc_by(sum(|worker| worker.to_client.get()).saturating_sub(counted.to_client));
        let latencies = |total: fn(&WorkerTraffic) -> &Total| {
            let mut sum = Latencies::default();
            self.workers.iter().for_each(|worker| total(worker).latency().add_to(&mut sum));
            sum
        };
        let seen = self.workers.iter().map(|worker| worker.streams.now()).fold(Seen::default(), Seen::and);
        let latencies = [latencies(|worker| &worker.to_upstream), latencies(|worker| &worker.to_client)];
        metrics.show_workers(latencies, seen, sum(|worker| worker.streams.stalls.get()));
    }
}

fn bytes(telemetry: &Telemetry) -> Bytes {
    let (to_upstream, to_client) = telemetry.metrics().bytes();
    Bytes { to_upstream, to_client }
}

impl Actor for MetricsCollector {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        ctx.run_interval(EVERY, |actor, ctx| actor.handle(Tick, ctx));
    }
}

impl Handler<Tick> for MetricsCollector {
    type Result = ();

    fn handle(&mut self, _: Tick, _: &mut Self::Context) {
        let now = Instant::now();
        self.count();
        // A panic has been told already, and there is nobody to answer.
        let _ = self.ask(|core, total| core.note(now, total));
        self.telemetry.flush(now);
    }
}

impl Handler<Snapshot> for MetricsCollector {
    type Result = Result<Standing, CorePanicked>;

    fn handle(&mut self, _: Snapshot, _: &mut Self::Context) -> Self::Result {
        let panics = self.panics;
        self.ask(|core, bytes| Standing { bytes, rates: core.rates(), panics })
    }
}

impl Handler<Panic> for MetricsCollector {
    type Result = Result<(), CorePanicked>;

    #[expect(clippy::panic, reason = "that is what the message asks for")]
    fn handle(&mut self, _: Panic, _: &mut Self::Context) -> Self::Result {
        self.ask(|_, _| panic!("injected by a test"))
    }
}

impl Handler<Stop> for MetricsCollector {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix::test]
    async fn bytes_of_all_workers_are_counted_while_they_run() {
        let telemetry = Telemetry::silent();
        let workers = vec![Arc::new(WorkerTraffic::default()), Arc::new(WorkerTraffic::default())];
        let collector = MetricsCollector::new(telemetry.clone(), workers.clone()).start();
        workers[0].to_upstream.add(1000);
        workers[1].to_upstream.add(500);
        workers[1].to_client.add(7);
        collector.send(Tick).await.unwrap();
        assert_eq!(telemetry.metrics().bytes(), (1500, 7));
        collector.send(Tick).await.unwrap();
        assert_eq!(telemetry.metrics().bytes(), (1500, 7), "counted once");
        let standing = collector.send(Snapshot).await.unwrap().unwrap();
        assert_eq!(standing.bytes, Bytes { to_upstream: 1500, to_client: 7 });
    }

    #[actix::test]
    async fn a_panic_of_the_core_is_refused_counted_and_loses_no_byte() {
        let telemetry = Telemetry::silent();
        let worker = Arc::new(WorkerTraffic::default());
        let collector = MetricsCollector::new(telemetry.clone(), vec![Arc::clone(&worker)]).start();
        worker.to_upstream.add(10);
        collector.send(Tick).await.unwrap();
        assert_eq!(collector.send(Panic).await.unwrap(), Err(CorePanicked));
        worker.to_upstream.add(5);
        collector.send(Tick).await.unwrap();
        let standing = collector.send(Snapshot).await.unwrap().unwrap();
        assert_eq!((standing.bytes.to_upstream, standing.panics), (15, 1));
        assert_eq!(telemetry.metrics().panics.with_label_values(&["collector"]).get(), 1);
    }
}
