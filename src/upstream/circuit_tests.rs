//! Tests of one circuit, by hand and by simulation.

use proptest::prelude::*;

use super::*;

const SETTINGS: CircuitBreaker = CircuitBreaker { max_failures: 3, reset_timeout: Duration::from_secs(30), success_threshold: 2 };
const AFTER: Duration = SETTINGS.reset_timeout;

fn ticket(circuit: &mut Circuit, now: Instant) -> Ticket {
    circuit.ask(now).0.expect("a ticket")
}

fn fail(circuit: &mut Circuit, now: Instant) -> Option<Transition> {
    let ticket = ticket(circuit, now);
    circuit.report(ticket, Report::Failure, now)
}

fn succeed(circuit: &mut Circuit, now: Instant) -> Option<Transition> {
    let ticket = ticket(circuit, now);
    circuit.report(ticket, Report::Success, now)
}

/// Open since `now`.
fn opened(now: Instant) -> Circuit {
    let mut circuit = Circuit::new(SETTINGS, 0);
    while circuit.state() == CircuitState::Closed {
        fail(&mut circuit, now);
    }
    circuit
}

#[test]
fn consecutive_failures_open_it_and_a_success_starts_the_count_again() {
    let now = Instant::now();
    let mut circuit = Circuit::new(SETTINGS, 0);
    assert_eq!(fail(&mut circuit, now), None);
    assert_eq!(fail(&mut circuit, now), None);
    assert_eq!(succeed(&mut circuit, now), None);
    assert_eq!(fail(&mut circuit, now), None);
    assert_eq!(fail(&mut circuit, now), None);
    let want = Transition { from: CircuitState::Closed, to: CircuitState::Open, failures: 3 };
    assert_eq!(fail(&mut circuit, now), Some(want));
    let later = now + Duration::from_secs(10);
    let refused = circuit.ask(later).0.expect_err("open");
    assert_eq!(refused, NotNow { why: Why::Open, retry_after: Duration::from_secs(20) });
    let view = circuit.view(later);
    assert_eq!((view.state, view.failures), (CircuitState::Open, 3));
    assert_eq!((view.opened_for, view.retry_in), (Some(Duration::from_secs(10)), Some(Duration::from_secs(20))));
}

#[test]
fn half_open_lets_exactly_one_probe_through_until_enough_succeeded() {
    let now = Instant::now();
    let mut circuit = opened(now);
    let now = now + AFTER;
    let (probe, transition) = circuit.ask(now);
    assert_eq!(transition.map(|t| (t.from, t.to)), Some((CircuitState::Open, CircuitState::HalfOpen)));
    for _ in 0..100 {
        assert_eq!(circuit.ask(now).0.expect_err("one probe").why, Why::Probing);
    }
    assert_eq!(circuit.report(probe.expect("the probe"), Report::Success, now), None);
    let second = ticket(&mut circuit, now);
    assert!(circuit.ask(now).0.is_err());
    let closed = circuit.report(second, Report::Success, now).expect("a change");
    assert_eq!((closed.to, closed.failures), (CircuitState::Closed, 0));
}

#[test]
fn a_failed_probe_opens_it_for_the_whole_time_again() {
    let now = Instant::now();
    let mut circuit = opened(now);
    let now = now + AFTER;
    assert_eq!(succeed(&mut circuit, now), None);
    assert_eq!(fail(&mut circuit, now).map(|t| t.to), Some(CircuitState::Open));
    assert_eq!(circuit.ask(now).0.expect_err("open").retry_after, AFTER);
    assert_eq!(circuit.view(now).opened_for, Some(AFTER), "the outage began with the first opening");
}

#[test]
fn a_probe_that_says_neither_leaves_the_next_one_free() {
    let now = Instant::now();
    let mut circuit = opened(now);
    let now = now + AFTER;
    let probe = ticket(&mut circuit, now);
    assert_eq!(circuit.report(probe, Report::Neither, now), None);
    assert_eq!(circuit.state(), CircuitState::HalfOpen);
    assert!(circuit.ask(now).0.is_ok());
}

