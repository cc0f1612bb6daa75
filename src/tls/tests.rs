//! Handshakes over sockets: who is let in, who is believed, and what is said otherwise.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

/// An authority of the test's own.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A certificate and its key, PEM.
pub(crate) struct Paper {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority of the test");
        let pem = params.self_signed(&key).expect("signed").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for `names`, as changed by `change`.
    pub(crate) fn issues(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Paper {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("names");
        change(&mut params);
        Paper { cert: params.signed_by(&key, &self.issuer).expect("signed").pem(), key: key.serialize_pem() }
    }

    pub(crate) fn paper(&self, names: &[&str]) -> Paper {
        self.issues(names, |_| ())
    }
}

/// What `openssl req -x509` makes: its own authority.
pub(crate) fn self_signed(names: &[&str]) -> Paper {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).expect("names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Paper { cert: params.self_signed(&key).expect("signed").pem(), key: key.serialize_pem() }
}

/// A directory with the files of a server.
pub(crate) struct Files {
    dir: TempDir,
}

impl Files {
    pub(crate) fn with(paper: &Paper) -> Self {
        let files = Self { dir: tempfile::tempdir().expect("a directory") };
        files.write(paper);
        files
    }

    pub(crate) fn write(&self, paper: &Paper) {
        self.put("cert.pem", &paper.cert);
        self.put("key.pem", &paper.key);
    }

    pub(crate) fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("it can be written");
        path
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn settings(&self) -> ServerTls {
        ServerTls { cert: self.path("cert.pem"), key: self.path("key.pem"), client_ca: None }
    }
}

/// Serves every connection with `server` for good; says back what it is told.
pub(crate) async fn echo(server: Arc<Server>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                let mut stream = server.accept(tcp).await?;
                let mut piece = [0; 64];
                while let Ok(read @ 1..) = stream.read(&mut piece).await {
                    let _ = stream.write_all(&piece[..read]).await;
                    let _ = stream.flush().await;
                }
                Ok::<_, AcceptError>(())
            });
        }
    });
    address
}

pub(super) fn server(files: &Files) -> Arc<Server> {
    Arc::new(Server::new(&files.settings()).unwrap_or_else(|problems| panic!("{problems:?}")))
}

fn name(text: &str) -> ServerName<'static> {
    ServerName::try_from(text.to_owned()).expect("a name")
}

/// Believes the authorities in `pem`.
pub(super) fn believing(files: &Files, pem: &str) -> Client {
    Client::new(&Trust::File(files.put("ca.pem", pem))).unwrap_or_else(|error| panic!("{error}"))
}

pub(super) async fn meets(client: &Client, address: std::net::SocketAddr, host: &str) -> Result<Stream, ConnectError> {
    let tcp = TcpStream::connect(address).await.expect("connected");
    tokio::time::timeout(Duration::from_secs(20), client.connect(tcp, &name(host))).await.expect("in time")
}

pub(super) async fn hears_back(stream: &mut Stream) {
    stream.write_all(b"hello").await.expect("written");
    stream.flush().await.expect("sent");
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).await.expect("read");
    assert_eq!(&heard, b"hello");
}

#[tokio::test]
async fn a_client_that_believes_the_authority_speaks_in_private() {
    let authority = Authority::new();
    let files = Files::with(&authority.paper(&["localhost", "127.0.0.1"]));
    let address = echo(server(&files)).await;
    let client = believing(&files, &authority.pem);
    for host in ["localhost", "127.0.0.1"] {
        let mut stream = meets(&client, address, host).await.unwrap_or_else(|error| panic!("{host}: {error}"));
        assert!(stream.is_private());
        hears_back(&mut stream).await;
    }
}

#[tokio::test]
async fn a_crowd_is_answered_one_hello_at_a_time_and_nobody_is_forgotten() {
    let authority = Authority::new();
    let files = Files::with(&authority.paper(&["localhost"]));
    let address = echo(server(&files)).await;
    let client = believing(&files, &authority.pem);
    // Some leave while they wait for their turn.
    for _ in 0..10 {
        let mut tcp = TcpStream::connect(address).await.expect("connected");
        tcp.write_all(&hello_of(client_of(&authority, &[&TLS13], None))).await.expect("sent");
    }
    let crowd = (0..30).map(|_| async {
        let mut stream = meets(&client, address, "localhost").await.unwrap_or_else(|error| panic!("{error}"));
        hears_back(&mut stream).await;
    });
    join_all(crowd).await;
}

