//! Supervisor: how many are in, who are they, and is there room for one more?
//!
//! Its ledger is the truth about the connections. A panic here is therefore not caught: the actor ends, its address closes,
//! [`Ended`] tells the app, and the process ends.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::dev::SendError;
use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message, MessageResponse, Recipient};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::ledger::{Ledger, Place};
use super::{IpKey, Permit, Refusal, Tally};
use crate::config::ConnectionLimit;
use crate::telemetry::{SessionCell, SessionId};

/// Questions that wait; further askers wait at their own end.
const MAILBOX: usize = 256;
/// Addresses named in a [`Standing`].
const TOP: usize = 20;

/// Asks for a place for a session. The permit comes back to Supervisor also where the asker has gone meanwhile.
#[derive(Message)]
#[rtype(result = "Result<Permit, Refusal>")]
pub struct Admit {
    /// What /status shows of the session; its client address is the one that is counted.
    pub cell: Arc<SessionCell>,
    /// Where to say that the session must end.
    pub session: Recipient<Kick>,
}

/// Tells a session to end. Handled by the ConnectionActor.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Kick {
    /// The label for log and metric.
    pub reason: &'static str,
    /// How it is to end.
    pub manner: Manner,
}

/// How a session is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// At the next message boundary.
    Now,
    /// A publisher of video before its next key frame, if one comes in this time; whoever else at the next message boundary.
    AtKeyFrame(Duration),
    /// By itself: the client is asked to connect anew.
    Reconnect,
}

/// A permit was dropped. Sent by [`Permit`] alone.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Release {
    pub(super) place: Place,
}

/// Lets nobody in from now on; who is in stays. Send it before [`KickAll`] at the end, so that nobody slips in between.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Drain;

/// Tells every session to end; the answer is the number of sessions told.
#[derive(Message)]
#[rtype(result = "usize")]
pub struct KickAll {
    /// The label for log and metric.
    pub reason: &'static str,
}

/// Tells some sessions to end; the answer is the number of sessions told.
#[derive(Message)]
#[rtype(result = "usize")]
pub struct KickSome {
    /// Which.
    pub sessions: HashSet<SessionId>,
    /// What they are told.
    pub kick: Kick,
}

/// Changes the limits. Who is in stays in.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Configure {
    /// The new limits.
    pub limit: ConnectionLimit,
}

/// Asks how things stand.
#[derive(Message)]
#[rtype(result = "Standing")]
pub struct Snapshot;

/// Panics, for tests.
#[doc(hidden)]
#[derive(Message)]
#[rtype(result = "()")]
pub struct Panic;

/// Ends the actor, for tests.
#[doc(hidden)]
#[derive(Message)]
#[rtype(result = "()")]
pub struct Stop;

/// How the connections stand.
#[derive(Debug, MessageResponse)]
pub struct Standing {
    /// Places taken.
    pub active: u32,
    /// Places there are.
    pub max_total: u32,
    /// Places an address may take; `None` = all.
    pub max_per_ip: Option<u32>,
    /// Whether nobody is let in any more.
    pub draining: bool,
    /// The 20 addresses with the most places, most first.
    pub per_ip: Vec<(IpKey, u32)>,
    /// Addresses with a place.
    pub addresses: usize,
    /// Refusals since start, for every reason.
    pub rejected: Vec<(&'static str, u64)>,
    /// Every session, in the order of admission.
    pub sessions: Vec<Arc<SessionCell>>,
}

/// Waits for the end of a Supervisor.
#[derive(Debug, Clone)]
pub struct Ended(CancellationToken);

impl Ended {
    /// Returns once the actor is gone, by a panic or in order.
    pub async fn wait(&self) {
        self.0.cancelled().await;
    }

    /// Whether it is gone.
    pub fn is_ended(&self) -> bool {
        self.0.is_cancelled()
    }
}

/// Who holds a place.
struct Holder {
    cell: Arc<SessionCell>,
    session: Recipient<Kick>,
}

impl Holder {
    /// Whether it is there to be told. A full mailbox holds kicks already: only Supervisor sends there.
    fn tell(&self, kick: Kick) -> bool {
        !matches!(self.session.try_send(kick), Err(SendError::Closed(_)))
    }
}

/// The actor.
pub struct Supervisor {
    ledger: Ledger<Holder>,
    tally: Tally,
    ended: CancellationToken,
    _end: DropGuard,
}

impl Supervisor {
    /// With every place free. `tally` is shared with whoever else refuses.
    pub fn new(limit: ConnectionLimit, tally: Tally) -> Self {
        let ended = CancellationToken::new();
        Self { ledger: Ledger::new(limit), tally, _end: ended.clone().drop_guard(), ended }
    }

    /// What the app watches: the process must not outlive its Supervisor. Ask before the actor is started.
    pub fn ended(&self) -> Ended {
        Ended(self.ended.clone())
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

impl Handler<Admit> for Supervisor {
    type Result = Result<Permit, Refusal>;

    fn handle(&mut self, msg: Admit, ctx: &mut Self::Context) -> Self::Result {
        let ip: IpAddr = msg.cell.client().ip();
        let holder = Holder { cell: msg.cell, session: msg.session };
        let given = self.ledger.admit(IpKey::of(ip), holder, Instant::now());
        let given = given.inspect_err(|refusal| self.tally.count(refusal))?;
        Ok(Permit::new(given, ctx.address().recipient()))
    }
}

impl Handler<Release> for Supervisor {
    type Result = ();

    fn handle(&mut self, msg: Release, _: &mut Self::Context) {
        self.ledger.release(msg.place);
    }
}

impl Handler<Drain> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Drain, _: &mut Self::Context) {
        self.ledger.drain();
    }
}

impl Handler<KickAll> for Supervisor {
    type Result = usize;

    fn handle(&mut self, msg: KickAll, _: &mut Self::Context) -> usize {
        let kick = Kick { reason: msg.reason, manner: Manner::Now };
        self.ledger.holders().filter(|holder| holder.tell(kick)).count()
    }
}

impl Handler<KickSome> for Supervisor {
    type Result = usize;

    fn handle(&mut self, msg: KickSome, _: &mut Self::Context) -> usize {
        let chosen = self.ledger.holders().filter(|holder| msg.sessions.contains(&holder.cell.id));
        chosen.filter(|holder| holder.tell(msg.kick)).count()
    }
}

impl Handler<Configure> for Supervisor {
    type Result = ();

    fn handle(&mut self, msg: Configure, _: &mut Self::Context) {
        self.ledger.configure(msg.limit);
    }
}

impl Handler<Snapshot> for Supervisor {
    type Result = Standing;

    fn handle(&mut self, _: Snapshot, _: &mut Self::Context) -> Standing {
        let ledger = &self.ledger;
        Standing {
            active: ledger.active(),
            max_total: ledger.limit().max_total_connections,
            max_per_ip: ledger.limit().max_per_ip,
            draining: ledger.draining(),
            per_ip: ledger.top(TOP),
            addresses: ledger.addresses(),
            rejected: self.tally.read(),
            sessions: ledger.holders().map(|holder| Arc::clone(&holder.cell)).collect(),
        }
    }
}

impl Handler<Panic> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        panic!("injected by a test");
    }
}

impl Handler<Stop> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
