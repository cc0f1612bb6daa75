//! The certificate that targets show, and the client that believes it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

/// Longest record, bytes of payload: OBS writes a record for each of its RTMP chunks of 4096 bytes.
const RECORD: usize = 4096;

/// See the module.
pub struct Papers {
    /// Certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Both in one file, as HAProxy wants them.
    pub both: PathBuf,
    /// Trusts the certificate, and speaks TLS 1.3 with AES-128-GCM to every target alike.
    pub client: Arc<ClientConfig>,
    _folder: tempfile::TempDir,
}

impl Papers {
    /// A new self-signed certificate for 127.0.0.1.
    pub fn new() -> Result<Self, String> {
        let text = |e: &dyn std::error::Error| e.to_string();
        let folder = tempfile::tempdir().map_err(|e| text(&e))?;
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).map_err(|e| text(&e))?;
        let [cert, key, both] = ["cert.pem", "key.pem", "both.pem"].map(|name| folder.path().join(name));
        let pem = (made.cert.pem(), made.signing_key.serialize_pem());
        let files = [(&cert, pem.0.clone()), (&key, pem.1.clone()), (&both, format!("{}{}", pem.0, pem.1))];
        files.into_iter().try_for_each(|(path, pem)| fs::write(path, pem)).map_err(|e| text(&e))?;
        let client = client(made.cert.der().clone()).map_err(|e| text(&e))?;
        Ok(Self { cert, key, both, client: Arc::new(client), _folder: folder })
    }
}

/// A server that shows these.
pub fn server(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, String> {
    let text = |e: &dyn std::error::Error| e.to_string();
    let certs = CertificateDer::pem_file_iter(cert).map_err(|e| text(&e))?;
    let certs = certs.collect::<Result<Vec<_>, _>>().map_err(|e| text(&e))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|e| text(&e))?;
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|e| text(&e))?;
    Ok(Arc::new(builder.with_no_client_auth().with_single_cert(certs, key).map_err(|e| text(&e))?))
}

fn client(cert: CertificateDer<'static>) -> Result<ClientConfig, tokio_rustls::rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(cert)?;
    let suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    let provider = CryptoProvider { cipher_suites: suites, ..aws_lc_rs::default_provider() };
    let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions()?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.max_fragment_size = Some(RECORD + 5);
    Ok(config)
}
