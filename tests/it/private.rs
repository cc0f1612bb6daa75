//! TLS for peers that speak plain: a tunnel from a client to a relay that takes TLS, and a front for an origin that does not.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ConfigBuilder, RootCertStore, ServerConfig, WantsVerifier};
use tokio_rustls::{TlsAcceptor, TlsConnector};

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

    /// A certificate for `names`.
    pub(crate) fn paper(&self, names: &[&str]) -> Paper {
        self.issues(names, |_| ())
    }

    /// A certificate that was good until 2002.
    pub(crate) fn old_paper(&self, names: &[&str]) -> Paper {
        self.issues(names, |params| {
            (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
        })
    }

    fn issues(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Paper {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("names");
        change(&mut params);
        Paper { cert: params.signed_by(&key, &self.issuer).expect("signed").pem(), key: key.serialize_pem() }
    }
}

impl Paper {
    /// Puts both into files of `dir`: (certificate, key).
    pub(crate) fn put_into(&self, dir: &Path) -> (PathBuf, PathBuf) {
        let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
        std::fs::write(&cert, &self.cert).expect("it can be written");
        std::fs::write(&key, &self.key).expect("it can be written");
        (cert, key)
    }

    fn der(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = vec![CertificateDer::from_pem_slice(self.cert.as_bytes()).expect("PEM")];
        (chain, PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("PEM"))
    }
}

fn client() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    builder.with_safe_default_protocol_versions().expect("versions")
}

/// A client that believes `authority`, with a certificate of its own where `paper` is one.
pub(crate) fn believing(authority: &Authority, paper: Option<&Paper>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("PEM")).expect("a certificate");
    let builder = client().with_root_certificates(roots);
    match paper {
        None => builder.with_no_client_auth(),
        Some(paper) => {
            let (chain, key) = paper.der();
            builder.with_client_auth_cert(chain, key).expect("a pair")
        }
    }
}

/// Ends of connections made others of, until it is dropped.
pub(crate) struct Tunnel {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Tunnel {
    /// Plain here, TLS to `relay`, which must show a certificate for `host`.
    pub(crate) fn to(relay: SocketAddr, host: &'static str, config: ClientConfig) -> Self {
        let connector = TlsConnector::from(Arc::new(config));
        Self::run(move |plain| {
            let connector = connector.clone();
            async move {
                let tcp = TcpStream::connect(relay).await?;
                tcp.set_nodelay(true)?;
                let private = connector.connect(ServerName::try_from(host).expect("a name"), tcp).await?;
                pass(plain, private).await
            }
        })
    }

    /// TLS here, with the certificate of `paper`, plain to `origin`.
    pub(crate) fn before(origin: SocketAddr, paper: &Paper) -> Self {
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
        let (chain, key) = paper.der();
        let acceptor = TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).expect("a pair")));
        Self::run(move |tcp| {
            let acceptor = acceptor.clone();
            async move {
                let private = acceptor.accept(tcp).await?;
                let plain = TcpStream::connect(origin).await?;
                plain.set_nodelay(true)?;
                pass(plain, private).await
            }
        })
    }

    fn run<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a port");
        let address = listener.local_addr().expect("bound");
        let (stop, mut stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async move {
                loop {
                    tokio::select! {
                        _ = &mut stopped => return,
                        Ok((socket, _)) = listener.accept() => {
                            socket.set_nodelay(true).expect("a socket takes no-delay");
                            tokio::spawn(serve(socket));
                        }
                    }
                }
            });
        });
        Self { address, stop: Some(stop), thread: Some(thread) }
    }
}

/// Both ways until both have ended.
async fn pass(mut here: TcpStream, mut there: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    tokio::io::copy_bidirectional(&mut here, &mut there).await.map(|_| ())
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
