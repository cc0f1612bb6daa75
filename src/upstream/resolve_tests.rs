//! Tests of look-ups, with resolvers of their own.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};

use futures_util::future::join_all;
use tokio::time::timeout;

use super::*;

const ALWAYS: Dns = Dns { cache_ttl: Duration::ZERO, stale_ttl: Duration::ZERO };
const LONG: Dns = Dns { cache_ttl: Duration::from_secs(600), stale_ttl: Duration::from_secs(600) };
/// What is old at once, and usable for long.
const OLD: Dns = Dns { cache_ttl: Duration::ZERO, stale_ttl: Duration::from_secs(600) };

fn name(text: &str) -> Host {
    Host::Name(text.into())
}

fn addr(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([8, 8, 4, last], port))
}

/// A resolver that counts its look-ups; each waits for `gate`, if there is one, and answers what `say` says.
fn counted(
    lifetimes: Dns,
    gate: Option<Receiver<()>>,
    say: impl Fn(usize) -> io::Result<u8> + Send + Sync + 'static,
) -> (Resolver, Arc<AtomicUsize>) {
    let (asked, gate) = (Arc::new(AtomicUsize::new(0)), gate.map(Mutex::new));
    let count = asked.clone();
    let lookup: Lookup = Arc::new(move |_, port| {
        let number = count.fetch_add(1, SeqCst);
        if let Some(gate) = &gate {
            gate.lock().expect("the gate").recv().ok();
        }
        say(number).map(|last| vec![addr(last, port)])
    });
    (Resolver::with(lookup, lifetimes), asked)
}

fn gate() -> (Sender<()>, Option<Receiver<()>>) {
    let (open, gate) = channel();
    (open, Some(gate))
}

#[tokio::test]
async fn a_literal_asks_nobody() {
    let resolver = Resolver::with(Arc::new(|_, _| Err(io::Error::other("asked"))), ALWAYS);
    let ip = "2001:db8::1".parse().expect("an address");
    assert_eq!(resolver.resolve(&Host::Literal(ip), 1935).await.expect("an answer"), [SocketAddr::new(ip, 1935)]);
}

#[tokio::test]
async fn answers_keep_their_order_without_repetition_and_within_the_bound() {
    let lookup: Lookup = Arc::new(|_, port| {
        let mut all: Vec<SocketAddr> = vec![SocketAddr::new("::ffff:8.8.8.8".parse().expect("ip"), port)];
        all.push(SocketAddr::new("8.8.8.8".parse().expect("ip"), port));
        all.extend((0..40).map(|n| addr(n, port)));
        Ok(all)
    });
    let got = Resolver::with(lookup, ALWAYS).resolve(&name("many.example"), 7).await.expect("an answer");
    assert_eq!(got.len(), MAX_ADDRESSES);
    assert_eq!(got[0], "8.8.8.8:7".parse().expect("an address"));
    assert_eq!(got[1], addr(0, 7));
}

#[tokio::test]
async fn an_empty_answer_and_a_panicking_resolver_are_errors() {
    let empty = Resolver::with(Arc::new(|_, _| Ok(Vec::new())), ALWAYS);
    assert_eq!(empty.resolve(&name("x"), 1).await.expect_err("empty").kind(), io::ErrorKind::NotFound);
    let broken = Resolver::with(Arc::new(|_, _| panic!("a broken plug-in")), ALWAYS);
    assert!(broken.resolve(&name("x"), 1).await.is_err());
    assert_eq!(broken.slots.available_permits(), MAX_LOOKUPS);
    assert!(broken.memory().flights.is_empty());
}

#[tokio::test]
async fn all_who_ask_at_the_same_time_share_one_look_up_and_later_ones_its_answer() {
    let (open, gate) = gate();
    let (resolver, asked) = counted(LONG, gate, |_| Ok(1));
    let host = name("busy.example");
    let (answers, ()) = tokio::join!(join_all((0..500).map(|_| resolver.resolve(&host, 1))), async { drop(open) });
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|got| *got == [addr(1, 1)])));
    assert_eq!(resolver.resolve(&host, 1).await.expect("remembered"), [addr(1, 1)]);
    assert_eq!(asked.load(SeqCst), 1);
    resolver.resolve(&name("other.example"), 1).await.expect("an answer");
    assert_eq!(asked.load(SeqCst), 2);
}

#[tokio::test]
async fn a_look_up_goes_on_for_the_others_when_the_first_who_asked_leaves() {
    let (open, gate) = gate();
    let (resolver, asked) = counted(LONG, gate, |_| Ok(1));
    let host = name("slow.example");
    assert!(timeout(Duration::ZERO, resolver.resolve(&host, 1)).await.is_err());
    drop(open);
    assert!(resolver.resolve(&host, 1).await.is_ok());
    assert_eq!(asked.load(SeqCst), 1);
}

#[tokio::test]
async fn while_dns_is_down_the_old_answer_is_taken() {
    for fails in [true, false] {
        let (open, gate) = gate();
        // The first look-up is answered; further ones fail, or never end.
        open.send(()).expect("the gate is there");
        if fails {
            (0..10).for_each(|_| open.send(()).expect("the gate is there"));
        }
        let (resolver, _) = counted(OLD, gate, |number| if number == 0 { Ok(1) } else { Err(io::Error::other("down")) });
        let host = name("origin.example");
        for _ in 0..3 {
            assert_eq!(resolver.resolve(&host, 1).await.expect("an answer"), [addr(1, 1)], "fails: {fails}");
        }
        drop(open);
    }
}

#[tokio::test]
async fn an_answer_that_led_nowhere_is_asked_again() {
    let (resolver, asked) = counted(LONG, None, |number| Ok(number as u8));
    let host = name("moved.example");
    assert_eq!(resolver.resolve(&host, 1).await.expect("an answer"), [addr(0, 1)]);
    resolver.doubt(&host, 1);
    resolver.resolve(&host, 1).await.expect("an answer");
    assert_eq!(asked.load(SeqCst), 1, "it is not a second old");
    // What the clock would do.
    let earlier = Instant::now().checked_sub(Duration::from_secs(2)).expect("the machine runs for longer");
    resolver.memory().answers.learn(("moved.example".into(), 1), earlier, Ok(vec![addr(0, 1)].into()));
    resolver.doubt(&host, 1);
    assert_eq!(resolver.resolve(&host, 1).await.expect("an answer"), [addr(1, 1)]);
}

#[tokio::test]
async fn a_dead_resolver_never_holds_more_threads_than_the_bound() {
    let (open, gate) = gate();
    let (resolver, asked) = counted(ALWAYS, gate, |_| Ok(8));
    // Each of these is cancelled while getaddrinfo "runs".
    for number in 0..MAX_LOOKUPS + 20 {
        assert!(timeout(Duration::ZERO, resolver.resolve(&name(&format!("{number}.example")), 1)).await.is_err());
    }
    while asked.load(SeqCst) < MAX_LOOKUPS {
        tokio::task::yield_now().await;
    }
    assert_eq!(resolver.slots.available_permits(), 0);
    assert_eq!(asked.load(SeqCst), MAX_LOOKUPS);
    drop(open);
    assert!(resolver.resolve(&name("again.example"), 1).await.is_ok(), "the slots come back");
}
