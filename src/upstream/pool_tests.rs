//! Tests of spare connections, over loopback sockets and two runtimes.

use std::net::SocketAddr;

use actix::{Actor, Arbiter};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::config::CircuitBreaker;
use crate::protocol::rtmp::handshake;
use crate::upstream::breaker::UpstreamBreaker;
use crate::upstream::dial::DialSettings;
use crate::upstream::passage::Passages;
use crate::upstream::vital::Rules;

const ONE: Settings = Settings { min_idle: 1, max_idle: 4, max_idle_time: Duration::from_secs(60) };
const ID: TargetId = TargetId(0);
/// For everything that is said to happen.
const SOON: Duration = Duration::from_secs(15);

/// An origin that shakes hands and says `behind` with it; its side of each connection comes out of the channel.
async fn origin(behind: &'static [u8]) -> (SocketAddr, UnboundedReceiver<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let address = listener.local_addr().expect("an address");
    let (out, connections) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut theirs = vec![0; 1 + handshake::PACKET];
            stream.read_exact(&mut theirs).await.expect("C0 and C1");
            let mut ours = Vec::new();
            handshake::hello(&mut ours, &mut |bytes| bytes.fill(7));
            handshake::echo(&mut ours, &theirs[1..]);
            ours.extend_from_slice(behind);
            stream.write_all(&ours).await.expect("S0, S1 and S2");
            stream.read_exact(&mut theirs[1..]).await.expect("C2");
            if out.send(stream).is_err() {
                return;
            }
        }
    });
    (address, connections)
}

struct House {
    pool: Pool,
    breaker: Breaker,
    health: Health,
    arbiter: Arbiter,
    loads: Loads,
    drained: Drained,
    filling: Option<DropGuard>,
}

fn house(address: SocketAddr, settings: Settings) -> House {
    house_with(address, settings, None, "127.0.0.0/8")
}

/// `most`: sessions there may be. `allowed`: the network that may be dialled.
fn house_with(address: SocketAddr, settings: Settings, most: Option<u32>, allowed: &str) -> House {
    let target = Target::parse(ID, &format!("rtmp://{address}/live")).expect("a URL");
    let targets = vec![Arc::new(target)];
    let circuit = CircuitBreaker { max_failures: 1, reset_timeout: Duration::from_secs(60), success_threshold: 1 };
    let labels = vec![(ID, "x".to_owned())];
    let passages = Passages::default();
    let actor = UpstreamBreaker::new(Some(circuit), labels, Arc::new(|_| ())).with(passages.clone()).start();
    let breaker = Breaker::new(actor).with(passages);
    let telemetry = Telemetry::silent();
    let health = Health::new(&targets, Rules { rise: 1, fall: 1 }, telemetry.clone(), None);
    let allowed = vec![allowed.parse().expect("a network")];
    let dialer = Dialer::new(DialSettings { allowed, ..DialSettings::default() });
    let loads = Loads::new([(ID, "x", most)], telemetry.clone(), None);
    let (pool, arbiter) = (Pool::new([(&targets[0], Some(settings))], telemetry, None), Arbiter::new());
    let means = Means { dialer, breaker, health, loads, drained: Drained::default(), pool: pool.clone(), retry: None };
    let filling = Some(pool.fill(&targets, &means, &arbiter.handle()));
    let Means { breaker, health, loads, drained, .. } = means;
    House { pool, breaker, health, arbiter, loads, drained, filling }
}

impl House {
    fn view(&self) -> PoolView {
        self.pool.view(ID).expect("the pool is on")
    }

