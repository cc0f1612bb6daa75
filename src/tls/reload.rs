//! Have the files of the certificate changed? They are looked at again and again, for a renewal may replace them, write over them or, as
//! Kubernetes does, exchange a symbolic link two directories above.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Weak;
use std::time::{Duration, SystemTime};

use tokio::time::sleep;

use super::Server;
use crate::config::ServerTls;
use crate::telemetry::{Telemetry, events};

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(1);
/// How often an old certificate is complained of.
const NAG: Duration = Duration::from_secs(24 * 3600);

/// What tells one state of the files from another: device, inode, length, and the times of the last change to content and inode.
pub(super) type Signature = [Option<(u64, u64, u64, i64, i64, i64, i64)>; 3];

/// Looks at the files of `server` every second until it is gone, and exchanges its certificate when they hold another.
pub async fn watch(server: Weak<Server>, telemetry: Telemetry) {
    let Some(mut watcher) = server.upgrade().map(|server| Watcher::new(&server)) else { return };
    loop {
        sleep(EVERY).await;
        let Some(server) = server.upgrade() else { return };
        let tell = telemetry.clone();
        let looked = tokio::task::spawn_blocking(move || {
            watcher.look(&server, &tell, SystemTime::now());
            watcher
        });
        match looked.await {
            Ok(looked) => watcher = looked,
            // The process ends.
            Err(_) => return,
        }
    }
}

/// The files as they were.
pub(super) struct Watcher {
    /// At the last look.
    seen: Signature,
    /// When they were last judged.
    judged: Signature,
    nagged: Option<SystemTime>,
}

impl Watcher {
    /// Begins with the files as `server` has read them.
    pub(super) fn new(server: &Server) -> Self {
        // What was said at start need not be said again for a while.
        Self { seen: server.began_with, judged: server.began_with, nagged: Some(SystemTime::now()) }
    }

    /// Looks once.
    pub(super) fn look(&mut self, server: &Server, telemetry: &Telemetry, now: SystemTime) {
        let signature = signature(&server.files);
        // Certificate and key are two files: what is being replaced is left alone until it has been quiet from one look to the next.
        let settled = signature == self.seen;
        self.seen = signature;
        if settled && signature != self.judged {
            self.judged = signature;
            self.nagged = None;
            match server.reload(now) {
                Ok(certificate) => telemetry.emit(events::CertificateLoaded {
                    names: &certificate.names,
                    not_after: certificate.not_after,
                    again: true,
                }),
                Err(error) => telemetry.emit(events::CertificateRefused { error: &error }),
            }
        }
        self.nag(server, telemetry, now);
    }

    fn nag(&mut self, server: &Server, telemetry: &Telemetry, now: SystemTime) {
        let due = self.nagged.is_none_or(|last| now.duration_since(last).is_ok_and(|since| since >= NAG));
        if let Some(text) = server.standing().certificate.warning(now).filter(|_| due) {
            self.nagged = Some(now);
            telemetry.emit(events::CertificateExpiring { text: &text });
        }
    }
}

/// Through symbolic links. `None` for a file that is not there.
pub(super) fn signature(files: &ServerTls) -> Signature {
    [Some(&files.cert), Some(&files.key), files.client_ca.as_ref()].map(|path| {
        let file = fs::metadata(path?).ok()?;
        Some((file.dev(), file.ino(), file.len(), file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()))
    })
}

#[cfg(test)]
#[path = "reload_tests.rs"]
mod tests;