#[tokio::test]
async fn every_check_that_fails_is_named() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let old = |params: &mut CertificateParams| {
        (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
    };
    let early = |params: &mut CertificateParams| {
        (params.not_before, params.not_after) = (date_time_ymd(2901, 1, 1), date_time_ymd(2902, 1, 1));
    };
    for (paper, kind, words) in [
        (authority.issues(&["localhost"], old), "tls_expired", "has expired, on 2002-01-01"),
        (authority.issues(&["localhost"], early), "tls_expired", "valid from 2901-01-01"),
        (stranger.paper(&["localhost"]), "tls_untrusted", "upstream_tls.ca_file"),
        (self_signed(&["localhost"]), "tls_untrusted", "upstream_tls.ca_file"),
        (authority.paper(&["other.example", "192.0.2.1"]), "tls_wrong_name", "not for localhost, but for other.example"),
        (authority.paper(&[]), "tls_wrong_name", "names nobody"),
    ] {
        let files = Files::with(&paper);
        let address = echo(server(&files)).await;
        let error = meets(&believing(&files, &authority.pem), address, "localhost").await.expect_err(words);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words) && error.to_string().contains("localhost"), "{error}");
        // Who checks nothing gets in.
        let anyone = Client::new(&Trust::Anyone).expect("no file is read");
        hears_back(&mut meets(&anyone, address, "localhost").await.expect("whoever it is")).await;
    }
}

#[tokio::test]
async fn a_self_signed_certificate_is_believed_where_it_is_named_and_only_for_its_name_and_time() {
    let paper = self_signed(&["localhost"]);
    let files = Files::with(&paper);
    let address = echo(server(&files)).await;
    let client = believing(&files, &paper.cert);
    hears_back(&mut meets(&client, address, "localhost").await.unwrap_or_else(|error| panic!("{error}"))).await;
    let error = meets(&client, address, "127.0.0.1").await.expect_err("another name");
    assert_eq!(error.kind(), "tls_wrong_name", "{error}");
    let other = believing(&files, &self_signed(&["localhost"]).cert);
    let error = meets(&other, address, "localhost").await.expect_err("another certificate of the same name");
    assert_eq!(error.kind(), "tls_untrusted", "{error}");
}

#[tokio::test]
async fn a_second_connection_resumes_the_first_one_s_session() {
    let authority = Authority::new();
    let paper = authority.paper(&["localhost"]);
    let files = Files::with(&paper);
    let chain = vec![CertificateDer::from_pem_slice(paper.cert.as_bytes()).expect("PEM")];
    let key = PrivateKeyDer::from_pem_slice(paper.key.as_bytes()).expect("PEM");
    // An origin as others run it: with tickets, which our own server does not send.
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&VERSIONS).expect("versions");
    let config = builder.with_no_client_auth().with_single_cert(chain, key).expect("a pair");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let mut stream = acceptor.accept(tcp).await.expect("a handshake");
            stream.write_all(b"hello").await.expect("written");
        }
    });
    let client = believing(&files, &authority.pem);
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let mut stream = meets(&client, address, "localhost").await.unwrap_or_else(|error| panic!("{error}"));
        stream.read_exact(&mut [0; 5]).await.expect("behind the tickets");
        if let Stream::Client(tls) = &stream {
            kinds.push(tls.get_ref().1.handshake_kind());
        }
    }
    assert_eq!(kinds, [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)]);
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_is_told_from_one_that_leaves() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        for answer in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b""] {
            let (mut tcp, _) = listener.accept().await.expect("accepted");
            let mut hello = [0; 16];
            let _ = tcp.read(&mut hello).await;
            let _ = tcp.write_all(answer).await;
            let _ = tcp.shutdown().await;
            let _ = tcp.read_to_end(&mut Vec::new()).await;
        }
    });
    let client = Client::new(&Trust::Anyone).expect("no file is read");
    for (kind, words) in [("tls_protocol", "does not speak TLS on this port"), ("tls_closed", "closed the connection")] {
        let error = meets(&client, address, "localhost").await.expect_err(kind);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

/// A handshake of a client as others make them: `config` decides.
async fn handshake(server: &Server, config: ClientConfig) -> (Result<Stream, AcceptError>, Option<ProtocolVersion>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let connector = TlsConnector::from(Arc::new(config));
    let client = tokio::spawn(async move {
        let tcp = TcpStream::connect(address).await.expect("connected");
        let mut stream = connector.connect(name("localhost"), tcp).await.ok()?;
        let version = stream.get_ref().1.protocol_version();
        // In TLS 1.3 the client is done before the server has judged it.
        let _ = stream.read(&mut [0]).await;
        version
    });
    let (tcp, _) = listener.accept().await.expect("accepted");
    let accepted = server.accept(tcp).await;
    let accepted = accepted.map(|stream| Stream::from(TcpStream::from_std(duplicate(&stream)).expect("a socket")));
    (accepted, client.await.expect("no panic"))
}

/// The stream itself is dropped with this, so that the client hears of the end.
fn duplicate(stream: &Stream) -> std::net::TcpStream {
    let socket = socket2::SockRef::from(stream.tcp()).try_clone().expect("a descriptor");
    let socket: std::net::TcpStream = socket.into();
    socket.shutdown(std::net::Shutdown::Both).expect("open");
    socket
}

fn client_of(authority: &Authority, versions: &[&'static SupportedProtocolVersion], paper: Option<&Paper>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("PEM")).expect("a certificate");
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).expect("versions");
    let builder = builder.with_root_certificates(roots);
    match paper {
        None => builder.with_no_client_auth(),
        Some(paper) => {
            let chain = vec![CertificateDer::from_pem_slice(paper.cert.as_bytes()).expect("PEM")];
            let key = PrivateKeyDer::from_pem_slice(paper.key.as_bytes()).expect("PEM");
            builder.with_client_auth_cert(chain, key).expect("a pair")
        }
    }
}

#[tokio::test]
async fn both_versions_are_spoken_with_and_without_a_name() {
    let authority = Authority::new();
    let files = Files::with(&authority.paper(&["localhost"]));
    let server = server(&files);
    for (version, spoken) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        for sni in [true, false] {
            let mut config = client_of(&authority, &[version], None);
            config.enable_sni = sni;
            config.alpn_protocols = vec![b"rtmp".to_vec()];
            let (accepted, version) = handshake(&server, config).await;
            accepted.unwrap_or_else(|error| panic!("{spoken:?}: {error}"));
            assert_eq!(version, Some(spoken));
        }
    }
}

