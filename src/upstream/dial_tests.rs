//! Tests of the dial, over loopback sockets.

use std::net::Ipv4Addr;

use futures_util::FutureExt;
use futures_util::future::join_all;
use socket2::{Domain, Socket, Type};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::*;

fn loopback() -> Vec<IpNetwork> {
    vec!["127.0.0.0/8".parse().expect("a network")]
}

fn settings() -> DialSettings {
    DialSettings { allowed: loopback(), ..DialSettings::default() }
}

fn target(url: &str) -> Target {
    Target::parse(TargetId(0), url).expect("a URL")
}

/// A resolver that answers with these, whatever the name; port 0 stands for the URL's.
fn answering(addresses: &[&str]) -> Resolver {
    let addresses: Vec<SocketAddr> = addresses.iter().map(|text| text.parse().expect("an address")).collect();
    Resolver::forgetful(Arc::new(move |_, port| {
        Ok(addresses.iter().map(|at| if at.port() == 0 { SocketAddr::new(at.ip(), port) } else { *at }).collect())
    }))
}

async fn origin() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let addr = listener.local_addr().expect("its address");
    (listener, addr)
}

/// An address where nobody listens, for as long as the socket that holds it lives.
fn deaf() -> (SocketAddr, Socket) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("bound");
    (socket.local_addr().expect("an address").as_socket().expect("of TCP"), socket)
}

/// An address that answers no SYN: a listener whose queue is full. The sockets keep it so.
fn black_hole() -> (SocketAddr, Vec<Socket>) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("bound");
    listener.listen(0).expect("listening");
    let addr = listener.local_addr().expect("an address").as_socket().expect("of TCP");
    let mut sockets = vec![listener];
    for _ in 0..16 {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let full = client.connect_timeout(&addr.into(), Duration::from_millis(100)).is_err();
        sockets.push(client);
        if full {
            return (addr, sockets);
        }
    }
    panic!("the queue does not fill");
}

#[tokio::test]
async fn a_connection_is_made_with_the_options_a_live_stream_needs() {
    let (listener, addr) = origin().await;
    let dialer = Dialer::new(settings());
    let connected = dialer.connect(&target(&format!("rtmp://{addr}/live"))).await.expect("connected");
    assert_eq!(connected.addr, addr);
    assert!(connected.took < settings().dial_timeout);
    let raw = SockRef::from(connected.stream.tcp());
    assert!(raw.tcp_nodelay().expect("read") && raw.keepalive().expect("read"));
    assert_eq!(raw.tcp_user_timeout().expect("read"), Some(Duration::from_secs(60)));
    let (mut accepted, _) = listener.accept().await.expect("accepted");
    drop(connected);
    assert_eq!(accepted.read(&mut [0; 8]).await.expect("the end"), 0, "nothing was written, and it is closed");
}

#[tokio::test]
async fn a_name_is_judged_by_every_address_it_has_and_only_judged_ones_are_dialled() {
    let (listener, addr) = origin().await;
    let all_forbidden = Dialer::with(settings(), answering(&["10.0.0.1:0", "169.254.169.254:0"]));
    let error = all_forbidden.connect(&target("rtmp://rebind.example/live")).await.expect_err("forbidden");
    assert_eq!((error.kind(), error.counts(), error.may_retry()), ("guard", false, false));
    assert!(error.to_string().contains("\"10.0.0.1/32\""), "{error}");

    let mixed = Dialer::with(settings(), answering(&["10.0.0.1:0", &addr.to_string()]));
    let connected = mixed.connect(&target("rtmp://rebind.example/live")).await.expect("the allowed one");
    assert_eq!(connected.addr, addr);
    drop(listener);

    let closed = Dialer::with(DialSettings::default(), answering(&[&addr.to_string()]));
    let error = closed.connect(&target("rtmp://localhost/live")).await.expect_err("loopback is not allowed by default");
    assert_eq!(error.kind(), "guard");
}

#[tokio::test]
async fn what_is_remembered_is_judged_again_at_each_dial() {
    let (_listener, addr) = origin().await;
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = asked.clone();
    let lookup: crate::upstream::resolve::Lookup = Arc::new(move |_, _| {
        count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Ok(vec![addr])
    });
    let long = Dns { cache_ttl: Duration::from_secs(600), stale_ttl: Duration::ZERO };
    let resolver = Resolver::with(lookup, long);
    let open = Dialer::with(settings(), resolver.clone());
    assert_eq!(open.connect(&target("rtmp://x/")).await.expect("allowed").addr, addr);
    let closed = Dialer::with(DialSettings::default(), resolver.clone());
    assert_eq!(closed.connect(&target("rtmp://x/")).await.expect_err("forbidden").kind(), "guard");
    let own = Dialer::with(DialSettings { own: vec![addr], ..settings() }, resolver);
    assert_eq!(own.connect(&target("rtmp://x/")).await.expect_err("ourselves").kind(), "self");
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1, "the resolver was asked once");
}

#[tokio::test]
async fn a_mapped_answer_is_judged_and_dialled_as_version_4() {
    let (_listener, addr) = origin().await;
    let mapped = format!("[::ffff:127.0.0.1]:{}", addr.port());
    let dialer = Dialer::with(DialSettings::default(), answering(&[&mapped]));
    assert_eq!(dialer.connect(&target("rtmp://x/")).await.expect_err("forbidden").kind(), "guard");
    let dialer = Dialer::with(settings(), answering(&[&mapped]));
    assert_eq!(dialer.connect(&target("rtmp://x/")).await.expect("allowed").addr, addr);
}

