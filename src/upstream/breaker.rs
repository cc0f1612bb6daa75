//! The actor that every dial asks first: it holds the circuit of each target.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, Addr, Context, Handler, Message, MessageResult, Recipient};

use super::circuit::{NotNow, Report, Ticket, Why};
use super::circuits::{Change, Circuits, TargetView};
use super::target::TargetId;
use crate::config::CircuitBreaker;
use crate::telemetry::events::{Panicked, UpstreamCircuit};
use crate::telemetry::{Metrics, Telemetry, Waits};

/// Messages that wait here before senders wait: dials that begin at once, from all workers.
const MAILBOX: usize = 1024;
/// When to ask again after a panic refused the question.
const AFTER_PANIC: Duration = Duration::from_millis(100);
/// Room for the epochs of one life of the core, so that no ticket from before a panic counts after it.
const EPOCHS_A_LIFE: u64 = 1 << 40;

/// What the breaker tells while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// A circuit changed its state.
    Circuit(Change),
    /// The core panicked; all circuits are closed again.
    Panicked,
}

/// Hears what happens; called on the actor's thread, must not block.
pub type Tell = Arc<dyn Fn(Happening) + Send + Sync>;

/// Counts and logs what happens.
pub fn telling(telemetry: Telemetry) -> Tell {
    Arc::new(move |happening| match happening {
        Happening::Circuit(Change { label, transition, .. }) => telemetry.emit(UpstreamCircuit {
            target: &label,
            from: transition.from.as_str(),
            to: transition.to.as_str(),
            failures: transition.failures,
        }),
        Happening::Panicked => telemetry.emit(Panicked { place: "breaker", session: None }),
    })
}

/// The actor.
pub struct UpstreamBreaker {
    circuits: Circuits,
    targets: Vec<(TargetId, String)>,
    settings: Option<CircuitBreaker>,
    panics: u64,
    tell: Tell,
}

impl UpstreamBreaker {
    /// A breaker whose circuits are closed. `settings: None` turns it off: every dial is permitted.
    pub fn new(settings: Option<CircuitBreaker>, targets: Vec<(TargetId, String)>, tell: Tell) -> Self {
        Self { circuits: Circuits::new(settings, &targets, 0), targets, settings, panics: 0, tell }
    }

    /// Calls the core; a panic there resets it and is answered by nothing.
    fn core<T>(&mut self, act: impl FnOnce(&mut Circuits) -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(|| act(&mut self.circuits))) {
            Ok(answer) => Some(answer),
            Err(_) => {
                self.panics += 1;
                let closed = catch_unwind(AssertUnwindSafe(|| self.circuits.reset(None))).unwrap_or_default();
                self.circuits = Circuits::new(self.settings, &self.targets, self.panics * EPOCHS_A_LIFE);
                (self.tell)(Happening::Panicked);
                self.tell(closed);
                None
            }
        }
    }

    fn tell(&self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            (self.tell)(Happening::Circuit(change));
        }
    }
}

impl Actor for UpstreamBreaker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

/// Asks to dial a target.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<CircuitPermit, NotNow>")]
pub struct Permit {
    /// The target.
    pub target: TargetId,
}

/// One permitted dial. Report how it ended; a permit that is dropped counts as neither success nor failure.
#[derive(Debug)]
pub struct CircuitPermit {
    target: TargetId,
    ticket: Option<(Ticket, Recipient<Reported>)>,
}

impl CircuitPermit {
    /// The upstream said Publish.Start or Play.Start.
    pub fn success(mut self) {
        self.report(Report::Success);
    }

    /// DNS, TCP or handshake failed, or there was no answer in time.
    pub fn failure(mut self) {
        self.report(Report::Failure);
    }

    /// The target it was given for.
    pub fn target(&self) -> TargetId {
        self.target
    }

    fn report(&mut self, report: Report) {
        if let Some((ticket, breaker)) = self.ticket.take() {
            // Past the mailbox's bound, but there is one for each permit, and permits come through it.
            breaker.do_send(Reported { target: self.target, ticket, report });
        }
    }
}

impl Drop for CircuitPermit {
    fn drop(&mut self) {
        self.report(Report::Neither);
    }
}

/// A permitted dial has ended. Only a [`CircuitPermit`] can say so, once.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Reported {
    target: TargetId,
    ticket: Ticket,
    report: Report,
}

/// Asks what all circuits look like.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "BreakerSnapshot")]
pub struct Snapshot;

