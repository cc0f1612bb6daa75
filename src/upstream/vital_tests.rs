//! Tests of one target's health.

use proptest::prelude::*;

use super::*;

const RULES: Rules = Rules { rise: 2, fall: 3 };

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn trouble(kind: &'static str) -> Trouble {
    Trouble::new(kind, format!("{kind} happened"))
}

#[test]
fn one_failed_dial_is_enough_and_one_success_too() {
    let start = Instant::now();
    let mut vital = Vital::new(start);
    assert!(vital.is_healthy() && vital.view(start).state == "unknown");
    let turn = vital.dialled(start, Err(trouble("connect_refused")));
    assert_eq!(turn, Some(Turn { healthy: false, trouble: Some(trouble("connect_refused")) }));
    assert_eq!(vital.dialled(start + secs(1), Err(trouble("dns"))), None, "it was unwell already");
    let view = vital.view(start + secs(3));
    assert_eq!((view.state, view.since), ("unhealthy", secs(3)));
    assert_eq!(view.last_error, Some((trouble("dns"), secs(2))));
    assert_eq!(vital.dialled(start + secs(4), Ok(Depth::Speech)), Some(Turn { healthy: true, trouble: None }));
    let view = vital.view(start + secs(9));
    assert_eq!((view.state, view.since), ("healthy", secs(5)));
    assert!(view.last_error.is_some(), "what went wrong last can still be read");
}

#[test]
fn a_connection_does_not_disprove_that_the_handshake_failed() {
    let start = Instant::now();
    for kind in ["handshake", "handshake_timeout", "protocol"] {
        let mut vital = Vital::new(start);
        vital.dialled(start, Err(trouble(kind)));
        vital.dialled(start, Ok(Depth::Connection));
        assert!(!vital.is_healthy() && vital.reached().is_none() && vital.failing().is_some(), "{kind}");
        vital.dialled(start, Err(trouble("connect_refused")));
        vital.dialled(start, Ok(Depth::Connection));
        assert!(!vital.is_healthy(), "{kind}: nor does a milder trouble in between");
        vital.dialled(start, Ok(Depth::Speech));
        assert!(vital.is_healthy() && vital.reached() == Some(start), "{kind}");
    }
}

#[test]
fn a_socket_does_not_disprove_that_tls_failed() {
    let start = Instant::now();
    let mut vital = Vital::new(start);
    vital.dialled(start, Err(trouble("tls_expired")));
    vital.checked(start, RULES, Ok(Depth::Socket));
    assert!(!vital.is_healthy());
    vital.checked(start, RULES, Ok(Depth::Connection));
    assert!(vital.is_healthy());
}

#[test]
fn from_time_to_time_one_client_may_try_what_failed() {
    let start = Instant::now();
    let mut vital = Vital::new(start);
    assert!(!vital.wants_trial(start), "it is well");
    vital.dialled(start, Err(trouble("dns")));
    assert!(!vital.wants_trial(start + TRIAL_EVERY - secs(1)) && vital.wants_trial(start + TRIAL_EVERY));
    vital.on_trial(start + TRIAL_EVERY);
    assert!(!vital.wants_trial(start + TRIAL_EVERY), "one is enough");
    vital.dialled(start + TRIAL_EVERY, Err(trouble("dns")));
    assert!(vital.wants_trial(start + TRIAL_EVERY * 2));
    vital.checked(start, Rules { rise: 1, fall: 1 }, Err(trouble("dns")));
    assert!(!vital.wants_trial(start + TRIAL_EVERY * 2), "the checks know it already");
}

#[test]
fn the_first_check_decides_and_then_it_takes_several() {
    let start = Instant::now();
    let pass = || Ok(Depth::Speech);
    let fail = || Err(trouble("connect_timeout"));
    let mut down = Vital::new(start);
    assert_eq!(down.checked(start, RULES, fail()).map(|turn| turn.healthy), Some(false));
    assert_eq!(down.checked(start, RULES, pass()), None);
    assert_eq!(down.checked(start, RULES, pass()).map(|turn| turn.healthy), Some(true));
    let mut up = Vital::new(start);
    assert_eq!(up.checked(start, RULES, pass()), None, "well it was before");
    let healthy: Vec<_> = [fail(), fail(), pass(), fail(), fail(), fail(), pass(), pass()]
        .into_iter()
        .map(|result| {
            up.checked(start, RULES, result);
            up.is_healthy()
        })
        .collect();
    assert_eq!(healthy, [true, true, true, true, true, false, false, true]);
    assert_eq!(up.view(start).checks, (4, 5));
}

#[test]
fn checks_and_dials_must_both_be_content_and_a_check_that_goes_far_enough_disproves_a_dial() {
    let start = Instant::now();
    let mut vital = Vital::new(start);
    vital.checked(start, RULES, Ok(Depth::Connection));
    vital.dialled(start, Err(trouble("handshake")));
    vital.checked(start, RULES, Ok(Depth::Connection));
    assert!(!vital.is_healthy(), "a TCP check knows nothing of handshakes");
    vital.checked(start, RULES, Ok(Depth::Speech));
    assert!(vital.is_healthy());
    for _ in 0..3 {
        vital.checked(start, RULES, Err(trouble("dns")));
    }
    vital.dialled(start, Ok(Depth::Speech));
    assert!(!vital.is_healthy(), "three checks failed, whatever one dial says");
    assert!(vital.reached() == Some(start) && vital.failing().is_none(), "but it can be reached");
}

proptest! {
    /// What was told last of a turn is what is true, and views never contradict it.
    #[test]
    fn turns_tell_the_whole_story(happenings in prop::collection::vec((any::<bool>(), any::<bool>(), any::<bool>(), 0..20_u64), 0..60)) {
        let mut now = Instant::now();
        let mut vital = Vital::new(now);
        let mut told = true;
        for (check, well, deep, after) in happenings {
            now += secs(after);
            let depth = if deep { Depth::Speech } else { Depth::Connection };
            let kind = if deep { "handshake" } else { "dns" };
            let result = if well { Ok(depth) } else { Err(trouble(kind)) };
            let turn = if check { vital.checked(now, RULES, result) } else { vital.dialled(now, result) };
            if let Some(turn) = turn {
                prop_assert_ne!(turn.healthy, told);
                prop_assert_eq!(turn.trouble.is_none(), turn.healthy);
                told = turn.healthy;
            }
            let view = vital.view(now);
            prop_assert_eq!(vital.is_healthy(), told);
            prop_assert_eq!(view.state == "unhealthy", !told);
            prop_assert!(view.state != "unknown" || view.last_error.is_none());
            prop_assert!(!(vital.wants_trial(now) && told));
            if !told { prop_assert!(view.last_error.is_some()); }
        }
    }
}
