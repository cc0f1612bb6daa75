//! Pure: the circuits of all targets.

use std::collections::BTreeMap;
use std::time::Instant;

use super::circuit::{Circuit, NotNow, Report, Ticket, Transition, View};
use super::passage::Free;
use super::target::TargetId;
use crate::config::CircuitBreaker;

/// A circuit that went from one state to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The target.
    pub target: TargetId,
    /// Its label.
    pub label: String,
    /// From where to where.
    pub transition: Transition,
}

/// One target in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetView {
    /// The target.
    pub target: TargetId,
    /// Its label.
    pub label: String,
    /// Its circuit.
    pub view: View,
}

/// One circuit for each target; their number is that of the configured targets.
#[derive(Debug)]
pub(super) struct Circuits {
    /// None: the breaker is off and every dial passes.
    settings: Option<CircuitBreaker>,
    circuits: BTreeMap<TargetId, (String, Circuit)>,
    /// First epoch of a new circuit: above that of every ticket given out before.
    first_epoch: u64,
}

impl Circuits {
    /// All closed.
    pub(super) fn new(settings: Option<CircuitBreaker>, targets: &[(TargetId, String)], first_epoch: u64) -> Self {
        let mut circuits = Self { settings, circuits: BTreeMap::new(), first_epoch };
        circuits.configure(settings, targets);
        circuits
    }

    /// Takes new settings and targets. A target that stays keeps its state.
    pub(super) fn configure(&mut self, settings: Option<CircuitBreaker>, targets: &[(TargetId, String)]) {
        self.settings = settings;
        let mut old = std::mem::take(&mut self.circuits);
        let Some(settings) = settings else {
            return;
        };
        for (id, label) in targets {
            let circuit = match old.remove(id) {
                Some((old_label, mut circuit)) if old_label == *label => {
                    circuit.configure(settings);
                    circuit
                }
                Some(_) | None => Circuit::new(settings, self.first_epoch),
            };
            self.circuits.insert(*id, (label.clone(), circuit));
        }
    }

    /// The settings.
    pub(super) fn settings(&self) -> Option<CircuitBreaker> {
        self.settings
    }

    /// Asks to dial. A target without a circuit (the breaker is off, or a reload took it away) is permitted without a
    /// ticket.
    pub(super) fn ask(&mut self, target: TargetId, now: Instant) -> (Result<Option<Ticket>, NotNow>, Option<Change>) {
        self.ask_with(target, |circuit| circuit.ask(now))
    }

    /// The same for one who has a running stream to lose, see [`Circuit::ask_urgently`].
    pub(super) fn ask_urgently(&mut self, target: TargetId, now: Instant) -> (Result<Option<Ticket>, NotNow>, Option<Change>) {
        self.ask_with(target, |circuit| circuit.ask_urgently(now))
    }

    fn ask_with(
        &mut self,
        target: TargetId,
        ask: impl FnOnce(&mut Circuit) -> (Result<Ticket, NotNow>, Option<Transition>),
    ) -> (Result<Option<Ticket>, NotNow>, Option<Change>) {
        let Some((label, circuit)) = self.circuits.get_mut(&target) else {
            return (Ok(None), None);
        };
        let (answer, transition) = ask(circuit);
        (answer.map(Some), transition.map(|transition| Change { target, label: label.clone(), transition }))
    }

    /// Hears how a dial ended.
    pub(super) fn report(&mut self, target: TargetId, ticket: Ticket, report: Report, now: Instant) -> Option<Change> {
        let (label, circuit) = self.circuits.get_mut(&target)?;
        let transition = circuit.report(ticket, report, now)?;
        Some(Change { target, label: label.clone(), transition })
    }

    /// Closes one circuit, or all.
    pub(super) fn reset(&mut self, only: Option<TargetId>) -> Vec<Change> {
        let chosen = self.circuits.iter_mut().filter(|(id, _)| only.is_none_or(|only| only == **id));
        chosen
            .filter_map(|(&target, (label, circuit))| {
                circuit.reset().map(|transition| Change { target, label: label.clone(), transition })
            })
            .collect()
    }

    /// What can be said of a target in advance.
    pub(super) fn free(&self, target: TargetId) -> Option<Free> {
        self.circuits.get(&target).and_then(|(_, circuit)| circuit.free()).map(|(ticket, well)| Free { ticket, well })
    }

    /// The same of all.
    pub(super) fn all_free(&self) -> BTreeMap<TargetId, Free> {
        self.circuits.keys().filter_map(|target| Some((*target, self.free(*target)?))).collect()
    }

    /// What they look like at `now`.
    pub(super) fn views(&self, now: Instant) -> Vec<TargetView> {
        let view = |(&target, (label, circuit)): (&TargetId, &(String, Circuit))| TargetView {
            target,
            label: label.clone(),
            view: circuit.view(now),
        };
        self.circuits.iter().map(view).collect()
    }
}

#[cfg(test)]
#[path = "circuits_tests.rs"]
mod tests;
