//! Tests of retry, by hand and by simulation.

use proptest::prelude::*;

use super::*;

const SETTINGS: Retry = Retry {
    max_attempts: 3,
    initial_delay: Duration::from_secs(1),
    max_delay: Duration::from_secs(30),
    multiplier: 2.0,
    jitter_fraction: 0.1,
    total_timeout: Duration::from_secs(20),
};
const MIDDLE: f64 = 0.5;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn three_attempts_are_three_dials_with_growing_waits() {
    let start = Instant::now();
    let mut attempts = Attempts::new(Some(SETTINGS), 1, start);
    assert_eq!(attempts.next(start), Next::Dial(Some(secs(20))));
    attempts.dialling();
    attempts.failed(start, MIDDLE);
    assert_eq!(attempts.next(start), Next::Wait(secs(1)));
    let now = start + secs(1);
    assert_eq!(attempts.next(now), Next::Dial(Some(secs(19))));
    attempts.dialling();
    attempts.failed(now, MIDDLE);
    assert_eq!(attempts.next(now), Next::Wait(secs(2)));
    attempts.dialling();
    attempts.failed(now + secs(2), MIDDLE);
    assert_eq!(attempts.next(now + secs(2)), Next::GiveUp(GiveUp::Attempts { made: 3 }));
}

#[test]
fn a_try_that_would_begin_too_late_is_given_up_at_once() {
    let start = Instant::now();
    let mut attempts = Attempts::new(Some(Retry { total_timeout: secs(3), initial_delay: secs(5), ..SETTINGS }), 1, start);
    attempts.dialling();
    attempts.failed(start, MIDDLE);
    assert_eq!(attempts.next(start), Next::GiveUp(GiveUp::Time { made: 1, total: secs(3) }));
}

#[test]
fn an_open_circuit_uses_no_attempt_and_is_waited_for_if_there_is_time() {
    let start = Instant::now();
    let mut attempts = Attempts::new(Some(SETTINGS), 1, start);
    for _ in 0..10 {
        attempts.circuit_open(start, secs(15), 0.0);
        assert_eq!(attempts.next(start), Next::Wait(secs(15)));
    }
    assert_eq!(attempts.next(start + secs(15)), Next::Dial(Some(secs(5))));
    assert_eq!(attempts.made(), 0);
    attempts.circuit_open(start + secs(15), secs(30), 0.0);
    assert_eq!(attempts.next(start + secs(15)), Next::GiveUp(GiveUp::CircuitOpen { retry_after: secs(30) }));
}

#[test]
fn with_retry_off_there_is_one_dial_and_no_wait() {
    let start = Instant::now();
    let mut attempts = Attempts::new(None, 1, start);
    assert_eq!(attempts.next(start), Next::Dial(None));
    let mut refused = attempts.clone();
    refused.circuit_open(start, Duration::from_millis(1), 0.0);
    assert!(matches!(refused.next(start), Next::GiveUp(GiveUp::CircuitOpen { .. })));
    attempts.dialling();
    attempts.failed(start, MIDDLE);
    assert_eq!(attempts.next(start), Next::GiveUp(GiveUp::Attempts { made: 1 }));
}

#[test]
fn jitter_moves_a_wait_by_its_fraction_and_never_past_sense() {
    let settings = Retry { jitter_fraction: 0.1, ..SETTINGS };
    assert_eq!(backoff(&settings, 1, 0.0), Duration::from_millis(900));
    assert_eq!(backoff(&settings, 1, 1.0), Duration::from_millis(1100));
    let wild = Retry {
        multiplier: f64::MAX,
        initial_delay: Duration::MAX,
        max_delay: Duration::MAX,
        jitter_fraction: f64::NAN,
        ..SETTINGS
    };
    assert!(backoff(&wild, u32::MAX, f64::NAN) <= MAX_WAIT * 2);
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Fails,
    CircuitOpen(u64),
}

proptest! {
    /// A client that does what it is told, with dials that take as long as they are allowed to.
    #[test]
    fn attempts_and_time_are_never_exceeded(
        max_attempts in 1..6_u32,
        initial in 0..3_000_u64,
        max_delay in 1..10_000_u64,
        multiplier in 1.0..5.0_f64,
        jitter_fraction in 0.0..1.0_f64,
        total in 1..30_000_u64,
        fates in prop::collection::vec(
            (prop_oneof![Just(Fate::Fails), (0..8_000_u64).prop_map(Fate::CircuitOpen)], 0..6_000_u64, 0.0..1.0_f64), 1..60),
    ) {
        let ms = Duration::from_millis;
        let settings = Retry {
            max_attempts, initial_delay: ms(initial), max_delay: ms(max_delay), multiplier, jitter_fraction, total_timeout: ms(total),
        };
        let start = Instant::now();
        let mut now = start;
        let mut attempts = Attempts::new(Some(settings), 1, start);
        let mut dials = 0;
        let mut given_up = false;
        for (fate, takes, chance) in fates {
            match attempts.next(now) {
                Next::GiveUp(why) => {
                    given_up = true;
                    if let GiveUp::Attempts { made } = why { prop_assert_eq!(made, max_attempts); }
                    break;
                }
                Next::Wait(wait) => {
                    prop_assert!(wait > Duration::ZERO);
                    now += wait;
                    prop_assert!(now < start + settings.total_timeout, "a wait leaves time for a dial");
                    prop_assert!(matches!(attempts.next(now), Next::Dial(_)), "after a wait comes a dial");
                }
                Next::Dial(within) => {
                    let within = within.expect("a bound");
                    prop_assert!(within > Duration::ZERO);
                    match fate {
                        Fate::CircuitOpen(after) => attempts.circuit_open(now, ms(after), chance),
                        Fate::Fails => {
                            attempts.dialling();
                            dials += 1;
                            now += ms(takes).min(within);
                            attempts.failed(now, chance);
                        }
                    }
                }
            }
            prop_assert!(dials <= max_attempts);
            prop_assert!(now <= start + settings.total_timeout);
            prop_assert_eq!(attempts.made(), dials);
        }
        prop_assert!(!given_up || matches!(attempts.next(now), Next::GiveUp(_)), "it stays given up");
    }

    #[test]
    fn a_wait_stays_within_its_bounds(made in 1..40_u32, chance in 0.0..1.0_f64, jitter_fraction in 0.0..1.0_f64) {
        let settings = Retry { jitter_fraction, ..SETTINGS };
        let plain = (2_f64.powi(made as i32 - 1)).min(30.0);
        let wait = backoff(&settings, made, chance).as_secs_f64();
        prop_assert!(wait >= plain * (1.0 - jitter_fraction) - 1e-6 && wait <= plain * (1.0 + jitter_fraction) + 1e-6);
    }
}
