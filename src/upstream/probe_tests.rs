//! Tests of reachability.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use futures_util::future::join_all;
use tokio::net::TcpListener;

use super::*;
use crate::upstream::dial::DialSettings;
use crate::upstream::resolve::Resolver;

const FAIL_AFTER: Duration = Duration::from_secs(20);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn knowledge(targets: usize) -> Knowledge {
    Knowledge { targets: vec![Known::default(); targets], probing: false }
}

#[test]
fn an_upstream_that_was_reached_has_the_grace_and_one_that_never_was_has_none() {
    let start = Instant::now();
    let mut known = Known::default();
    assert_eq!(known.verdict(start, FAIL_AFTER), Verdict::Unknown);
    known.learn(start, Err("dns"));
    assert_eq!(known.verdict(start, FAIL_AFTER), Verdict::Unreachable { since: secs(0), kind: "dns" });
    known.learn(start, Ok(()));
    assert_eq!(known.verdict(start + secs(3600), FAIL_AFTER), Verdict::Reachable, "silence is no failure");
    let failed = start + secs(3600);
    known.learn(failed, Err("connect_refused"));
    known.learn(failed + secs(19), Err("connect_timeout"));
    assert_eq!(known.verdict(failed + secs(19), FAIL_AFTER), Verdict::Reachable);
    let want = Verdict::Unreachable { since: secs(20), kind: "connect_timeout" };
    assert_eq!(known.verdict(failed + secs(20), FAIL_AFTER), want, "counted from the first failure");
    known.learn(failed + secs(21), Ok(()));
    assert_eq!(known.verdict(failed + secs(21), FAIL_AFTER), Verdict::Reachable);
}

#[test]
fn a_probe_is_due_once_in_five_seconds_and_not_after_a_real_success() {
    let start = Instant::now();
    let mut all = knowledge(1);
    assert_eq!(all.begin_probe(start), Some(0));
    assert_eq!(all.begin_probe(start), None, "one at a time");
    all.probing = false;
    all.targets[0].learn(start, Err("dns"));
    assert_eq!(all.begin_probe(start + secs(4)), None);
    assert_eq!(all.begin_probe(start + secs(5)), Some(0));
    all.probing = false;
    all.targets[0].learn(start + secs(9), Ok(()));
    assert_eq!(all.begin_probe(start + secs(13)), None, "a session reached it");
    assert_eq!(all.begin_probe(start + secs(14)), Some(0));
    assert_eq!(knowledge(0).begin_probe(start), None);
}

#[test]
fn one_reachable_upstream_of_several_is_enough_and_probes_take_turns() {
    let start = Instant::now();
    let mut all = knowledge(2);
    let mut turns = Vec::new();
    for round in 0..4 {
        turns.extend(all.begin_probe(start + secs(5 * round)));
        all.probing = false;
    }
    assert_eq!(turns, [0, 1, 0, 1]);
    all.targets[0].learn(start, Err("dns"));
    assert_eq!(all.verdict(start, FAIL_AFTER), Verdict::Unknown);
    all.targets[1].learn(start, Ok(()));
    assert_eq!(all.verdict(start + secs(99), FAIL_AFTER), Verdict::Reachable);
    all.targets[1].learn(start + secs(100), Err("connect_refused"));
    let want = Verdict::Unreachable { since: secs(30), kind: "connect_refused" };
    assert_eq!(all.verdict(start + secs(130), FAIL_AFTER), want, "since the last of them was lost");
}

fn shared(addr: SocketAddr, lookups: Arc<AtomicUsize>) -> Reachability {
    let resolver = Resolver::with(Arc::new(move |_, _| {
        lookups.fetch_add(1, SeqCst);
        Ok::<_, io::Error>(vec![addr])
    }));
    let allowed = vec!["127.0.0.0/8".parse().expect("a network")];
    let dialer = Dialer::with(DialSettings { allowed, ..DialSettings::default() }, resolver);
    let target = Target::parse(TargetId(0), "rtmp://origin.example/live").expect("a URL");
    Reachability::new(dialer, vec![Arc::new(target)], FAIL_AFTER)
}

#[actix::test]
async fn many_questions_at_once_share_one_guarded_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let lookups = Arc::new(AtomicUsize::new(0));
    let reachability = shared(listener.local_addr().expect("an address"), lookups.clone());
    assert_eq!(reachability.known(), Verdict::Unknown, "nobody was asked");
    let verdicts = join_all((0..50).map(|_| reachability.check())).await;
    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Reachable), "{verdicts:?}");
    reachability.check().await;
    assert_eq!(lookups.load(SeqCst), 1);
}

#[actix::test]
async fn an_upstream_that_is_down_from_the_start_is_unreachable_by_name() {
    // Bound, but not listening.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bound");
    let addr = socket.local_addr().expect("an address").as_socket().expect("of TCP");
    let verdict = shared(addr, Arc::default()).check().await;
    assert!(matches!(verdict, Verdict::Unreachable { kind: "connect_refused", .. }), "{verdict:?}");
}

#[actix::test]
async fn a_question_does_not_wait_for_a_probe_that_hangs() {
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let resolver = Resolver::with(Arc::new(move |_, _| {
        gate.lock().expect("a lock").recv().ok();
        Ok(Vec::new())
    }));
    let dialer = Dialer::with(DialSettings::default(), resolver);
    let target = Target::parse(TargetId(0), "rtmp://silent.example").expect("a URL");
    let reachability = Reachability::new(dialer, vec![Arc::new(target)], FAIL_AFTER);
    let began = Instant::now();
    assert_eq!(reachability.check().await, Verdict::Unknown);
    assert!(began.elapsed() < secs(4), "the dial's own time was not waited for");
    drop(release);
}
