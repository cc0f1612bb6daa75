//! Tests of one client's search, over loopback sockets.

use std::net::SocketAddr;

use actix::Actor;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

use super::*;
use crate::config::CircuitBreaker;
use crate::telemetry::Telemetry;
use crate::upstream::breaker::{Snapshot, UpstreamBreaker};
use crate::upstream::circuit::CircuitState;
use crate::upstream::dial::DialSettings;
use crate::upstream::target::TargetId;
use crate::upstream::vital::Rules;

const QUICK: Retry = Retry {
    max_attempts: 3,
    initial_delay: Duration::from_millis(5),
    max_delay: Duration::from_millis(20),
    multiplier: 2.0,
    jitter_fraction: 0.1,
    total_timeout: Duration::from_secs(5),
};
const BREAKER: CircuitBreaker = CircuitBreaker { max_failures: 5, reset_timeout: Duration::from_secs(60), success_threshold: 1 };

async fn origin() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let addr = listener.local_addr().expect("its address");
    (listener, addr)
}

/// An address where nobody listens until its socket is told to.
fn deaf() -> (SocketAddr, Socket) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bound");
    (socket.local_addr().expect("an address").as_socket().expect("of TCP"), socket)
}

struct World {
    means: Means,
    targets: Vec<Arc<Target>>,
}

fn world(addrs: &[SocketAddr], retry: Option<Retry>, breaker: CircuitBreaker, allow: bool) -> World {
    bounded_world(addrs, retry, breaker, allow, None)
}

/// A world in which each target may have `most` sessions.
fn bounded_world(addrs: &[SocketAddr], retry: Option<Retry>, breaker: CircuitBreaker, allow: bool, most: Option<u32>) -> World {
    let target = |(at, addr): (usize, &SocketAddr)| {
        let target = Target::parse(TargetId(u32::try_from(at).expect("few")), &format!("rtmp://{addr}/live"));
        Arc::new(target.expect("a URL"))
    };
    let targets: Vec<Arc<Target>> = addrs.iter().enumerate().map(target).collect();
    let allowed = if allow { vec!["127.0.0.0/8".parse().expect("a network")] } else { Vec::new() };
    let dialer = Dialer::new(DialSettings { allowed, ..DialSettings::default() });
    let labels = targets.iter().map(|target| (target.id, target.label.clone())).collect();
    let breaker = Breaker::new(UpstreamBreaker::new(Some(breaker), labels, Arc::new(|_| ())).start());
    let health = Health::new(&targets, Rules { rise: 1, fall: 1 }, Telemetry::silent(), None);
    let loads = Loads::new(targets.iter().map(|target| (target.id, "x", most)), Telemetry::silent(), None);
    World { means: Means { dialer, breaker, health, loads, retry }, targets }
}

impl World {
    fn seek(&self) -> Seek {
        Seek::new(self.means.clone(), self.targets.clone())
    }

    /// The health of the first target, and the kind of its last trouble.
    fn state(&self) -> (&'static str, Option<&'static str>) {
        let view = &self.means.health.views()[0];
        (view.state, view.last_error.as_ref().map(|(trouble, _)| trouble.kind))
    }

    async fn circuit(&self) -> (CircuitState, u32) {
        let view = self.means.breaker.actor().send(Snapshot).await.expect("alive").targets[0].view;
        (view.state, view.failures)
    }
}

/// A short word for each step.
fn word(step: &Step<'_>) -> String {
    match step {
        Step::Dialing { target, attempt } => format!("dial {} #{attempt}", target.id.0),
        Step::Failed { target, error, attempt } => format!("failed {} #{attempt} {}", target.id.0, error.kind()),
        Step::NotNow(_) => "open".into(),
        Step::Waiting(_) => "wait".into(),
    }
}

