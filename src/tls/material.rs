//! Pure: do these bytes make a certificate that can be served? Each way in which they do not has a sentence that says what to do.

use std::sync::Arc;

use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::{CertifiedKey, SigningKey};
use tokio_rustls::rustls::{Error, InconsistentKeys, RootCertStore};

use super::Certificate;
use super::provider;

/// A certificate with its chain and key, known to belong together.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) certificate: Certificate,
}

/// Which of the two files is to blame, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PairProblem {
    Certificate(String),
    Key(String),
}

/// Reads chain and key, both PEM. All that is wrong, at once.
pub(super) fn pair(chain: &[u8], key: &[u8]) -> Result<Pair, Vec<PairProblem>> {
    let chain = certificates(chain).and_then(|chain| {
        let leaf = chain.first().and_then(|leaf| Certificate::read(leaf));
        leaf.map(|leaf| (chain, leaf)).ok_or_else(|| "holds a CERTIFICATE section that is no X.509 certificate".into())
    });
    let key = signing_key(key);
    let ((chain, certificate), key) = match (chain, key) {
        (Ok(chain), Ok(key)) => (chain, key),
        (chain, key) => {
            let problems = [chain.err().map(PairProblem::Certificate), key.err().map(PairProblem::Key)];
            return Err(problems.into_iter().flatten().collect());
        }
    };
    if belongs(&chain, &key) {
        return Ok(Pair { key: Arc::new(CertifiedKey::new(chain, key)), certificate });
    }
    let later = (1..chain.len()).any(|leaf| belongs(&chain[leaf..], &key));
    Err(vec![if later {
        let text = "holds the certificate behind its chain; expected the server's own certificate first, then the intermediates";
        PairProblem::Certificate(text.into())
    } else {
        PairProblem::Key("does not belong to the certificate in tls_cert; expected the private key that it was issued for".into())
    }])
}

/// Every certificate of a PEM file, at least one.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = read.map_err(|error| malformed(&error))?;
    if !certificates.is_empty() {
        return Ok(certificates);
    }
    Err(match kind(pem) {
        Kind::Key => "holds a private key and no certificate; are tls_cert and tls_key exchanged?".into(),
        other => format!("holds no certificate: {}; expected PEM, \"-----BEGIN CERTIFICATE-----\"", other.found()),
    })
}

/// The authorities of a PEM file, at least one.
pub(super) fn authorities(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|_| "holds a CERTIFICATE section that is no X.509 certificate".to_owned())?;
    }
    Ok(roots)
}

fn signing_key(pem: &[u8]) -> Result<Arc<dyn SigningKey>, String> {
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        PemError::NoItemsFound => no_key(pem),
        // The old form of encryption has lines that are no base64.
        _ if kind(pem) == Kind::Encrypted => no_key(pem),
        error => malformed(&error),
    })?;
    let unusable = "holds a key that cannot be used; expected RSA of 2048 bits or more, ECDSA (P-256, P-384, P-521) or Ed25519";
    provider().key_provider.load_private_key(key).map_err(|_| unusable.into())
}

fn no_key(pem: &[u8]) -> String {
    match kind(pem) {
        Kind::Certificate => "holds a certificate and no private key; are tls_cert and tls_key exchanged?".into(),
        Kind::Encrypted => {
            "is encrypted with a passphrase, which nobody could type at a restart; expected a plain key: openssl pkey -in FILE -out plain.pem".into()
        }
        other => format!("holds no private key: {}; expected PEM, \"-----BEGIN PRIVATE KEY-----\"", other.found()),
    }
}

/// The words of the error may repeat lines of the file, which may be a key.
fn malformed(error: &PemError) -> String {
    let found = match error {
        PemError::MissingSectionEnd { .. } => "a section without its END line",
        PemError::IllegalSectionStart { .. } => "a BEGIN line that is none",
        PemError::Base64Decode(_) => "a section that is not base64",
        _ => "something that is no PEM",
    };
    format!("is damaged: {found}; is it complete?")
}

/// Whether `key` is that of the first certificate. Where the library cannot tell, it is believed.
fn belongs(chain: &[CertificateDer<'static>], key: &Arc<dyn SigningKey>) -> bool {
    let verdict = CertifiedKey::new(chain.to_vec(), Arc::clone(key)).keys_match();
    matches!(verdict, Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)))
}

/// What a file seems to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Empty,
    Certificate,
    Key,
    Encrypted,
    Der,
    OtherPem,
    Other,
}

impl Kind {
    fn found(self) -> &'static str {
        match self {
            Self::Empty => "it is empty",
            Self::Certificate => "found a certificate",
            Self::Key => "found a private key",
            Self::Encrypted => "found an encrypted private key",
            Self::Der => {
                "found binary data, perhaps DER or PKCS #12 (openssl x509, openssl pkey and openssl pkcs12 convert them)"
            }
            Self::OtherPem => "found PEM of another kind",
            Self::Other => "found something else",
        }
    }
}

fn kind(bytes: &[u8]) -> Kind {
    let holds = |word: &[u8]| bytes.windows(word.len()).any(|window| window == word);
    if bytes.iter().all(u8::is_ascii_whitespace) {
        Kind::Empty
    } else if holds(b"ENCRYPTED PRIVATE KEY") || holds(b",ENCRYPTED") {
        Kind::Encrypted
    } else if holds(b"PRIVATE KEY-----") {
        Kind::Key
    } else if holds(b"-----BEGIN CERTIFICATE-----") {
        Kind::Certificate
    } else if holds(b"-----BEGIN ") {
        Kind::OtherPem
    } else if bytes.first() == Some(&0x30) {
        Kind::Der
    } else {
        Kind::Other
    }
}

#[cfg(test)]
#[path = "material_tests.rs"]
mod tests;
