//! How are the targets? Told by dials, checks and probes; heard by whoever chooses, by /ready and by /status.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::breaker::CircuitPermit;
use super::select::Fitness;
use super::target::{Target, TargetId};
use super::vital::{Depth, Rules, Trouble, Turn, Vital, VitalView};
use crate::telemetry::Telemetry;
use crate::telemetry::events::UpstreamHealth;

/// The health of all targets. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Health {
    shared: Arc<Shared>,
}

struct Shared {
    entries: Vec<(TargetId, String, Arc<Mutex<Vital>>)>,
    rules: Rules,
    telemetry: Telemetry,
}

impl Health {
    /// What was known `before` of targets that stay is known; of others nothing is. `rules` are for checks, where there are some.
    pub fn new(targets: &[Arc<Target>], rules: Rules, telemetry: Telemetry, before: Option<&Self>) -> Self {
        let now = Instant::now();
        let known = |id| before?.shared.entries.iter().find(|(known, ..)| *known == id).map(|(.., vital)| Arc::clone(vital));
        let vital = |id| known(id).unwrap_or_else(|| Arc::new(Mutex::new(Vital::new(now))));
        let entry = |target: &Arc<Target>| (target.id, target.label.clone(), vital(target.id));
        Self { shared: Arc::new(Shared { entries: targets.iter().map(entry).collect(), rules, telemetry }) }
    }

    /// A dial ended. Tell of a failure only where it says something about the upstream.
    pub fn dialled(&self, target: TargetId, result: Result<Depth, Trouble>) {
        self.learn(target, |vital| vital.dialled(Instant::now(), result));
    }

    /// A check ended.
    pub fn checked(&self, target: TargetId, result: Result<Depth, Trouble>) {
        self.learn(target, |vital| vital.checked(Instant::now(), self.shared.rules, result));
    }

    /// Whether `target` is to be tried in its turn; so it is from time to time though it failed, until [`Self::on_trial`] says
    /// that somebody does.
    pub fn fitness(&self, target: TargetId, now: Instant) -> Fitness {
        let fit = |vital: &mut Vital| vital.is_healthy() || vital.wants_trial(now);
        if self.look(target, fit).unwrap_or(true) { Fitness::Healthy } else { Fitness::Unhealthy }
    }

    /// `target` is the first that a client tries.
    pub fn on_trial(&self, target: TargetId, now: Instant) {
        self.look(target, |vital| {
            if vital.wants_trial(now) {
                vital.on_trial(now);
            }
        });
    }

    /// What each looks like, in the order of the configuration.
    pub fn views(&self) -> Vec<VitalView> {
        let now = Instant::now();
        self.shared.entries.iter().map(|(.., vital)| locked(vital).view(now)).collect()
    }

    /// What is known of each, for whoever sums it up.
    pub(super) fn vitals(&self) -> Vec<Vital> {
        self.shared.entries.iter().map(|(.., vital)| locked(vital).clone()).collect()
    }

    fn look<T>(&self, target: TargetId, act: impl FnOnce(&mut Vital) -> T) -> Option<T> {
        let (.., vital) = self.shared.entries.iter().find(|(id, ..)| *id == target)?;
        Some(act(&mut locked(vital)))
    }

    fn learn(&self, target: TargetId, act: impl FnOnce(&mut Vital) -> Option<Turn>) {
        let Some((_, label, vital)) = self.shared.entries.iter().find(|(id, ..)| *id == target) else { return };
        // Told under the lock, so that log and metric end with what is true.
        let mut vital = locked(vital);
        if let Some(Turn { healthy, trouble }) = act(&mut vital) {
            let (kind, error) = trouble.map_or((None, None), |trouble| (Some(trouble.kind), Some(trouble.text)));
            self.shared.telemetry.emit(UpstreamHealth { target: label, healthy, kind, error: error.as_deref() });
        }
    }
}

fn locked(vital: &Mutex<Vital>) -> MutexGuard<'_, Vital> {
    vital.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One permitted dial that has become a connection. Say how the handshake behind it ended, for breaker and health; dropped, as when the
/// client leaves, it says nothing.
pub struct DialPermit {
    circuit: CircuitPermit,
    health: Health,
}

impl DialPermit {
    pub(super) fn new(circuit: CircuitPermit, health: Health) -> Self {
        Self { circuit, health }
    }

    /// The upstream said Publish.Start or Play.Start.
    pub fn success(self) {
        self.health.dialled(self.circuit.target(), Ok(Depth::Speech));
        self.circuit.success();
    }

    /// The upstream is well, and refused what was asked.
    pub fn refused(self) {
        self.health.dialled(self.circuit.target(), Ok(Depth::Speech));
    }

    /// The handshake failed, or there was no answer in time. `kind`: one of
    /// [`labels::ERROR_TYPES`](crate::telemetry::labels::ERROR_TYPES).
    pub fn failure(self, kind: &'static str, text: &str) {
        self.health.dialled(self.circuit.target(), Err(Trouble::new(kind, text)));
        self.circuit.failure();
    }
}

impl std::fmt::Debug for DialPermit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DialPermit({:?})", self.circuit.target())
    }
}
