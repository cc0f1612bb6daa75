//! Tests of the breaker's actor.

use std::sync::Mutex;

use super::*;
use crate::upstream::circuit::CircuitState;

const TARGET: TargetId = TargetId(0);

fn settings(reset_timeout: Duration) -> Option<CircuitBreaker> {
    Some(CircuitBreaker { max_failures: 2, reset_timeout, success_threshold: 1 })
}

/// A running breaker for one target, and what it told.
fn start(settings: Option<CircuitBreaker>) -> (Breaker, Arc<Mutex<Vec<Happening>>>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell: Tell = {
        let told = told.clone();
        Arc::new(move |happening| told.lock().expect("a lock").push(happening))
    };
    let breaker = UpstreamBreaker::new(settings, vec![(TARGET, "rtmp://h:1935/live".into())], tell).start();
    (Breaker::new(breaker), told)
}

async fn state(breaker: &Breaker) -> CircuitState {
    breaker.actor().send(Snapshot).await.expect("alive").targets[0].view.state
}

async fn open(breaker: &Breaker) {
    for _ in 0..2 {
        breaker.permit(TARGET).await.expect("closed").failure();
    }
    assert_eq!(state(breaker).await, CircuitState::Open);
}

#[actix::test]
async fn failures_open_the_circuit_and_the_change_is_told() {
    let (breaker, told) = start(settings(Duration::from_secs(60)));
    open(&breaker).await;
    let refused = breaker.permit(TARGET).await.expect_err("open");
    assert!(refused.why == Why::Open && refused.retry_after > Duration::from_secs(50), "{refused}");
    let told = told.lock().expect("a lock").clone();
    let [Happening::Circuit(change)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((change.label.as_str(), change.transition.to), ("rtmp://h:1935/live", CircuitState::Open));
}

#[actix::test]
async fn of_many_who_ask_in_half_open_one_is_the_probe_and_dropping_it_frees_the_next() {
    let (breaker, _) = start(settings(Duration::ZERO));
    open(&breaker).await;
    let answers = futures_util::future::join_all((0..50).map(|_| breaker.permit(TARGET))).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    drop(answers);
    let probe = breaker.permit(TARGET).await.expect("the probe was given back");
    assert!(breaker.permit(TARGET).await.is_err());
    probe.success();
    assert_eq!(state(&breaker).await, CircuitState::Closed);
}

#[actix::test]
async fn a_question_whose_asker_left_gives_its_permit_back() {
    use futures_util::FutureExt;
    let (breaker, _) = start(settings(Duration::ZERO));
    open(&breaker).await;
    // Polled once, so that the message is sent; answered while we ask something else; dropped with the answer in it.
    let mut question = Box::pin(breaker.permit(TARGET));
    assert!((&mut question).now_or_never().is_none());
    assert_eq!(state(&breaker).await, CircuitState::HalfOpen);
    assert!(breaker.permit(TARGET).await.is_err());
    drop(question);
    assert!(breaker.permit(TARGET).await.is_ok());
}

#[actix::test]
async fn a_panic_in_the_core_closes_all_circuits_is_told_and_voids_old_permits() {
    let (breaker, told) = start(settings(Duration::from_secs(60)));
    let old = [breaker.permit(TARGET).await.expect("closed"), breaker.permit(TARGET).await.expect("closed")];
    open(&breaker).await;
    breaker.actor().send(Panic).await.expect("the actor lives");
    {
        let told = told.lock().expect("a lock");
        let [.., Happening::Panicked, Happening::Circuit(change)] = &told[..] else { panic!("{told:?}") };
        assert_eq!(change.transition.to, CircuitState::Closed);
    }
    old.into_iter().for_each(CircuitPermit::failure);
    let snapshot = breaker.actor().send(Snapshot).await.expect("alive");
    assert_eq!(snapshot.panics, 1);
    assert_eq!((snapshot.targets[0].view.state, snapshot.targets[0].view.failures), (CircuitState::Closed, 0));
}

#[actix::test]
async fn reset_and_configure_reach_the_circuits() {
    let (breaker, _) = start(settings(Duration::from_secs(60)));
    open(&breaker).await;
    breaker.actor().send(Reset { target: None }).await.expect("alive");
    assert_eq!(state(&breaker).await, CircuitState::Closed);
    open(&breaker).await;
    breaker.actor().send(Configure { settings: None, targets: vec![(TARGET, "x".into())] }).await.expect("alive");
    assert!(breaker.permit(TARGET).await.is_ok(), "off");
    let snapshot = breaker.actor().send(Snapshot).await.expect("alive");
    assert!(snapshot.settings.is_none() && snapshot.targets.is_empty());
}

#[actix::test]
async fn without_the_actor_every_dial_is_permitted() {
    let arbiter = actix::Arbiter::new();
    let breaker = Breaker::new(UpstreamBreaker::start_in_arbiter(&arbiter.handle(), |_| {
        UpstreamBreaker::new(settings(Duration::ZERO), vec![(TARGET, "x".into())], Arc::new(|_| ()))
    }));
    assert!(breaker.permit(TARGET).await.is_ok());
    arbiter.stop();
    arbiter.join().expect("an end");
    breaker.permit(TARGET).await.expect("permitted").failure();
}

#[test]
fn what_happens_is_counted() {
    use crate::upstream::circuit::Transition;
    let telemetry = Telemetry::silent();
    let tell = telling(telemetry.clone());
    let transition = Transition { from: CircuitState::Closed, to: CircuitState::Open, failures: 5 };
    tell(Happening::Circuit(Change { target: TARGET, label: "rtmp://h:1935/live".into(), transition }));
    tell(Happening::Panicked);
    let all = telemetry.metrics().registry().gather();
    let value = |name: &str, label: &str| {
        let family = all.iter().find(|family| family.name() == name).expect(name);
        let with = |metric: &&prometheus::proto::Metric| metric.get_label().iter().any(|pair| pair.value() == label);
        let metric = family.get_metric().iter().find(with).expect(label);
        metric.get_gauge().get_value() + metric.get_counter().get_value()
    };
    assert_eq!(value("rtmp_relay_circuit_state", "rtmp://h:1935/live"), 2.0);
    assert_eq!(value("rtmp_relay_panics_total", "breaker"), 1.0);
}

/// A breaker that says in advance what it can.
fn start_open_handed(settings: Option<CircuitBreaker>) -> Breaker {
    let passages = Passages::default();
    let breaker = UpstreamBreaker::new(settings, vec![(TARGET, "x".into())], Arc::new(|_| ())).with(passages.clone());
    Breaker::new(breaker.start()).with(passages)
}

/// The answer, where none had to be waited for.
fn at_once(breaker: &Breaker) -> Option<CircuitPermit> {
    futures_util::FutureExt::now_or_never(breaker.permit(TARGET)).and_then(Result::ok)
}

#[actix::test]
async fn while_all_is_well_nobody_asks_and_nobody_tells() {
    let breaker = start_open_handed(settings(Duration::from_secs(60)));
    let permits: Vec<_> = (0..3000).map(|_| at_once(&breaker).expect("nothing to ask")).collect();
    permits.into_iter().for_each(CircuitPermit::success);
    at_once(&breaker).expect("nothing to ask").success();
    let off = start_open_handed(None);
    at_once(&off).expect("nothing to ask").failure();
    at_once(&off).expect("no failure counts").failure();
}

#[actix::test]
async fn behind_a_failure_the_breaker_is_asked_until_it_has_judged_it() {
    let breaker = start_open_handed(settings(Duration::from_secs(60)));
    let (first, second, third) = (at_once(&breaker), at_once(&breaker), at_once(&breaker));
    first.expect("closed").failure();
    assert!(at_once(&breaker).is_none(), "the failure is under way");
    assert_eq!(state(&breaker).await, CircuitState::Closed);
    // One failure and a success are none in a row.
    second.expect("closed").success();
    third.expect("closed").failure();
    assert_eq!(state(&breaker).await, CircuitState::Closed);
    at_once(&breaker).expect("closed, and judged").failure();
    let refused = breaker.permit(TARGET).await.expect_err("two in a row");
    assert_eq!(refused.why, Why::Open);
    assert!(at_once(&breaker).is_none(), "an open circuit is always asked");
}

#[actix::test]
async fn a_circuit_that_was_reset_passes_again_without_a_question() {
    let breaker = start_open_handed(settings(Duration::from_secs(60)));
    open(&breaker).await;
    assert!(at_once(&breaker).is_none());
    breaker.actor().send(Reset { target: None }).await.expect("alive");
    at_once(&breaker).expect("closed").failure();
    breaker.actor().send(Panic).await.expect("it survives");
    at_once(&breaker).expect("closed behind a panic too").success();
}
