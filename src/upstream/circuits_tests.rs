//! Tests of the circuits of several targets.

use std::time::Duration;

use super::*;
use crate::upstream::circuit::CircuitState;

const A: TargetId = TargetId(0);
const B: TargetId = TargetId(1);
const SETTINGS: CircuitBreaker = CircuitBreaker { max_failures: 5, reset_timeout: Duration::from_secs(30), success_threshold: 2 };

fn two(settings: Option<CircuitBreaker>) -> Circuits {
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
    let mut circuits = two(Some(SETTINGS));
    let change = open(&mut circuits, A, now);
    assert_eq!((change.label.as_str(), change.transition.to, change.transition.failures), ("a", CircuitState::Open, 5));
    assert!(circuits.ask(A, now).0.is_err());
    assert!(circuits.ask(B, now).0.is_ok());
}

#[test]
fn off_and_unknown_targets_are_permitted() {
    let now = Instant::now();
    assert!(matches!(two(None).ask(A, now), (Ok(None), None)));
    assert!(matches!(two(Some(SETTINGS)).ask(TargetId(9), now), (Ok(None), None)));
}

#[test]
fn a_reload_keeps_the_state_of_a_target_that_stays() {
    let now = Instant::now();
    let mut circuits = two(Some(SETTINGS));
    open(&mut circuits, A, now);
    open(&mut circuits, B, now);
    circuits.configure(Some(SETTINGS), &[(A, "a".into()), (B, "elsewhere".into())]);
    assert!(circuits.ask(A, now).0.is_err(), "the same target");
    assert!(circuits.ask(B, now).0.is_ok(), "another target under the same number");
}

#[test]
fn reset_closes_one_or_all_and_tells() {
    let now = Instant::now();
    let mut circuits = two(Some(SETTINGS));
    open(&mut circuits, A, now);
    open(&mut circuits, B, now);
    assert_eq!(circuits.reset(Some(A)).len(), 1);
    assert!(circuits.ask(A, now).0.is_ok());
    assert_eq!(circuits.reset(None).iter().map(|change| change.target).collect::<Vec<_>>(), [B]);
}
