//! Tests of the dial to upstreams that speak TLS, over loopback sockets.

use tokio::net::TcpListener;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::server::Acceptor;

use super::*;
use crate::tls::tests::{Authority, Files, echo};
use crate::tls::{Server, Trust};

fn settings(trust: Trust) -> DialSettings {
    let client = Client::new(&trust).unwrap_or_else(|error| panic!("{error}"));
    let allowed = vec!["127.0.0.0/8".parse().expect("a network")];
    DialSettings { allowed, private: [(TargetId(0), client)].into(), ..DialSettings::default() }
}

fn target(url: &str) -> Target {
    Target::parse(TargetId(0), url).expect("a URL")
}

/// A resolver that knows one address, whatever the name.
fn answering(address: SocketAddr) -> Resolver {
    Resolver::forgetful(Arc::new(move |_, _| Ok(vec![address])))
}

#[tokio::test]
async fn a_dial_ends_in_private_or_says_which_check_failed() {
    let authority = Authority::new();
    let files = Files::with(&authority.paper(&["origin.example", "127.0.0.1"]));
    let addr = echo(Arc::new(Server::new(&files.settings()).expect("files"))).await;
    let trusting = Trust::File(files.put("ca.pem", &authority.pem));
    for url in [format!("rtmps://{addr}/live"), "rtsps://origin.example./live".to_owned()] {
        let dialer = Dialer::with(settings(trusting.clone()), answering(addr));
        let connected = dialer.connect(&target(&url)).await.unwrap_or_else(|error| panic!("{url}: {error}"));
        assert!(connected.stream.is_private() && connected.addr == addr);
        assert_eq!(connected.spent(), connected.took + connected.tls_took.expect("there was a handshake"));
    }
    let stranger = Trust::File(files.put("other.pem", &Authority::new().pem));
    for (url, trust, kind) in [
        ("rtmps://other.example/live/S3CRET", trusting, "tls_wrong_name"),
        ("rtmps://origin.example/live/S3CRET", stranger, "tls_untrusted"),
    ] {
        let dialer = Dialer::with(settings(trust), answering(addr));
        let error = dialer.connect(&target(url)).await.expect_err(kind);
        assert_eq!((error.kind(), error.counts(), error.may_retry()), (kind, true, true), "{error}");
        let text = error.to_string();
        assert!(text.contains(&addr.to_string()) && text.contains(".example") && !text.contains("S3CRET"), "{text}");
    }
}

#[tokio::test]
async fn a_plain_dial_is_not_shaken_hands_with() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("bound");
    let dialer = Dialer::new(settings(Trust::Anyone));
    let connected = dialer.connect(&target(&format!("rtmp://{addr}"))).await.expect("connected");
    assert!(!connected.stream.is_private() && connected.tls_took.is_none());
}

#[tokio::test]
async fn the_handshake_has_what_is_left_of_the_dial_s_time() {
    // Accepts, and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("bound");
    let quick = DialSettings { dial_timeout: Duration::from_millis(200), ..settings(Trust::Anyone) };
    let dial = Dialer::new(quick);
    let error = timeout(Duration::from_secs(20), dial.connect(&target(&format!("rtmps://{addr}")))).await;
    let error = error.expect("it ends by itself").expect_err("nobody answers");
    assert_eq!((error.kind(), error.counts()), ("tls_timeout", true), "{error}");
}

#[tokio::test]
async fn a_name_is_asked_for_without_its_dot_and_an_address_never() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("bound");
    let asked = tokio::spawn(async move {
        let mut asked = Vec::new();
        for _ in 0..2 {
            let (tcp, _) = listener.accept().await.expect("accepted");
            let start = LazyConfigAcceptor::new(Acceptor::default(), tcp).await.expect("a hello");
            asked.push(start.client_hello().server_name().map(str::to_owned));
        }
        asked
    });
    for url in ["rtmps://Origin.example./live".to_owned(), format!("rtmps://{addr}/live")] {
        let dialer = Dialer::with(settings(Trust::Anyone), answering(addr));
        dialer.connect(&target(&url)).await.expect_err("the server leaves");
    }
    assert_eq!(asked.await.expect("no panic"), [Some("origin.example".to_owned()), None]);
}