#[actix::test]
async fn a_reachable_upstream_is_reached_at_once() {
    let (_listener, addr) = origin().await;
    let world = world(&[addr], Some(QUICK), BREAKER, true);
    let mut steps = Vec::new();
    let link = world.seek().next(|step| steps.push(word(&step))).await.expect("a link");
    assert_eq!((link.connected.addr, link.target.id), (addr, TargetId(0)));
    let left = link.deadline.saturating_duration_since(Instant::now());
    assert!(left > Duration::from_secs(1) && left < QUICK.total_timeout, "the handshake has what the dial left of its time");
    assert_eq!(steps, ["dial 0 #1"]);
    assert_eq!(world.state(), ("healthy", None), "a real dial counts");
    link.permit.success();
}

#[actix::test]
async fn an_unreachable_upstream_is_tried_as_often_as_the_setting_says() {
    let (deaf, _held) = deaf();
    let world = world(&[deaf], Some(QUICK), BREAKER, true);
    let mut steps = Vec::new();
    let mut seek = world.seek();
    let error = seek.next(|step| steps.push(word(&step))).await.expect_err("deaf");
    let failed = |n| [format!("dial 0 #{n}"), format!("failed 0 #{n} connect_refused")];
    let want = [&failed(1)[..], &["wait".to_owned()], &failed(2), &["wait".to_owned()], &failed(3)].concat();
    assert_eq!(steps, want);
    assert_eq!((error.kind(), seek.made()), ("connect_refused", 3));
    assert!(error.to_string().starts_with("the upstream could not be reached in 3 attempts: 127.0.0.1:"), "{error}");
    assert_eq!(world.circuit().await, (CircuitState::Closed, 3));
    assert_eq!(world.state(), ("unhealthy", Some("connect_refused")));
}

#[actix::test]
async fn with_retry_off_there_is_one_dial() {
    let (deaf, _held) = deaf();
    let world = world(&[deaf], None, BREAKER, true);
    let mut seek = world.seek();
    assert_eq!(seek.remaining(), None);
    assert!(seek.next(|_| ()).await.is_err());
    assert_eq!(seek.made(), 1);
}

#[actix::test]
async fn with_retry_off_a_client_waits_its_turn_after_an_outage() {
    let (_listener, addr) = origin().await;
    let breaker = CircuitBreaker { max_failures: 1, reset_timeout: Duration::ZERO, success_threshold: 1 };
    let world = world(&[addr], None, breaker, true);
    world.means.breaker.permit(TargetId(0)).await.expect("closed").failure();
    world.means.breaker.permit(TargetId(0)).await.expect("the probe").success();
    let searches = (0..20).map(|_| async { world.seek().next(|_| ()).await.map(|link| link.permit.success()) });
    let ends = futures_util::future::join_all(searches).await;
    assert!(ends.iter().all(Result::is_ok), "{ends:?}");
}

#[actix::test]
async fn a_circuit_that_stays_open_for_too_long_refuses_at_once_without_a_dial() {
    let (deaf, _held) = deaf();
    let world = world(&[deaf], Some(QUICK), CircuitBreaker { max_failures: 1, ..BREAKER }, true);
    assert_eq!(world.seek().next(|_| ()).await.expect_err("deaf").kind(), "connect_refused");
    let mut steps = Vec::new();
    let mut seek = world.seek();
    let error = seek.next(|step| steps.push(word(&step))).await.expect_err("open");
    assert_eq!((steps, error.kind(), seek.made()), (vec!["open".to_owned()], "circuit_open", 0));
}

#[actix::test]
async fn a_client_waits_for_half_open_and_its_dial_is_the_probe() {
    let (addr, socket) = deaf();
    let breaker = CircuitBreaker { max_failures: 1, reset_timeout: Duration::from_millis(30), success_threshold: 1 };
    let world = world(&[addr], Some(Retry { max_attempts: 1, ..QUICK }), breaker, true);
    assert!(world.seek().next(|_| ()).await.is_err());
    assert_eq!(world.circuit().await.0, CircuitState::Open);
    socket.listen(8).expect("the origin is back");
    let mut steps = Vec::new();
    let link = world.seek().next(|step| steps.push(word(&step))).await.expect("a link");
    assert_eq!(steps, ["open", "wait", "dial 0 #1"]);
    assert_eq!(world.circuit().await.0, CircuitState::HalfOpen);
    link.permit.success();
    assert_eq!(world.circuit().await.0, CircuitState::Closed);
}

