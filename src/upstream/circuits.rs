//! Pure: the circuits of all targets.

use std::collections::BTreeMap;
use std::time::Instant;

use super::circuit::{Circuit, CircuitSettings, NotNow, Report, Ticket, Transition, View};
use super::target::TargetId;

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
    settings: Option<CircuitSettings>,
    circuits: BTreeMap<TargetId, (String, Circuit)>,
    /// First epoch of a new circuit: above that of every ticket given out before.
    first_epoch: u64,
}

impl Circuits {
    /// All closed.
    pub(super) fn new(settings: Option<CircuitSettings>, targets: &[(TargetId, String)], first_epoch: u64) -> Self {
        let mut circuits = Self { settings, circuits: BTreeMap::new(), first_epoch };
        circuits.configure(settings, targets);
        circuits
    }

    /// Takes new settings and targets. A target that stays keeps its state.
    pub(super) fn configure(&mut self, settings: Option<CircuitSettings>, targets: &[(TargetId, String)]) {
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
    pub(super) fn settings(&self) -> Option<CircuitSettings> {
        self.settings
    }

    /// Asks to dial. A target without a circuit (the breaker is off, or a reload took it away) is permitted without a
    /// ticket.
    pub(super) fn ask(&mut self, target: TargetId, now: Instant) -> (Result<Option<Ticket>, NotNow>, Option<Change>) {
        let Some((label, circuit)) = self.circuits.get_mut(&target) else {
            return (Ok(None), None);
        };
        let (answer, transition) = circuit.ask(now);
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
mod tests {
    use super::*;
    use crate::upstream::circuit::CircuitState;

    const A: TargetId = TargetId(0);
    const B: TargetId = TargetId(1);

    fn two(settings: Option<CircuitSettings>) -> Circuits {
        Circuits::new(settings, &[(A, "a".into()), (B, "b".into())], 0)
    }

    fn open(circuits: &mut Circuits, target: TargetId, now: Instant) -> Change {
        loop {
            let ticket = circuits.ask(target, now).0.expect("closed").expect("a circuit");
            if let Some(change) = circuits.report(target, ticket, Report::Failure, now) {
                return change;
            }
        }
    }

    #[test]
    fn one_target_s_outage_leaves_the_other_alone() {
        let now = Instant::now();
        let mut circuits = two(Some(CircuitSettings::default()));
        let change = open(&mut circuits, A, now);
        assert_eq!((change.label.as_str(), change.transition.to, change.transition.failures), ("a", CircuitState::Open, 5));
        assert!(circuits.ask(A, now).0.is_err());
        assert!(circuits.ask(B, now).0.is_ok());
    }

    #[test]
    fn off_and_unknown_targets_are_permitted() {
        let now = Instant::now();
        assert!(matches!(two(None).ask(A, now), (Ok(None), None)));
        assert!(matches!(two(Some(CircuitSettings::default())).ask(TargetId(9), now), (Ok(None), None)));
    }

    #[test]
    fn a_reload_keeps_the_state_of_a_target_that_stays() {
        let now = Instant::now();
        let mut circuits = two(Some(CircuitSettings::default()));
        open(&mut circuits, A, now);
        open(&mut circuits, B, now);
        circuits.configure(Some(CircuitSettings::default()), &[(A, "a".into()), (B, "elsewhere".into())]);
        assert!(circuits.ask(A, now).0.is_err(), "the same target");
        assert!(circuits.ask(B, now).0.is_ok(), "another target under the same number");
    }

    #[test]
    fn reset_closes_one_or_all_and_tells() {
        let now = Instant::now();
        let mut circuits = two(Some(CircuitSettings::default()));
        open(&mut circuits, A, now);
        open(&mut circuits, B, now);
        assert_eq!(circuits.reset(Some(A)).len(), 1);
        assert!(circuits.ask(A, now).0.is_ok());
        assert_eq!(circuits.reset(None).iter().map(|change| change.target).collect::<Vec<_>>(), [B]);
    }
}
