//! Pure: what a certificate says of itself.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// Names that are shown of one certificate.
const MAX_NAMES: usize = 20;
/// Before this much time is left, a renewal is overdue: authorities renew with a month to go.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// A certificate's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Whom it is for: DNS names and addresses, the first 20; else its common name.
    pub names: Vec<String>,
    /// From when it is valid.
    pub not_before: SystemTime,
    /// Until when it is valid.
    pub not_after: SystemTime,
}

/// How a certificate stands at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// Valid for a while.
    Valid,
    /// Valid, for less than 14 days.
    Expiring {
        /// Whole days that are left.
        days: u64,
    },
    /// Not valid any more.
    Expired,
    /// Not valid yet; or the clock is wrong.
    NotYet,
}

impl Certificate {
    /// Reads a certificate in DER. `None` where it is none.
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let validity = certificate.validity();
        Some(Self {
            names: names(&certificate),
            not_before: at(validity.not_before.timestamp()),
            not_after: at(validity.not_after.timestamp()),
        })
    }

    /// How it stands at `now`.
    pub fn validity(&self, now: SystemTime) -> Validity {
        if now < self.not_before {
            return Validity::NotYet;
        }
        match self.not_after.duration_since(now) {
            Err(_) => Validity::Expired,
            Ok(left) if left < SOON => Validity::Expiring { days: left.as_secs() / (24 * 3600) },
            Ok(_) => Validity::Valid,
        }
    }

    /// What whoever keeps it should know at `now`, if anything.
    pub(super) fn warning(&self, now: SystemTime) -> Option<String> {
        let until = humantime::format_rfc3339_seconds(self.not_after);
        match self.validity(now) {
            Validity::Valid => None,
            Validity::Expiring { days } => Some(format!("the certificate expires in {days} days, on {until}; renew it")),
            Validity::Expired => Some(format!("the certificate has expired, on {until}: clients refuse it; renew it")),
            Validity::NotYet => {
                let from = humantime::format_rfc3339_seconds(self.not_before);
                Some(format!("the certificate is valid from {from} on: is this machine's clock right?"))
            }
        }
    }
}

fn at(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let named = alternative.into_iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
        _ => None,
    });
    let named: Vec<String> = named.take(MAX_NAMES).collect();
    if !named.is_empty() {
        return named;
    }
    let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    common.take(1).map(str::to_owned).collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
