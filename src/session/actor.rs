//! The ConnectionActor: one for each client. It runs the session and is how others reach it.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use futures_util::FutureExt;

use super::life::{Arrival, Place, live};
use super::outcome::{Outcome, Side, Status};
use super::report;
use super::seat::Seat;
use super::worker::worker;
use super::{Accepted, Shared};
use crate::admission::supervisor::Kick;
use crate::telemetry::{SessionCell, SessionId};

/// See the module. Born on the worker that runs it, by [`super::start`].
pub struct ConnectionActor {
    shared: Arc<Shared>,
    accepted: Option<Accepted>,
    id: SessionId,
    seat: Rc<Seat>,
}

impl ConnectionActor {
    pub(super) fn new(shared: Arc<Shared>, accepted: Accepted, id: SessionId) -> Self {
        Self { shared, id, seat: Seat::new(accepted.at), accepted: Some(accepted) }
    }
}

impl Actor for ConnectionActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let (Some(accepted), Some(worker)) = (self.accepted.take(), worker()) else { return ctx.stop() };
        let cell = Arc::new(SessionCell::new(self.id, accepted.peer, accepted.at, SystemTime::now()));
        let Accepted { stream, at, door, slot, .. } = accepted;
        let place = Place { shared: Arc::clone(&self.shared), cell, seat: Rc::clone(&self.seat), worker, _slot: slot };
        let place = Rc::new(place);
        place.worker.wheel.add(&place.seat);
        let kick = ctx.address().recipient();
        let session = guarded(live(Box::new(Arrival { place: Rc::clone(&place), stream, at, door, kick })));
        let told = session.map(move |outcome| {
            let outcome = outcome.unwrap_or_else(|| {
                report::panicked(&place);
                Outcome::new(Side::Relay, "panic", Status::Error)
            });
            report::ended(&place, &outcome, Instant::now());
        });
        ctx.spawn(told.into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}

/// `None` where the session panicked: caught here, a panic ends that session only and never unwinds through the worker. No async
/// function, which would hold the session twice.
fn guarded<T>(session: impl Future<Output = T>) -> impl Future<Output = Option<T>> {
    AssertUnwindSafe(session).catch_unwind().map(Result::ok)
}

impl Handler<Kick> for ConnectionActor {
    type Result = ();

    fn handle(&mut self, kick: Kick, _: &mut Self::Context) {
        self.seat.ask(kick.manner, Outcome::new(Side::Relay, kick.reason, Status::Success), Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::guarded;

    #[tokio::test]
    async fn a_panic_ends_one_session_and_the_others_on_its_thread_go_on() {
        let local = tokio::task::LocalSet::new();
        let broken = local.spawn_local(guarded(async { panic!("a bug of ours") }));
        let healthy = local.spawn_local(guarded(async { 7 }));
        local.await;
        assert_eq!(broken.await.expect("the task itself did not panic"), None::<()>);
        assert_eq!(healthy.await.expect("it was not disturbed"), Some(7));
    }
}