#[tokio::test]
async fn the_relay_does_not_dial_its_own_door_though_the_network_is_allowed() {
    let (_listener, addr) = origin().await;
    let own = DialSettings { own: vec![SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), addr.port())], ..settings() };
    for url in [
        format!("rtmp://{addr}/live"),
        format!("rtmp://localhost:{}/live", addr.port()),
        format!("rtmp://127.9.9.9:{}", addr.port()),
    ] {
        let error = Dialer::new(own.clone()).connect(&target(&url)).await.expect_err("ourselves");
        assert_eq!((error.kind(), error.may_retry()), ("self", false), "{url}");
    }
    let hidden = Dialer::with(own, answering(&["127.0.0.1:1", &addr.to_string()]));
    assert_eq!(hidden.connect(&target("rtmp://x/")).await.expect_err("ourselves").kind(), "self", "behind another address");
}

#[tokio::test]
async fn failures_are_told_apart_and_count_against_the_upstream() {
    let (deaf, _held) = deaf();
    let refused = Dialer::new(settings()).connect(&target(&format!("rtmp://{deaf}/S3CRET/S3CRET"))).await.expect_err("deaf");
    assert_eq!((refused.kind(), refused.counts(), refused.may_retry()), ("connect_refused", true, true));
    assert!(refused.to_string().contains(&deaf.to_string()) && !refused.to_string().contains("S3CRET"), "{refused}");

    let nameless = Resolver::forgetful(Arc::new(|_, _| Err(io::Error::other("no such host"))));
    let error = Dialer::with(settings(), nameless).connect(&target("rtmp://nowhere.example")).await.expect_err("no name");
    assert_eq!((error.kind(), error.counts()), ("dns", true));

    let (hole, _sockets) = black_hole();
    let quick = DialSettings { dial_timeout: Duration::from_millis(50), ..settings() };
    let error = Dialer::new(quick).connect(&target(&format!("rtmp://{hole}"))).await.expect_err("silence");
    assert_eq!((error.kind(), error.counts()), ("connect_timeout", true));
}

#[tokio::test]
async fn a_resolver_that_never_answers_ends_with_the_dial_s_time() {
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let stuck = Resolver::forgetful(Arc::new(move |_, _| {
        gate.lock().expect("a lock").recv().ok();
        Ok(Vec::new())
    }));
    let quick = DialSettings { dial_timeout: Duration::from_millis(20), ..settings() };
    let error = Dialer::with(quick, stuck).connect(&target("rtmp://slow.example")).await.expect_err("no answer");
    assert_eq!(error.kind(), "dns");
    drop(release);
}

#[tokio::test]
async fn addresses_are_tried_in_order_and_a_black_hole_leaves_time_for_the_next() {
    let (_listener, addr) = origin().await;
    let (hole, _sockets) = black_hole();
    let (deaf, _held) = deaf();
    let quick = DialSettings { dial_timeout: Duration::from_millis(900), ..settings() };
    let dialer = Dialer::with(quick, answering(&[&hole.to_string(), &deaf.to_string(), &addr.to_string()]));
    assert_eq!(dialer.connect(&target("rtmp://many.example")).await.expect("the third").addr, addr);
}

#[tokio::test]
async fn dropping_a_dial_gives_its_place_back_at_once() {
    let (hole, _sockets) = black_hole();
    let narrow = DialSettings { max_dialing: 1, queue_timeout: Duration::from_millis(20), ..settings() };
    let dialer = Dialer::new(narrow);
    let hole = target(&format!("rtmp://{hole}"));
    let mut first = Box::pin(dialer.connect(&hole));
    assert!((&mut first).now_or_never().is_none());
    let error = dialer.connect(&hole).await.expect_err("the place is taken");
    assert_eq!((error.kind(), error.counts(), error.may_retry()), ("dial_queue", false, true));
    drop(first);
    let mut second = Box::pin(dialer.connect(&hole));
    assert!((&mut second).now_or_never().is_none());
    assert!(matches!(dialer.connect(&hole).await, Err(DialError::Queue(_))), "the second has it");
}

#[tokio::test]
async fn a_thousand_dials_to_an_origin_with_a_short_backlog_all_arrive() {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("bound");
    socket.listen(128).expect("listening");
    socket.set_nonblocking(true).expect("set");
    let listener = TcpListener::from_std(socket.into()).expect("a listener");
    let addr = listener.local_addr().expect("an address");
    let origin = tokio::spawn(async move {
        for _ in 0..1000 {
            listener.accept().await.expect("accepted");
        }
    });
    let dialer = Dialer::new(settings());
    let target = target(&format!("rtmp://{addr}/live"));
    let dials = (0..1000).map(|_| async { dialer.connect(&target).await.map(|connected| connected.addr) });
    let ends = join_all(dials).await;
    assert!(ends.iter().all(Result::is_ok), "{:?}", ends.iter().find(|end| end.is_err()));
    origin.await.expect("all were accepted");
}

#[tokio::test]
async fn whoever_is_in_a_hurry_waits_for_at_most_one_who_is_not() {
    use futures_util::FutureExt;

    let queue = Queue::new(1);
    let first = queue.clone().slot(false).now_or_never().expect("nobody is before it").expect("open");
    let [mut second, mut third] = [(); 2].map(|()| Box::pin(queue.clone().slot(false)));
    assert!(second.as_mut().now_or_never().is_none() && third.as_mut().now_or_never().is_none());
    let mut hurried = Box::pin(queue.clone().slot(true));
    assert!(hurried.as_mut().now_or_never().is_none());
    drop(first);
    let second = second.now_or_never().expect("it came first").expect("open");
    assert!(third.as_mut().now_or_never().is_none());
    drop(second);
    let hurried = hurried.now_or_never().expect("it goes before the third").expect("open");
    assert!(third.as_mut().now_or_never().is_none());
    drop(hurried);
    assert!(third.now_or_never().is_some());
}