/// The answer to [`Snapshot`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerSnapshot {
    /// The settings; none: the breaker is off.
    pub settings: Option<CircuitBreaker>,
    /// One row a target; none when the breaker is off.
    pub targets: Vec<TargetView>,
    /// How often the core panicked and was reset.
    pub panics: u64,
}

/// Closes the circuit of one target, or of all.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Reset {
    /// The target; none: all.
    pub target: Option<TargetId>,
}

/// Takes new settings and targets; a target that stays keeps its state.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Configure {
    /// None turns the breaker off.
    pub settings: Option<CircuitBreaker>,
    /// The targets with their labels.
    pub targets: Vec<(TargetId, String)>,
}

/// Makes the core panic, for tests.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Panic;

/// Ends the actor, for tests.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Stop;

impl Handler<Permit> for UpstreamBreaker {
    type Result = Result<CircuitPermit, NotNow>;

    fn handle(&mut self, Permit { target }: Permit, ctx: &mut Self::Context) -> Self::Result {
        let now = Instant::now();
        let Some((answer, change)) = self.core(|circuits| circuits.ask(target, now)) else {
            return Err(NotNow { why: Why::Open, retry_after: AFTER_PANIC });
        };
        self.tell(change);
        let ticket = answer?.map(|ticket| (ticket, self_recipient(ctx)));
        Ok(CircuitPermit { target, ticket })
    }
}

fn self_recipient(ctx: &Context<UpstreamBreaker>) -> Recipient<Reported> {
    use actix::AsyncContext;
    ctx.address().recipient()
}

impl Handler<Reported> for UpstreamBreaker {
    type Result = ();

    fn handle(&mut self, Reported { target, ticket, report }: Reported, _: &mut Self::Context) {
        let now = Instant::now();
        let change = self.core(|circuits| circuits.report(target, ticket, report, now));
        self.tell(change.flatten());
    }
}

impl Handler<Snapshot> for UpstreamBreaker {
    type Result = MessageResult<Snapshot>;

    fn handle(&mut self, _: Snapshot, _: &mut Self::Context) -> Self::Result {
        let now = Instant::now();
        let (settings, targets) = self.core(|circuits| (circuits.settings(), circuits.views(now))).unwrap_or_default();
        MessageResult(BreakerSnapshot { settings, targets, panics: self.panics })
    }
}

impl Handler<Reset> for UpstreamBreaker {
    type Result = ();

    fn handle(&mut self, Reset { target }: Reset, _: &mut Self::Context) {
        let changes = self.core(|circuits| circuits.reset(target)).unwrap_or_default();
        self.tell(changes);
    }
}

impl Handler<Configure> for UpstreamBreaker {
    type Result = ();

    fn handle(&mut self, Configure { settings, targets }: Configure, _: &mut Self::Context) {
        self.settings = settings;
        self.targets = targets;
        let targets = self.targets.clone();
        self.core(|circuits| circuits.configure(settings, &targets));
    }
}

impl Handler<Panic> for UpstreamBreaker {
    type Result = ();

    #[expect(clippy::panic, reason = "that is what the message asks for")]
    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        self.core(|_| panic!("injected by a test"));
    }
}

impl Handler<Stop> for UpstreamBreaker {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

/// How a session asks the actor.
#[derive(Clone)]
pub struct Breaker {
    actor: Addr<UpstreamBreaker>,
    waits: Option<Waits>,
}

impl Breaker {
    /// A handle on a running breaker.
    pub fn new(actor: Addr<UpstreamBreaker>) -> Self {
        Self { actor, waits: None }
    }

    /// The same handle, which times its questions.
    pub fn timed(self, metrics: &Metrics) -> Self {
        Self { waits: Some(metrics.waits("breaker")), ..self }
    }

    /// Asks to dial `target`. Where the actor is gone every dial is permitted: streams matter more than the breaker.
    ///
    /// # Errors
    /// [`NotNow`] says why, and when to ask again.
    pub async fn permit(&self, target: TargetId) -> Result<CircuitPermit, NotNow> {
        let answer = Waits::time(self.waits.as_ref(), self.actor.send(Permit { target })).await;
        answer.unwrap_or(Ok(CircuitPermit { target, ticket: None }))
    }

    /// The actor, for those who ask it other things.
    pub fn actor(&self) -> &Addr<UpstreamBreaker> {
        &self.actor
    }
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
