//! Certificates: an authority of the tests' own, and what it signs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tempfile::TempDir;

use crate::process::workdir;

/// Authorities made so far: two of one name would be taken for one.
static MADE: AtomicUsize = AtomicUsize::new(0);

/// An authority and the certificates it has signed, as files.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    dir: TempDir,
}

/// The files of a certificate and its key.
#[derive(Clone)]
pub struct Paper {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    /// One that nobody knows yet.
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        params.distinguished_name.push(DnType::CommonName, format!("authority {number} of the tests"));
        let dir = workdir("authority");
        write(&dir.path().join("ca.pem"), &params.self_signed(&key).expect("it signs itself").pem());
        Authority { issuer: Issuer::new(params, key), dir }
    }

    /// The file that makes a program believe in it.
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A certificate for this machine, by name and address.
    pub fn local(&self) -> Paper {
        self.sign("local", &["localhost", "127.0.0.1"], |_| ())
    }

    /// One for somebody else.
    pub fn foreign(&self) -> Paper {
        self.sign("foreign", &["elsewhere.test"], |_| ())
    }

    /// One for this machine that was good until 2002.
    pub fn expired(&self) -> Paper {
        self.sign("expired", &["localhost", "127.0.0.1"], |params| {
            (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
        })
    }

    fn sign(&self, file: &str, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Paper {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("names that a certificate may have");
        change(&mut params);
        let at = |kind| self.dir.path().join(format!("{file}.{kind}.pem"));
        let paper = Paper { cert: at("cert"), key: at("key") };
        write(&paper.cert, &params.signed_by(&key, &self.issuer).expect("it signs").pem());
        write(&paper.key, &key.serialize_pem());
        paper
    }
}

fn write(file: &Path, text: &str) {
    fs::write(file, text).expect("a fresh directory takes a file");
}