#[actix::test]
async fn a_failed_handshake_is_followed_by_another_dial_within_the_same_bounds() {
    let (_listener, addr) = origin().await;
    let world = world(&[addr], Some(QUICK), BREAKER, true);
    let mut seek = world.seek();
    for attempt in 1..=3 {
        let link = seek.next(|_| ()).await.expect("a link");
        assert_eq!(seek.made(), attempt);
        link.permit.failure("handshake", "it stopped in the middle");
        seek.failed();
        assert_eq!(world.state(), ("unhealthy", Some("handshake")), "that it can be connected to is not enough");
    }
    assert!(matches!(seek.next(|_| ()).await, Err(SeekError::GaveUp { why: GiveUp::Attempts { made: 3 }, last: None })));
    assert_eq!(world.circuit().await, (CircuitState::Closed, 3));
}

#[actix::test]
async fn what_policy_refuses_is_neither_tried_again_nor_held_against_the_upstream() {
    let (deaf, _held) = deaf();
    let world = world(&[deaf], Some(QUICK), BREAKER, false);
    let mut seek = world.seek();
    let error = seek.next(|_| ()).await.expect_err("loopback");
    assert!(matches!(error, SeekError::Refused(DialError::Guard(_))), "{error}");
    assert_eq!((seek.made(), world.circuit().await), (1, (CircuitState::Closed, 0)));
    assert_eq!(world.state(), ("unhealthy", Some("guard")));
}

#[actix::test]
async fn the_next_candidate_is_tried_without_a_wait() {
    let (_listener, addr) = origin().await;
    let (deaf, _held) = deaf();
    let world = world(&[deaf, addr], Some(QUICK), BREAKER, true);
    let mut steps = Vec::new();
    let link = world.seek().next(|step| steps.push(word(&step))).await.expect("the second");
    assert_eq!(steps, ["dial 0 #1", "failed 0 #1 connect_refused", "dial 1 #2"]);
    assert_eq!(link.target.id, TargetId(1));
    link.permit.success();
}

#[actix::test]
async fn a_candidate_whose_circuit_is_open_is_passed_over() {
    let (_listener, addr) = origin().await;
    let (deaf, _held) = deaf();
    let world = world(&[deaf, addr], Some(QUICK), CircuitBreaker { max_failures: 1, ..BREAKER }, true);
    for want in [&["dial 0 #1", "failed 0 #1 connect_refused", "dial 1 #2"][..], &["dial 1 #1"]] {
        let mut steps = Vec::new();
        let link = world.seek().next(|step| steps.push(word(&step))).await.expect("the second");
        assert_eq!(steps, want);
        link.permit.success();
    }
}

#[actix::test]
async fn only_a_whole_round_of_failures_is_waited_after() {
    let ((one, _one), (two, _two), (three, _three)) = (deaf(), deaf(), deaf());
    let world = world(&[one, two, three], Some(Retry { max_attempts: 5, ..QUICK }), BREAKER, true);
    let mut steps = Vec::new();
    assert!(world.seek().next(|step| steps.push(word(&step))).await.is_err());
    let steps: Vec<_> = steps.iter().filter(|step| !step.starts_with("failed")).map(String::as_str).collect();
    assert_eq!(steps, ["dial 0 #1", "dial 1 #2", "dial 2 #3", "wait", "dial 0 #4", "dial 1 #5"]);
}