#[tokio::test]
async fn a_client_certificate_is_asked_for_where_authorities_are_named() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let files = Files::with(&authority.paper(&["localhost"]));
    let client_ca = Some(files.put("clients.pem", &authority.pem));
    let server = Server::new(&ServerTls { client_ca, ..files.settings() }).expect("files");
    assert!(server.standing().client_certificates);
    for version in [&TLS12, &TLS13] {
        let known = authority.paper(&["encoder-1"]);
        let (accepted, _) = handshake(&server, client_of(&authority, &[version], Some(&known))).await;
        accepted.unwrap_or_else(|error| panic!("{error}"));
        let unknown = stranger.paper(&["encoder-1"]);
        for paper in [None, Some(&unknown)] {
            let (accepted, _) = handshake(&server, client_of(&authority, &[version], paper)).await;
            let error = accepted.expect_err("not let in");
            assert_eq!(error.reason(), "tls_client_cert", "{error}");
        }
    }
}

#[tokio::test]
async fn a_client_that_does_not_believe_us_is_told_from_one_that_speaks_something_else() {
    let files = Files::with(&Authority::new().paper(&["localhost"]));
    let server = server(&files);
    for version in [&TLS12, &TLS13] {
        let (accepted, _) = handshake(&server, client_of(&Authority::new(), &[version], None)).await;
        let error = accepted.expect_err("the client turned away");
        assert_eq!(error.reason(), "tls_untrusted", "{error}");
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let hello = hello_of(client_of(&Authority::new(), &[&TLS13], None));
    // TLS 1.0, without extensions.
    let old = [&b"\x16\x03\x01\x00\x2d\x01\x00\x00\x29\x03\x01"[..], &[7; 32], b"\x00\x00\x02\xc0\x13\x01\x00"].concat();
    for (sent, reason, words) in [
        (&b"\x16\x03\x01\x00\x05hello"[..], "tls_handshake", "failed"),
        (&old, "tls_handshake", "speaks TLS 1.2 and 1.3 in no way"),
        (b"\x16\x03\x01", "client_left", "left in the TLS handshake"),
        (&hello, "client_left", "does it trust it?"),
    ] {
        let mut tcp = TcpStream::connect(address).await.expect("connected");
        tcp.write_all(sent).await.expect("sent");
        tcp.shutdown().await.expect("sent");
        let (accepted, _) = listener.accept().await.expect("accepted");
        let error = server.accept(accepted).await.expect_err(reason);
        assert!(error.reason() == reason && error.to_string().contains(words), "{error}");
    }
}

/// What a client says first.
fn hello_of(config: ClientConfig) -> Vec<u8> {
    let mut client = ClientConnection::new(Arc::new(config), name("localhost")).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("into memory");
    hello
}

#[test]
fn authorities_that_cannot_be_read_are_named() {
    let files = Files::with(&Authority::new().paper(&["localhost"]));
    for (path, words) in [
        (files.path("none.pem"), "does not exist"),
        (files.path("key.pem"), "holds a private key"),
        ("/".into(), "is a directory"),
    ] {
        let error = Client::new(&Trust::File(path.clone())).expect_err(words).to_string();
        assert!(error.contains(words) && error.contains(&path.display().to_string()), "{error}");
    }
}
