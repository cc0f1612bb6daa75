//! Happenings around the relay's own certificate.

use std::time::{SystemTime, UNIX_EPOCH};

use super::Event;
use crate::telemetry::Telemetry;
use crate::telemetry::labels::{LOADED, REFUSED};

/// A certificate is served from now on.
#[derive(Debug)]
pub struct CertificateLoaded<'a> {
    /// Whom it is for.
    pub names: &'a [String],
    /// Until when it is valid.
    pub not_after: SystemTime,
    /// Whether it takes another's place.
    pub again: bool,
}

impl Event for CertificateLoaded<'_> {
    fn emit(self, telemetry: &Telemetry) {
        let metrics = telemetry.metrics();
        let until = self.not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        metrics.certificate_expiry.set(i64::try_from(until).unwrap_or(i64::MAX));
        if self.again {
            metrics.certificate_reloads.with_label_values(&[LOADED]).inc();
        }
        tracing::info!(
            event = "certificate_loaded",
            names = self.names.join(","),
            not_after = %humantime::format_rfc3339_seconds(self.not_after),
            again = self.again,
            "the certificate is served from now on"
        );
    }
}

/// The files of the certificate have changed and cannot be used; the old one stays.
#[derive(Debug)]
pub struct CertificateRefused<'a> {
    /// What is wrong, without anything of what the files hold.
    pub error: &'a str,
}

impl Event for CertificateRefused<'_> {
    fn emit(self, telemetry: &Telemetry) {
        telemetry.metrics().certificate_reloads.with_label_values(&[REFUSED]).inc();
        tracing::warn!(
            event = "certificate_refused",
            error = self.error,
            "the files of the certificate have changed and cannot be used; the old one is still served"
        );
    }
}

/// The certificate that is served is old, or about to be. Once a day.
#[derive(Debug)]
pub struct CertificateExpiring<'a> {
    /// How old.
    pub text: &'a str,
}

impl Event for CertificateExpiring<'_> {
    fn emit(self, _: &Telemetry) {
        tracing::warn!(event = "certificate_expiring", "{}", self.text);
    }
}