#[actix::test]
async fn every_candidate_is_tried_once_however_few_attempts_there_are() {
    let (_listener, addr) = origin().await;
    let ((one, _one), (two, _two)) = (deaf(), deaf());
    for retry in [None, Some(Retry { max_attempts: 1, ..QUICK })] {
        let world = world(&[one, two, addr], retry, BREAKER, true);
        let link = world.seek().next(|_| ()).await.expect("the third");
        assert_eq!(link.target.id, TargetId(2));
        link.permit.success();
    }
}

#[actix::test]
async fn one_that_failed_is_not_dialled_again_at_once_because_the_other_s_circuit_is_open() {
    let ((one, _one), (two, _two)) = (deaf(), deaf());
    let world = world(&[one, two], Some(QUICK), CircuitBreaker { max_failures: 4, ..BREAKER }, true);
    for _ in 0..4 {
        world.means.breaker.permit(TargetId(1)).await.expect("closed").failure();
    }
    let mut steps = Vec::new();
    assert!(world.seek().next(|step| steps.push(word(&step))).await.is_err());
    let steps: Vec<_> = steps.iter().filter(|step| !step.starts_with("failed")).map(String::as_str).collect();
    let want = ["dial 0 #1", "open", "wait", "dial 0 #2", "open", "wait", "dial 0 #3"];
    assert_eq!(steps, want);
}

#[actix::test]
async fn a_full_target_is_passed_over_and_nothing_but_full_ones_is_said_at_once() {
    let ((_one, first), (_two, second)) = (origin().await, origin().await);
    let world = bounded_world(&[first, second], Some(QUICK), BREAKER, true, Some(1));
    let held = world.seek().next(|_| ()).await.expect("the first");
    let other = world.seek().next(|_| ()).await.expect("the second");
    assert_eq!((held.target.id, other.target.id), (TargetId(0), TargetId(1)));
    let error = world.seek().next(|_| ()).await.expect_err("full");
    assert_eq!(error.kind(), "upstream_full");
    drop(held);
    assert_eq!(world.seek().next(|_| ()).await.expect("free again").target.id, TargetId(0));
}

#[actix::test]
async fn a_client_that_leaves_ends_its_search_and_frees_the_probe() {
    use futures_util::FutureExt;
    let breaker = CircuitBreaker { max_failures: 1, reset_timeout: Duration::ZERO, success_threshold: 1 };
    let (_listener, addr) = origin().await;
    let world = world(&[addr], Some(QUICK), breaker, true);
    world.means.breaker.permit(TargetId(0)).await.expect("closed").failure();
    let mut seek = world.seek();
    let mut search = Box::pin(seek.next(|_| ()));
    while world.circuit().await.0 != CircuitState::HalfOpen {
        assert!((&mut search).now_or_never().is_none());
    }
    drop(search);
    assert!(world.means.breaker.permit(TargetId(0)).await.is_ok(), "the probe is free");
}

#[actix::test]
async fn a_total_timeout_shorter_than_the_dial_s_still_counts_a_silent_upstream() {
    // A resolver that does not answer stands for any silence.
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let resolver = crate::upstream::resolve::Resolver::forgetful(Arc::new(move |_, _| {
        gate.lock().expect("a lock").recv().ok();
        Ok(Vec::new())
    }));
    let short = Retry { total_timeout: Duration::from_millis(40), ..QUICK };
    let (deaf, _held) = deaf();
    let mut world = world(&[deaf], Some(short), BREAKER, true);
    world.means.dialer = Dialer::with(DialSettings::default(), resolver);
    world.targets = vec![Arc::new(Target::parse(TargetId(0), "rtmp://silent.example/live").expect("a URL"))];
    let began = Instant::now();
    let error = world.seek().next(|_| ()).await.expect_err("silence");
    assert_eq!(error.kind(), "connect_timeout");
    assert!(began.elapsed() < Duration::from_secs(4), "the total bound ended it, not the dial's");
    assert_eq!(world.circuit().await.1, 1);
    drop(release);
}