    async fn idle(&self, count: usize) {
        let deadline = Instant::now() + SOON;
        while self.view().idle != count {
            assert!(Instant::now() < deadline, "waited for {count} spares in vain: {:?}", self.view());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A spare, once there is one.
    async fn take(&self) -> Connected {
        self.idle(1).await;
        self.pool.take(ID).expect("a spare")
    }
}

#[actix::test]
async fn a_spare_is_past_its_handshake_and_works_on_the_thread_that_takes_it() {
    let (address, mut connections) = origin(b"hello").await;
    let house = house(address, ONE);
    let mut spare = house.take().await;
    assert_eq!((spare.addr, spare.took, spare.spare.as_deref()), (address, Duration::ZERO, Some(&b"hello"[..])));
    let mut theirs = connections.recv().await.expect("the other side");
    house.idle(1).await;
    // Whatever becomes of the thread that made it.
    house.arbiter.stop();
    theirs.write_all(b"ping").await.expect("written");
    let mut heard = [0; 4];
    spare.stream.read_exact(&mut heard).await.expect("read on this thread");
    spare.stream.write_all(b"pong").await.expect("written on this thread");
    theirs.read_exact(&mut heard).await.expect("read");
    assert_eq!(&heard, b"pong");
    let PoolView { hits, misses, stale, .. } = house.view();
    assert_eq!((hits, misses, stale), (1, 0, 0));
    assert_eq!(house.health.views()[0].state, "healthy");
}

#[actix::test]
async fn one_that_has_ended_or_has_something_to_say_is_discarded() {
    for says in [false, true] {
        let (address, mut connections) = origin(b"").await;
        let house = house(address, Settings { min_idle: 2, ..ONE });
        house.idle(2).await;
        let mut first = connections.recv().await.expect("the first");
        let second = connections.recv().await.expect("the second");
        if says {
            first.write_all(b"too late").await.expect("written");
        }
        let _kept = says.then_some(first);
        let taken = house.pool.take(ID).expect("the second");
        assert_eq!(taken.stream.tcp().local_addr().ok(), second.peer_addr().ok());
        let PoolView { hits, misses, stale, .. } = house.view();
        assert_eq!((hits, misses, stale), (1, 0, 1), "says: {says}");
    }
}

#[actix::test]
async fn nobody_dials_a_target_whose_circuit_is_open_or_that_is_not_well() {
    for opened in [true, false] {
        let (address, mut connections) = origin(b"").await;
        let house = house(address, ONE);
        drop(house.take().await);
        house.idle(1).await;
        let _kept = [connections.recv().await.expect("the first"), connections.recv().await.expect("the second")];
        if opened {
            house.breaker.permit(ID).await.expect("closed").failure();
        } else {
            house.health.dialled(ID, Err(Trouble::new("handshake", "it broke")));
        }
        drop(house.pool.take(ID).expect("the last"));
        assert!(house.pool.take(ID).is_none());
        // What is asked for again and again is not made either.
        for _ in 0..20 {
            house.pool.take(ID);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(house.view().idle == 0 && connections.try_recv().is_err(), "opened: {opened}");
        house.health.dialled(ID, Ok(Depth::Speech));
        if !opened {
            house.idle(4).await;
        }
    }
}

#[actix::test]
async fn a_failure_to_make_one_counts_like_a_dial() {
    let (address, connections) = origin(b"").await;
    let house = house(address, ONE);
    house.idle(1).await;
    // The origin's task ends with its next connection.
    drop(connections);
    drop(house.pool.take(ID));
    let deadline = Instant::now() + SOON;
    while house.health.views()[0].state != "unhealthy" {
        assert!(Instant::now() < deadline, "{:?}", house.health.views());
        house.pool.take(ID);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(house.breaker.permit(ID).await.is_err(), "one failure opens this circuit");
}

#[actix::test]
async fn those_that_end_while_nobody_wants_them_are_replaced() {
    let (address, mut connections) = origin(b"").await;
    let house = house(address, Settings { min_idle: 2, ..ONE });
    house.idle(2).await;
    drop([connections.recv().await, connections.recv().await]);
    let _next = [connections.recv().await.expect("another"), connections.recv().await.expect("another")];
    house.idle(2).await;
    let PoolView { hits, misses, stale, .. } = house.view();
    assert_eq!((hits, misses, stale), (0, 0, 2));
}

#[actix::test]
async fn an_old_one_is_closed_and_another_takes_its_place() {
    let (address, mut connections) = origin(b"").await;
    let house = house(address, Settings { max_idle_time: Duration::from_millis(50), ..ONE });
    let mut first = connections.recv().await.expect("the first");
    let _second = timeout(SOON, connections.recv()).await.expect("in time").expect("the second");
    assert_eq!(timeout(SOON, first.read(&mut [0; 8])).await.expect("in time").expect("an end"), 0);
    assert_eq!(house.view().stale, 0, "nobody wanted it, and it was well");
}

#[actix::test]
async fn with_the_sessions_there_are_no_more_than_the_target_takes() {
    let (address, mut connections) = origin(b"").await;
    let house = house_with(address, Settings { min_idle: 3, ..ONE }, Some(3), "127.0.0.0/8");
    house.idle(3).await;
    let _load = house.loads.take(ID).expect("a place");
    house.idle(2).await;
    let _more = house.loads.take(ID).expect("a place");
    let spare = house.pool.take(ID).expect("one of them");
    house.idle(1).await;
    let mut theirs = Vec::new();
    while let Ok(line) = connections.try_recv() {
        theirs.push(line);
    }
    assert_eq!(theirs.len(), 3, "the one that was taken counts as the session");
    drop(spare);
}

#[actix::test]
async fn a_target_that_an_operator_empties_has_none() {
    let (address, _connections) = origin(b"").await;
    let house = house(address, ONE);
    house.idle(1).await;
    house.drained.set(ID, true);
    house.idle(0).await;
    house.drained.set(ID, false);
    house.idle(1).await;
}

#[actix::test]
async fn an_address_that_must_not_be_dialled_is_not() {
    let (address, mut connections) = origin(b"").await;
    let house = house_with(address, ONE, None, "10.0.0.0/8");
    let deadline = Instant::now() + SOON;
    while house.health.views()[0].state != "unhealthy" {
        assert!(Instant::now() < deadline, "nobody has tried");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(house.pool.take(ID).is_none() && connections.try_recv().is_err());
    assert!(house.breaker.permit(ID).await.is_ok(), "it is no fault of the target");
}

#[actix::test]
async fn what_is_left_is_closed_with_the_filling() {
    for dropped in [true, false] {
        let (address, mut connections) = origin(b"").await;
        let mut house = house(address, ONE);
        house.idle(1).await;
        if dropped {
            drop(house.filling.take());
        } else {
            house.pool.close();
        }
        let mut theirs = connections.recv().await.expect("the other side");
        assert_eq!(theirs.read(&mut [0; 8]).await.expect("an end"), 0);
        house.idle(0).await;
        assert!(house.pool.take(ID).is_none() && connections.try_recv().is_err());
    }
}

#[test]
fn a_pool_that_is_off_counts_nothing() {
    let target = Arc::new(Target::parse(ID, "rtmp://a").expect("a URL"));
    let pool = Pool::new([(&target, None)], Telemetry::silent(), None);
    assert!(pool.take(ID).is_none() && pool.view(ID).is_none());
}

#[test]
fn counts_go_on_in_the_next_pool() {
    let target = Arc::new(Target::parse(ID, "rtmp://a").expect("a URL"));
    let pool = |before| Pool::new([(&target, Some(ONE))], Telemetry::silent(), before);
    let first = pool(None);
    assert!(first.take(ID).is_none());
    let next = pool(Some(&first));
    assert!(next.take(ID).is_none());
    assert_eq!(next.view(ID).map(|view| view.misses), Some(2));
}