#[test]
fn reports_from_before_a_change_of_state_count_no_more() {
    let now = Instant::now();
    let mut circuit = Circuit::new(SETTINGS, 0);
    let old: Vec<Ticket> = (0..10).map(|_| ticket(&mut circuit, now)).collect();
    for &ticket in &old[..3] {
        circuit.report(ticket, Report::Failure, now);
    }
    assert_eq!(circuit.state(), CircuitState::Open);
    let later = now + AFTER;
    let probe = ticket(&mut circuit, later);
    assert_eq!(circuit.report(old[3], Report::Success, later), None, "an old success closes nothing");
    assert_eq!(circuit.report(old[4], Report::Failure, later), None, "an old failure opens nothing");
    assert_eq!(circuit.report(old[5], Report::Neither, later), None, "an old end frees no probe");
    assert!(circuit.ask(later).0.is_err());
    assert_eq!(circuit.report(probe, Report::Success, later), None);
}

#[test]
fn after_an_outage_the_number_of_dials_at_a_time_doubles_from_one() {
    let now = Instant::now();
    let mut circuit = opened(now);
    let now = now + AFTER;
    succeed(&mut circuit, now);
    succeed(&mut circuit, now);
    assert_eq!(circuit.state(), CircuitState::Closed);
    let mut rounds = Vec::new();
    for _ in 0..6 {
        let mut round = Vec::new();
        while let Ok(ticket) = circuit.ask(now).0 {
            round.push(ticket);
        }
        assert_eq!(circuit.ask(now).0.expect_err("full").why, Why::Ramping);
        rounds.push(round.len());
        for ticket in round {
            circuit.report(ticket, Report::Success, now);
        }
    }
    assert_eq!(rounds, [1, 2, 4, 8, 16, 32]);
    assert!((0..1000).all(|_| circuit.ask(now).0.is_ok()), "then it is as before");
}

#[test]
fn reset_closes_it_at_once_and_old_tickets_are_void() {
    let now = Instant::now();
    let mut circuit = opened(now);
    assert_eq!(circuit.reset().map(|t| t.to), Some(CircuitState::Closed));
    assert_eq!(circuit.reset(), None);
    assert!((0..100).all(|_| circuit.ask(now).0.is_ok()), "the operator knows: no careful time");
}

#[test]
fn endless_settings_do_not_overflow_the_clock() {
    let now = Instant::now();
    let settings = CircuitBreaker { max_failures: 1, reset_timeout: Duration::MAX, success_threshold: u32::MAX };
    let mut circuit = Circuit::new(settings, 0);
    fail(&mut circuit, now);
    assert_eq!(circuit.ask(now).0.expect_err("open").retry_after, MAX_OPEN);
}

#[derive(Debug, Clone)]
enum Act {
    Ask,
    Report(usize, Report),
    Pass(u64),
    Reset,
}

fn act() -> impl Strategy<Value = Act> {
    let report = prop_oneof![Just(Report::Success), Just(Report::Failure), Just(Report::Neither)];
    prop_oneof![
        5 => Just(Act::Ask),
        5 => (0..8_usize, report).prop_map(|(at, report)| Act::Report(at, report)),
        2 => (0..40_u64).prop_map(Act::Pass),
        1 => Just(Act::Reset),
    ]
}

