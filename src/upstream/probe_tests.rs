//! Tests of reachability.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use futures_util::future::join_all;
use tokio::net::TcpListener;

use super::*;
use crate::telemetry::Telemetry;
use crate::upstream::TargetId;
use crate::upstream::dial::DialSettings;
use crate::upstream::resolve::Resolver;
use crate::upstream::vital::Rules;

const FAIL_AFTER: Duration = Duration::from_secs(20);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn vitals(targets: usize, now: Instant) -> Vec<Vital> {
    vec![Vital::new(now); targets]
}

fn probes(targets: usize) -> Probes {
    Probes { probed: vec![None; targets], probing: false }
}

fn failed(kind: &'static str) -> Result<Depth, Trouble> {
    Err(Trouble::new(kind, "it failed"))
}

const REACHED: Result<Depth, Trouble> = Ok(Depth::Connection);

#[test]
fn an_upstream_that_was_reached_has_the_grace_and_one_that_never_was_has_none() {
    let start = Instant::now();
    let mut known = Vital::new(start);
    let verdict = |known: &Vital, now: Instant| verdict(known, now, FAIL_AFTER);
    assert_eq!(verdict(&known, start), Verdict::Unknown);
    known.dialled(start, failed("dns"));
    assert_eq!(verdict(&known, start), Verdict::Unreachable { since: secs(0), kind: "dns" });
    known.dialled(start, REACHED);
    assert_eq!(verdict(&known, start + secs(3600)), Verdict::Reachable, "silence is no failure");
    let lost = start + secs(3600);
    known.dialled(lost, failed("connect_refused"));
    known.dialled(lost + secs(19), failed("connect_timeout"));
    assert_eq!(verdict(&known, lost + secs(19)), Verdict::Reachable);
    let want = Verdict::Unreachable { since: secs(20), kind: "connect_timeout" };
    assert_eq!(verdict(&known, lost + secs(20)), want, "counted from the first failure");
    known.dialled(lost + secs(21), REACHED);
    assert_eq!(verdict(&known, lost + secs(21)), Verdict::Reachable);
}

#[test]
fn a_probe_is_due_once_in_five_seconds_and_not_after_a_real_success() {
    let start = Instant::now();
    let (mut probes_of_one, mut all) = (probes(1), vitals(1, start));
    assert_eq!(probes_of_one.begin(&all, start), Some(0));
    assert_eq!(probes_of_one.begin(&all, start), None, "one at a time");
    probes_of_one.probing = false;
    all[0].dialled(start, failed("dns"));
    assert_eq!(probes_of_one.begin(&all, start + secs(4)), None);
    assert_eq!(probes_of_one.begin(&all, start + secs(5)), Some(0));
    probes_of_one.probing = false;
    all[0].dialled(start + secs(9), REACHED);
    assert_eq!(probes_of_one.begin(&all, start + secs(13)), None, "a session reached it");
    assert_eq!(probes_of_one.begin(&all, start + secs(14)), Some(0));
    assert_eq!(probes(0).begin(&[], start), None);
}

#[test]
fn one_reachable_upstream_of_several_is_enough_and_probes_take_turns() {
    let start = Instant::now();
    let (mut probes, mut all) = (probes(2), vitals(2, start));
    let mut turns = Vec::new();
    for round in 0..4 {
        turns.extend(probes.begin(&all, start + secs(5 * round)));
        probes.probing = false;
    }
    assert_eq!(turns, [0, 1, 0, 1]);
    all[0].dialled(start, failed("dns"));
    assert_eq!(sum(&all, start, FAIL_AFTER), Verdict::Unknown);
    all[1].dialled(start, REACHED);
    assert_eq!(sum(&all, start + secs(99), FAIL_AFTER), Verdict::Reachable);
    all[1].dialled(start + secs(100), failed("connect_refused"));
    let want = Verdict::Unreachable { since: secs(30), kind: "connect_refused" };
    assert_eq!(sum(&all, start + secs(130), FAIL_AFTER), want, "since the last of them was lost");
}

fn of(dialer: Dialer, url: &str, probes: bool) -> Reachability {
    let targets = vec![Arc::new(Target::parse(TargetId(0), url).expect("a URL"))];
    let health = Health::new(&targets, Rules { rise: 1, fall: 1 }, Telemetry::silent(), None);
    Reachability::new(dialer, health, targets, FAIL_AFTER, probes)
}

fn shared(addr: SocketAddr, lookups: Arc<AtomicUsize>) -> Reachability {
    let resolver = Resolver::forgetful(Arc::new(move |_, _| {
        lookups.fetch_add(1, SeqCst);
        Ok::<_, io::Error>(vec![addr])
    }));
    let allowed = vec!["127.0.0.0/8".parse().expect("a network")];
    let dialer = Dialer::with(DialSettings { allowed, ..DialSettings::default() }, resolver);
    of(dialer, "rtmp://origin.example/live", true)
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
    let resolver = Resolver::forgetful(Arc::new(move |_, _| {
        gate.lock().expect("a lock").recv().ok();
        Ok(Vec::new())
    }));
    let dialer = Dialer::with(DialSettings::default(), resolver);
    let reachability = of(dialer, "rtmp://silent.example", true);
    let began = Instant::now();
    assert_eq!(reachability.check().await, Verdict::Unknown);
    assert!(began.elapsed() < secs(4), "the dial's own time was not waited for");
    drop(release);
}

#[actix::test]
async fn where_checks_find_out_nobody_probes() {
    let lookups = Arc::new(AtomicUsize::new(0));
    let counted = lookups.clone();
    let resolver = Resolver::forgetful(Arc::new(move |_, _| {
        counted.fetch_add(1, SeqCst);
        Ok::<_, io::Error>(Vec::new())
    }));
    let reachability = of(Dialer::with(DialSettings::default(), resolver), "rtmp://origin.example", false);
    assert_eq!((reachability.check().await, lookups.load(SeqCst)), (Verdict::Unknown, 0));
    reachability.shared.health.checked(TargetId(0), Ok(Depth::Speech));
    assert_eq!(reachability.check().await, Verdict::Reachable);
}
