//! Why TLS did not come about, in words that say which check failed and what to do.

use std::io;

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error, OtherError};

/// Names of an upstream's certificate that an error repeats.
const MAX_NAMES: usize = 5;

/// Why a client's handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// It closed before it had said hello.
    #[error("the client left in the TLS handshake")]
    Left,
    /// It closed without a word when it had seen the certificate. Many that do not trust it do just that.
    #[error("the client left the TLS handshake behind the relay's certificate: does it trust it?")]
    LeftBehindCertificate,
    /// It does not trust the relay's certificate.
    #[error("the client refused the relay's certificate ({})", alert(*.0))]
    Untrusted(AlertDescription),
    /// `tls_client_ca` asks for a certificate, and the client has none, or one that it does not vouch for.
    #[error("the client has no certificate that tls_client_ca vouches for: {0}")]
    ClientCertificate(Error),
    /// No common version or cipher.
    #[error("the client speaks TLS 1.2 and 1.3 in no way that the relay does: {0}")]
    Incompatible(Error),
    /// Not TLS, or broken.
    #[error("the TLS handshake failed: {0}")]
    Handshake(Error),
}

impl AcceptError {
    /// The word for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Left | Self::LeftBehindCertificate => "client_left",
            Self::Untrusted(_) => "tls_untrusted",
            Self::ClientCertificate(_) => "tls_client_cert",
            Self::Incompatible(_) | Self::Handshake(_) => "tls_handshake",
        }
    }
}

impl From<io::Error> for AcceptError {
    fn from(error: io::Error) -> Self {
        match cause(error) {
            None => Self::Left,
            Some(Error::AlertReceived(alert)) if is_about_certificates(alert) => Self::Untrusted(alert),
            Some(error @ (Error::NoCertificatesPresented | Error::InvalidCertificate(_))) => Self::ClientCertificate(error),
            Some(error @ Error::PeerIncompatible(_)) => Self::Incompatible(error),
            Some(error) => Self::Handshake(error),
        }
    }
}

/// Why the TLS handshake with an upstream failed. The text names the certificate's names and the host, never a path or key.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct ConnectError {
    kind: &'static str,
    text: String,
}

impl ConnectError {
    /// The word for logs and metrics.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// What `error` of a handshake with a server that is known as `name` means.
    pub(super) fn of(error: io::Error, name: &str) -> Self {
        let said = |kind, text: String| Self { kind, text };
        match cause(error) {
            None => {
                said("tls_closed", format!("{name} closed the connection in the TLS handshake: does it speak TLS on this port?"))
            }
            Some(Error::InvalidCertificate(error)) => certificate(&error, name),
            Some(Error::AlertReceived(alert)) => {
                said("tls_refused", format!("{name} refused the TLS handshake (alert: {})", self::alert(alert)))
            }
            Some(Error::InvalidMessage(_)) => said(
                "tls_protocol",
                format!("{name} does not speak TLS on this port: use the scheme without the 's', or another port"),
            ),
            Some(error) => said("tls_protocol", format!("the TLS handshake with {name} failed: {error}")),
        }
    }
}

fn certificate(error: &CertificateError, name: &str) -> ConnectError {
    use CertificateError as E;
    let (kind, text) = match error {
        E::Expired => ("tls_expired", format!("the certificate of {name} has expired")),
        E::ExpiredContext { not_after, .. } => {
            ("tls_expired", format!("the certificate of {name} has expired, on {}", date(not_after.as_secs())))
        }
        E::NotValidYet => ("tls_expired", format!("the certificate of {name} is not valid yet: is this machine's clock right?")),
        E::NotValidYetContext { not_before, .. } => {
            let from = date(not_before.as_secs());
            ("tls_expired", format!("the certificate of {name} is valid from {from} on: is this machine's clock right?"))
        }
        E::UnknownIssuer => ("tls_untrusted", untrusted(name, "nobody whom this machine trusts has signed it")),
        E::Other(OtherError(_)) => ("tls_untrusted", untrusted(name, "it is its own authority")),
        E::BadSignature => ("tls_untrusted", untrusted(name, "the authority that it names has not signed it")),
        E::Revoked => ("tls_untrusted", format!("the certificate of {name} has been revoked")),
        E::NotValidForName => ("tls_wrong_name", format!("the certificate is not for {name}")),
        E::NotValidForNameContext { presented, .. } => ("tls_wrong_name", wrong_name(name, presented)),
        other => ("tls_certificate", format!("the certificate of {name} cannot be used: {other}")),
    };
    ConnectError { kind, text }
}

fn untrusted(name: &str, why: &str) -> String {
    format!(
        "the certificate of {name} is not trusted: {why}; name its authority, or the certificate itself, in upstream_tls.ca_file"
    )
}

fn wrong_name(name: &str, presented: &[String]) -> String {
    if presented.is_empty() {
        return format!("the certificate is not for {name}: it names nobody (subjectAltName)");
    }
    // As rustls shows them: DnsName("example.com").
    let plain = |name: &String| name.split('"').nth(1).unwrap_or(name).chars().filter(|c| !c.is_control()).collect::<String>();
    let names: Vec<String> = presented.iter().take(MAX_NAMES).map(plain).collect();
    let more = if presented.len() > MAX_NAMES { ", ..." } else { "" };
    format!("the certificate is not for {name}, but for {}{more}: write one of these as the upstream's host", names.join(", "))
}

/// What rustls said, if it was not the network.
fn cause(error: io::Error) -> Option<Error> {
    error.into_inner().and_then(|inner| inner.downcast::<Error>().ok()).map(|error| *error)
}

fn is_about_certificates(alert: AlertDescription) -> bool {
    use AlertDescription as A;
    matches!(
        alert,
        A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateRevoked
            | A::CertificateExpired
            | A::CertificateUnknown
            | A::UnknownCA
            // A signature in the chain is not that of the authority it names.
            | A::DecryptError
    )
}

fn alert(alert: AlertDescription) -> String {
    format!("{alert:?}")
}

fn date(seconds: u64) -> String {
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    humantime::format_rfc3339_seconds(at).to_string()
}
