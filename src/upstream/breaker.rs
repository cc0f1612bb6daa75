//! The actor that every dial asks first: it holds the circuit of each target.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, Message, MessageResult, Recipient};

use super::circuit::{NotNow, Report, Ticket, Why};
use super::circuits::{Change, Circuits, TargetView};
use super::passage::Passages;
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
    passages: Passages,
}

impl UpstreamBreaker {
    /// A breaker whose circuits are closed. `settings: None` turns it off: every dial is permitted.
    pub fn new(settings: Option<CircuitBreaker>, targets: Vec<(TargetId, String)>, tell: Tell) -> Self {
        let circuits = Circuits::new(settings, &targets, 0);
        Self { circuits, targets, settings, panics: 0, tell, passages: Passages::default() }
    }

    /// The same breaker, which says in advance what it can, to whoever holds `passages`.
    pub fn with(self, passages: Passages) -> Self {
        passages.set_all(self.circuits.all_free(), self.settings.is_none());
        Self { passages, ..self }
    }

    /// Calls the core; a panic there resets it and is answered by nothing.
    fn core<T>(&mut self, act: impl FnOnce(&mut Circuits) -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(|| act(&mut self.circuits))) {
            Ok(answer) => Some(answer),
            Err(_) => {
                self.panics += 1;
                let closed = catch_unwind(AssertUnwindSafe(|| self.circuits.reset(None))).unwrap_or_default();
                self.circuits = Circuits::new(self.settings, &self.targets, self.panics * EPOCHS_A_LIFE);
                self.passages.set_all(self.circuits.all_free(), self.settings.is_none());
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
    /// A running stream is lost if it takes too long.
    pub urgent: bool,
}

/// One permitted dial. Report how it ended; a permit that is dropped counts as neither success nor failure.
#[derive(Debug)]
pub struct CircuitPermit {
    target: TargetId,
    ticket: Option<(Ticket, Arc<Ear>)>,
}

/// Where the end of a dial is told.
#[derive(Debug)]
struct Ear {
    breaker: Recipient<Reported>,
    passages: Passages,
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
        let Some((ticket, ear)) = self.ticket.take() else { return };
        match report {
            Report::Failure => ear.passages.failing(),
            report if ear.passages.needs_no_report(self.target, ticket, report == Report::Success) => return,
            Report::Success | Report::Neither => {}
        }
        // Past the mailbox's bound, but there is one for each dial, and dials are bounded.
        ear.breaker.do_send(Reported { target: self.target, ticket, report });
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

    fn handle(&mut self, Permit { target, urgent }: Permit, ctx: &mut Self::Context) -> Self::Result {
        let now = Instant::now();
        let Some((answer, change)) =
            self.core(|circuits| if urgent { circuits.ask_urgently(target, now) } else { circuits.ask(target, now) })
        else {
            return Err(NotNow { why: Why::Open, retry_after: AFTER_PANIC });
        };
        self.tell(change);
        self.passages.set(target, self.circuits.free(target));
        let ear = |ticket| (ticket, Arc::new(Ear { breaker: ctx.address().recipient(), passages: self.passages.clone() }));
        Ok(CircuitPermit { target, ticket: answer?.map(ear) })
    }
}

impl Handler<Reported> for UpstreamBreaker {
    type Result = ();

    fn handle(&mut self, Reported { target, ticket, report }: Reported, _: &mut Self::Context) {
        let now = Instant::now();
        let change = self.core(|circuits| circuits.report(target, ticket, report, now));
        self.passages.set(target, self.circuits.free(target));
        if report == Report::Failure {
            self.passages.judged();
        }
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
        self.passages.set_all(self.circuits.all_free(), self.settings.is_none());
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
        self.passages.set_all(self.circuits.all_free(), self.settings.is_none());
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
    ear: Arc<Ear>,
    waits: Option<Waits>,
}

impl Breaker {
    /// A handle on a running breaker.
    pub fn new(actor: Addr<UpstreamBreaker>) -> Self {
        let ear = Arc::new(Ear { breaker: actor.clone().recipient(), passages: Passages::default() });
        Self { actor, ear, waits: None }
    }

    /// The same handle, which asks only where the breaker has not said so in advance, by [`UpstreamBreaker::with`].
    pub fn with(self, passages: Passages) -> Self {
        let ear = Arc::new(Ear { breaker: self.actor.clone().recipient(), passages });
        Self { ear, ..self }
    }

    /// The same handle, which times its questions.
    pub fn timed(self, metrics: &Metrics) -> Self {
        Self { waits: Some(metrics.waits("breaker")), ..self }
    }

    /// Asks to dial `target`, without a question where the answer is known. Where the actor is gone every dial is permitted: streams matter more than the breaker.
    ///
    /// # Errors
    /// [`NotNow`] says why, and when to ask again.
    pub async fn permit(&self, target: TargetId) -> Result<CircuitPermit, NotNow> {
        self.ask(Permit { target, urgent: false }).await
    }

    /// The same for one who has a running stream to lose: an open circuit lets one of them through each second.
    ///
    /// # Errors
    /// As [`Self::permit`].
    pub async fn permit_urgently(&self, target: TargetId) -> Result<CircuitPermit, NotNow> {
        self.ask(Permit { target, urgent: true }).await
    }

    async fn ask(&self, question: Permit) -> Result<CircuitPermit, NotNow> {
        let (passages, target) = (&self.ear.passages, question.target);
        if passages.is_off() {
            return Ok(CircuitPermit { target, ticket: None });
        }
        if let Some(ticket) = passages.pass(target) {
            return Ok(CircuitPermit { target, ticket: Some((ticket, Arc::clone(&self.ear))) });
        }
        let answer = Waits::time(self.waits.as_ref(), self.actor.send(question)).await;
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