proptest! {
    /// Any order of questions, reports, time and resets.
    #[test]
    fn a_simulated_life_keeps_the_rules(
        acts in prop::collection::vec(act(), 1..300),
        max_failures in 1..4_u32,
        success_threshold in 1..4_u32,
    ) {
        let settings = CircuitBreaker { max_failures, reset_timeout: Duration::from_secs(30), success_threshold };
        let mut circuit = Circuit::new(settings, 0);
        let mut now = Instant::now();
        // Tickets that are out, with the number of the state's period they are from; the model of what counts.
        let mut out: Vec<(Ticket, u64)> = Vec::new();
        let mut period = 0_u64;
        let mut opened_at = now;
        let mut failures_in_a_row = 0;
        let mut successes = 0;
        for act in acts {
            let before = circuit.state();
            let transition = match act {
                Act::Pass(seconds) => { now += Duration::from_secs(seconds); None }
                Act::Reset => circuit.reset(),
                Act::Ask => {
                    let (answer, transition) = circuit.ask(now);
                    if transition.is_some() {
                        period += 1;
                        successes = 0;
                    }
                    let probes = out.iter().filter(|(_, from)| *from == period).count();
                    if let Ok(ticket) = answer {
                        prop_assert_ne!(circuit.state(), CircuitState::Open, "open lets nothing through");
                        if circuit.state() == CircuitState::HalfOpen {
                            prop_assert_eq!(probes, 0, "exactly one probe");
                        }
                        out.push((ticket, period));
                    } else {
                        match circuit.state() {
                            CircuitState::Open => prop_assert!(now < opened_at + settings.reset_timeout),
                            CircuitState::HalfOpen => prop_assert_eq!(probes, 1, "a free probe is given"),
                            CircuitState::Closed => prop_assert!(probes >= 1, "one dial at least"),
                        }
                    }
                    None
                }
                Act::Report(at, report) => {
                    if out.is_empty() { continue; }
                    let (ticket, from) = out.swap_remove(at % out.len());
                    let transition = circuit.report(ticket, report, now);
                    if from != period {
                        prop_assert_eq!(transition, None, "void");
                    } else {
                        match report {
                            Report::Success => { failures_in_a_row = 0; successes += 1; }
                            Report::Failure => failures_in_a_row += 1,
                            Report::Neither => {}
                        }
                    }
                    if let Some(transition) = transition {
                        match transition.to {
                            CircuitState::Open if before == CircuitState::Closed => prop_assert_eq!(failures_in_a_row, max_failures),
                            CircuitState::Open => prop_assert_eq!(report, Report::Failure),
                            CircuitState::Closed => prop_assert_eq!(successes, success_threshold),
                            CircuitState::HalfOpen => prop_assert!(false, "only a question does that"),
                        }
                    } else if from == period {
                        prop_assert!(before != CircuitState::Closed || failures_in_a_row < max_failures);
                        prop_assert!(before != CircuitState::HalfOpen || successes < success_threshold);
                    }
                    transition
                }
            };
            if let Some(transition) = transition {
                prop_assert_eq!(transition.from, before);
                prop_assert_eq!(transition.to, circuit.state());
                period += 1;
                successes = 0;
                failures_in_a_row = 0;
                if transition.to == CircuitState::Open { opened_at = now; }
            } else if matches!(act, Act::Reset) {
                failures_in_a_row = 0;
            }
            let view = circuit.view(now);
            prop_assert_eq!(view.state, circuit.state());
            prop_assert_eq!(view.opened_for.is_some(), view.state != CircuitState::Closed);
        }
    }
}

#[test]
fn one_in_a_hurry_probes_an_open_circuit_each_second_and_makes_nobody_wait_longer() {
    let now = Instant::now();
    let mut circuit = opened(now);
    let second = Duration::from_secs(1);
    assert_eq!(circuit.ask_urgently(now).0.expect_err("just opened").retry_after, second);
    let later = now + second;
    let (probe, transition) = circuit.ask_urgently(later);
    assert_eq!(transition.map(|t| t.to), Some(CircuitState::HalfOpen));
    assert_eq!(circuit.ask_urgently(later).0.expect_err("one probe").why, Why::Probing);
    let failed = circuit.report(probe.expect("the probe"), Report::Failure, later).expect("a change");
    assert_eq!((failed.to, failed.failures), (CircuitState::Open, 4));
    assert_eq!(circuit.ask(later).0.expect_err("open").retry_after, AFTER - second, "as if nobody had tried");
    assert_eq!(circuit.ask_urgently(later).0.expect_err("open").retry_after, second);
    // Behind that time a failure opens it for the whole time again, whoever it was.
    let over = now + AFTER;
    let probe = circuit.ask_urgently(over).0.expect("the probe");
    circuit.report(probe, Report::Failure, over);
    assert_eq!(circuit.ask(over).0.expect_err("open").retry_after, AFTER);
    // Success closes it for everybody.
    let later = over + second;
    for _ in 0..SETTINGS.success_threshold {
        let probe = circuit.ask_urgently(later).0.expect("the probe");
        circuit.report(probe, Report::Success, later);
    }
    assert!(circuit.ask(later).0.is_ok());
}
