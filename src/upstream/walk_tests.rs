//! Tests of a walk through candidates.

use super::*;
use crate::upstream::retry::GiveUp;

const SETTINGS: Retry = Retry {
    max_attempts: 4,
    initial_delay: Duration::from_secs(1),
    max_delay: Duration::from_secs(30),
    multiplier: 2.0,
    jitter_fraction: 0.0,
    total_timeout: Duration::from_secs(20),
};

const A: TargetId = TargetId(0);
const B: TargetId = TargetId(1);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn untried(walk: &Walk) -> Vec<TargetId> {
    walk.untried().collect()
}

fn dial(walk: &mut Walk, id: TargetId, now: Instant) {
    assert!(matches!(walk.next(now), Next::Dial(_)), "{:?}", walk.next(now));
    assert_eq!(walk.untried().next(), Some(id));
    walk.dialling(id);
}

#[test]
fn a_round_goes_through_all_without_a_wait_and_rounds_are_parted_by_growing_ones() {
    let start = Instant::now();
    let mut walk = Walk::new(Some(SETTINGS), &[A, B], start);
    for id in [A, B] {
        dial(&mut walk, id, start);
        walk.failed(start, 0.5);
    }
    assert_eq!(walk.next(start), Next::Wait(secs(1)), "the first wait is the first, however many were dialled");
    let second = start + secs(1);
    for id in [A, B] {
        dial(&mut walk, id, second);
        walk.failed(second, 0.5);
    }
    assert_eq!(walk.next(second), Next::GiveUp(GiveUp::Attempts { made: 4 }));
}

#[test]
fn who_failed_keeps_its_back_off_while_another_s_circuit_is_asked_again_sooner() {
    let start = Instant::now();
    let mut walk = Walk::new(Some(SETTINGS), &[A, B], start);
    dial(&mut walk, A, start);
    walk.failed(start, 0.5);
    assert_eq!(untried(&walk), [B]);
    walk.none_ready(start, Some(Duration::from_millis(300)), 0.0);
    assert_eq!(walk.next(start), Next::Wait(Duration::from_millis(300)));
    let soon = start + Duration::from_millis(300);
    assert!(matches!(walk.next(soon), Next::Dial(_)));
    assert_eq!(untried(&walk), [B], "A has 700 ms left");
    walk.none_ready(soon, Some(secs(30)), 0.0);
    assert_eq!(walk.next(soon), Next::Wait(Duration::from_millis(700)), "not longer than A's");
    assert!(matches!(walk.next(start + secs(1)), Next::Dial(_)));
    assert_eq!(untried(&walk), [A, B], "a new round");
}

#[test]
fn who_fails_while_another_rests_has_a_back_off_of_its_own() {
    let start = Instant::now();
    let mut walk = Walk::new(Some(SETTINGS), &[A, B], start);
    dial(&mut walk, A, start);
    walk.failed(start, 0.5);
    walk.none_ready(start, Some(Duration::from_millis(300)), 0.0);
    dial(&mut walk, B, start + Duration::from_millis(300));
    // By now A may be dialled again, and B has only just failed.
    let late = start + secs(5);
    walk.failed(late, 0.0);
    assert_eq!(walk.next(late), Next::Wait(secs(2)));
    assert!(matches!(walk.next(late + secs(2)), Next::Dial(_)));
    assert_eq!(untried(&walk), [A, B]);
}

#[test]
fn who_fails_while_another_rests_leaves_the_others_their_turn() {
    let (start, c) = (Instant::now(), TargetId(2));
    let mut walk = Walk::new(Some(SETTINGS), &[A, B, c], start);
    dial(&mut walk, A, start);
    walk.failed(start, 0.5);
    walk.none_ready(start, Some(Duration::from_millis(300)), 0.0);
    let soon = start + Duration::from_millis(300);
    dial(&mut walk, B, soon);
    walk.failed(soon, 0.0);
    assert!(matches!(walk.next(soon), Next::Dial(_)));
    assert_eq!(untried(&walk), [c]);
}

#[test]
fn a_round_in_which_nobody_can_be_dialled_waits_for_the_first_circuit_and_uses_no_attempt() {
    let start = Instant::now();
    let mut walk = Walk::new(Some(SETTINGS), &[A, B], start);
    walk.none_ready(start, Some(secs(5)), 0.0);
    assert_eq!((walk.next(start), walk.made()), (Next::Wait(secs(5)), 0));
    walk.none_ready(start, Some(secs(30)), 0.0);
    assert_eq!(walk.next(start), Next::GiveUp(GiveUp::CircuitOpen { retry_after: secs(30) }));
}

#[test]
fn without_retry_there_is_one_round_and_no_wait() {
    let start = Instant::now();
    let mut walk = Walk::new(None, &[A, B], start);
    dial(&mut walk, A, start);
    walk.failed(start, 0.5);
    let mut refused = walk.clone();
    refused.none_ready(start, Some(secs(30)), 0.0);
    assert_eq!(refused.next(start), Next::GiveUp(GiveUp::Attempts { made: 1 }));
    dial(&mut walk, B, start);
    walk.failed(start, 0.5);
    assert_eq!(walk.next(start), Next::GiveUp(GiveUp::Attempts { made: 2 }));
}

#[test]
fn what_is_forbidden_is_not_tried_again() {
    let start = Instant::now();
    let mut walk = Walk::new(Some(SETTINGS), &[A, B], start);
    dial(&mut walk, A, start);
    walk.failed(start, 0.5);
    dial(&mut walk, B, start);
    walk.forbidden(B, start, 0.5);
    assert_eq!(walk.next(start), Next::Wait(secs(1)), "A has failed, and B is no more");
    walk.next(start + secs(1));
    assert_eq!(untried(&walk), [A]);
    walk.forbidden(A, start, 0.5);
    assert!(walk.is_empty());
}
