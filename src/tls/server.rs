//! What a client meets: one certificate, whichever name it asked for.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::server::{Acceptor, ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::failure::AcceptError;
use super::files::{self, FileProblem};
use super::material::{self, Pair, PairProblem};
use super::reload::{Signature, signature};
use super::stream::{Stream, Wire};
use super::{Certificate, VERSIONS, provider};
use crate::config::ServerTls;

thread_local! {
    /// Whose hello is answered next on this thread. The answer is a signature, a millisecond of work where the key is RSA: after a restart a
    /// thousand clients come back at once, and frames of those who are in already must not wait behind all of them.
    static TURN: Arc<Semaphore> = Arc::new(Semaphore::new(1));
}

/// See the module. Shared by all workers; the certificate inside can be exchanged while sessions live.
pub struct Server {
    pub(super) files: ServerTls,
    /// The files as they were just before they were first read.
    pub(super) began_with: Signature,
    served: Arc<Served>,
    config: ArcSwap<ServerConfig>,
    standing: ArcSwap<Standing>,
}

/// How things stand, for /status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The certificate that is served.
    pub certificate: Certificate,
    /// When it was read.
    pub loaded_at: SystemTime,
    /// Why what is in the files now is not served.
    pub last_error: Option<String>,
    /// Whether clients must show a certificate.
    pub client_certificates: bool,
}

/// What the files hold, known to be usable.
pub(super) struct Material {
    pub(super) pair: Pair,
    pub(super) authorities: Option<RootCertStore>,
}

/// The certificate of the moment, for every name and none: librtmp asks for none.
#[derive(Debug)]
struct Served(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Server {
    /// Reads the files.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn new(files: &ServerTls) -> Result<Self, Vec<FileProblem>> {
        let began_with = signature(files);
        let material = load(files)?;
        let served = Arc::new(Served(ArcSwap::new(Arc::clone(&material.pair.key))));
        let standing = standing(&material, SystemTime::now());
        let config = ArcSwap::from_pointee(config(&served, material.authorities));
        Ok(Self { files: files.clone(), began_with, served, config, standing: ArcSwap::from_pointee(standing) })
    }

    /// What HTTP is served with: the same certificate, none of the client's.
    ///
    /// It hears of an exchange of the certificate like everybody else.
    pub fn for_http(&self) -> ServerConfig {
        config(&self.served, None)
    }

    /// Reads the files again, at `now`. With a problem the old certificate stays.
    ///
    /// # Errors
    /// All problems, as one text.
    pub(super) fn reload(&self, now: SystemTime) -> Result<Certificate, String> {
        match load(&self.files) {
            Ok(material) => {
                // A session that was begun under other authorities must not be resumed: the new configuration remembers none.
                let standing = standing(&material, now);
                let certificate = standing.certificate.clone();
                self.config.store(Arc::new(config(&self.served, material.authorities)));
                self.served.0.store(material.pair.key);
                self.standing.store(Arc::new(standing));
                Ok(certificate)
            }
            Err(problems) => {
                let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                let standing = Standing { last_error: Some(text.clone()), ..Standing::clone(&self.standing.load()) };
                self.standing.store(Arc::new(standing));
                Err(text)
            }
        }
    }

    /// Shakes hands with a client whose first byte says TLS. The caller bounds the time.
    ///
    /// # Errors
    /// [`AcceptError`]; the client has been sent the alert for it.
    pub async fn accept(&self, tcp: TcpStream) -> Result<Stream, AcceptError> {
        let start = LazyConfigAcceptor::new(Acceptor::default(), Wire::new(tcp)).await?;
        let accepting = {
            let turn = TURN.with(Arc::clone);
            // Never closed; a closed one would let everybody through.
            let _turn = turn.acquire().await.ok();
            let accepting = start.into_stream(self.config.load_full());
            tokio::task::yield_now().await;
            accepting
        };
        let stream = accepting.await.map_err(|error| match AcceptError::from(error) {
            AcceptError::Left => AcceptError::LeftBehindCertificate,
            other => other,
        })?;
        Ok(Stream::Server(Box::new(stream)))
    }

    /// How things stand.
    pub fn standing(&self) -> Arc<Standing> {
        self.standing.load_full()
    }
}

fn standing(material: &Material, now: SystemTime) -> Standing {
    Standing {
        certificate: material.pair.certificate.clone(),
        loaded_at: now,
        last_error: None,
        client_certificates: material.authorities.is_some(),
    }
}

/// Reads and judges all files.
pub(super) fn load(files: &ServerTls) -> Result<Material, Vec<FileProblem>> {
    let chain = files::read(CERT, &files.cert);
    let key = files::read(KEY, &files.key);
    let authorities = files.client_ca.as_deref().map(|path| {
        let pem = files::read(CLIENT_CA, path)?;
        material::authorities(&pem).map_err(|text| FileProblem::new(CLIENT_CA, path, text))
    });
    let mut problems = Vec::new();
    let authorities = authorities.transpose().unwrap_or_else(|problem| {
        problems.push(problem);
        None
    });
    match (chain, key) {
        (Ok(chain), Ok(key)) => match material::pair(&chain, &key) {
            Ok(pair) if problems.is_empty() => return Ok(Material { pair, authorities }),
            Ok(_) => {}
            Err(wrong) => problems.extend(wrong.into_iter().map(|problem| match problem {
                PairProblem::Certificate(text) => FileProblem::new(CERT, &files.cert, text),
                PairProblem::Key(text) => FileProblem::new(KEY, &files.key, text),
            })),
        },
        (chain, key) => problems.extend(chain.err().into_iter().chain(key.err())),
    }
    Err(problems)
}

const CERT: &str = "security.tls_cert";
const KEY: &str = "security.tls_key";
const CLIENT_CA: &str = "security.tls_client_ca";

fn config(served: &Arc<Served>, authorities: Option<RootCertStore>) -> ServerConfig {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&VERSIONS)
        .expect("the provider has cipher suites for both versions");
    let builder = match authorities {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
            builder.with_client_cert_verifier(
                verifier.build().expect("there are roots, and no revocation lists that could be wrong"),
            )
        }
    };
    let mut config = builder.with_cert_resolver(Arc::clone(served) as Arc<dyn ResolvesServerCert>);
    // librtmp over GnuTLS, as Debian has it, takes the tickets behind a 1.3 handshake for an error.
    config.send_tls13_tickets = 0;
    config
}
