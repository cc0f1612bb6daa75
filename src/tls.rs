//! Who is there, in private?
//!
//! [`Server`] is what a client meets: one certificate, with or without SNI, exchanged for a new one when its files change. [`Client`] is how an
//! upstream is met: by the system's roots, a file of one's own, or nobody's word. Both give a [`Stream`], which is a TCP connection with
//! TLS or without, behind one face. rustls over aws-lc-rs, TLS 1.2 and 1.3.

mod certificate;
mod client;
mod failure;
mod files;
mod material;
mod record;
mod reload;
mod server;
mod stream;
mod verify;

use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

pub use certificate::Certificate;
pub use client::{Client, ClientError, Trust};
pub use failure::{AcceptError, ConnectError};
pub use files::FileProblem;
pub use reload::watch;
pub use server::{Server, Standing};
pub use stream::{Stream, Wire};
pub use tokio_rustls::rustls::pki_types::ServerName;

use tokio_rustls::rustls::SupportedProtocolVersion;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::version::{TLS12, TLS13};

use crate::config::{Objection, ServerTls};

/// What is spoken; older versions are broken.
const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

/// What is wrong with the files of clients' TLS at `now`, and what soon will be.
pub fn judge(files: &ServerTls, now: SystemTime) -> Vec<Objection> {
    let objection = |key: &str, text, fatal| Objection { key: key.to_owned(), text, fatal };
    match server::load(files) {
        Err(problems) => problems.iter().map(|problem| objection(problem.key, problem.sentence(), true)).collect(),
        Ok(material) => {
            let warning = material.pair.certificate.warning(now);
            warning.map(|text| objection("security.tls_cert", text, false)).into_iter().collect()
        }
    }
}

/// The one crypto provider. Named wherever a configuration is built: nothing depends on a default of the process.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}

#[cfg(test)]
#[path = "tls/tests.rs"]
pub(crate) mod tests;
