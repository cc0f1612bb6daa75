//! How an upstream is met in private.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::ServerCertVerifier;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::failure::ConnectError;
use super::files::{self, FileProblem};
use super::stream::{Stream, Wire};
use super::verify::{Anyone, Named};
use super::{VERSIONS, material, provider};

/// Whose word an upstream's certificate needs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Trust {
    /// An authority's whom this machine trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` are heard).
    System,
    /// An authority's of this PEM file alone, or its own, where the file holds it.
    File(PathBuf),
    /// Nobody's.
    Anyone,
}

/// Why upstreams cannot be met in private at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The file of authorities cannot be used.
    #[error("{}", .0.sentence())]
    File(FileProblem),
    /// The machine has no store of authorities.
    #[error("this machine has no certificates of authorities: install ca-certificates, or name a file in upstream_tls.ca_file")]
    NoRoots,
}

/// Meets upstreams in private. Cheap to clone; all clones resume each other's sessions.
#[derive(Clone)]
pub struct Client {
    connector: TlsConnector,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    /// Reads the authorities that `trust` asks for.
    ///
    /// # Errors
    /// [`ClientError`], which names the file.
    pub fn new(trust: &Trust) -> Result<Self, ClientError> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&VERSIONS)
            .expect("the provider has cipher suites for both versions");
        let config = builder.dangerous().with_custom_certificate_verifier(verifier(trust)?).with_no_client_auth();
        Ok(Self { connector: TlsConnector::from(Arc::new(config)) })
    }

    /// Shakes hands over a fresh connection with the server that is called `name`; an address is never sent as SNI. The caller bounds the
    /// time.
    ///
    /// # Errors
    /// [`ConnectError`], which says which check failed.
    pub async fn connect(&self, tcp: TcpStream, name: &ServerName<'static>) -> Result<Stream, ConnectError> {
        let connected = self.connector.connect(name.clone(), Wire::new(tcp)).await;
        let stream = connected.map_err(|error| ConnectError::of(error, &name.to_str()))?;
        Ok(Stream::Client(Box::new(stream)))
    }
}

#[cfg(test)]
impl Client {
    /// Whether both are one, and resume each other's sessions.
    pub(crate) fn shares_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(self.connector.config(), other.connector.config())
    }
}

fn verifier(trust: &Trust) -> Result<Arc<dyn ServerCertVerifier>, ClientError> {
    match trust {
        Trust::Anyone => Ok(Arc::new(Anyone(provider()))),
        Trust::System => Ok(believing(system()?)),
        Trust::File(path) => {
            let problem = |text: String| ClientError::File(FileProblem::new("ca_file", path, text));
            let pem = files::read("ca_file", path).map_err(ClientError::File)?;
            let certificates = material::certificates(&pem).map_err(problem)?;
            let authorities = believing(material::authorities(&pem).map_err(problem)?);
            Ok(Arc::new(Named { authorities, certificates }))
        }
    }
}

fn believing(roots: RootCertStore) -> Arc<WebPkiServerVerifier> {
    let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
    builder.build().expect("there are roots, and no revocation lists that could be wrong")
}

/// What this machine trusts. Single files of it that cannot be read are left out, as every program does.
fn system() -> Result<RootCertStore, ClientError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(ClientError::NoRoots) } else { Ok(roots) }
}
