//! A configuration that is read again while the relay runs: judged, compared, applied in one step, and told.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::relay::{Relay, facts_of};
use super::{JUDGES, descriptor_budget};
use crate::config::{self, Change, Effect, Env, Loaded};
use crate::http::{ConfigFacts, LastReload};
use crate::telemetry::events;
use crate::telemetry::logging::LogGuard;

/// What came of it.
#[derive(Debug)]
pub(super) struct Reloaded {
    /// One of [`labels::CONFIG_RELOADS`](crate::telemetry::labels::CONFIG_RELOADS).
    pub(super) result: &'static str,
    /// Why nothing changed.
    pub(super) error: Option<String>,
}

/// Reads the configuration again. One at a time: whoever owns it serves them in turn.
pub(super) struct Reloader {
    running: Loaded,
    files: Vec<(PathBuf, Option<Stamp>)>,
    /// As of the look before; what differs twice in the same way is not being written any more.
    changing: bool,
}

/// What tells one content of a file from the next.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    length: u64,
    modified: Option<SystemTime>,
}

impl Reloader {
    /// For a relay that runs `running`.
    pub(super) fn new(running: Loaded) -> Self {
        let mut reloader = Self { running, files: Vec::new(), changing: false };
        reloader.files = reloader.stamps();
        reloader
    }

    /// How often to look at the files; `None` never.
    pub(super) fn watch(&self) -> Option<Duration> {
        self.running.config.reload.watch
    }

    /// Looks at the files. Whether they differ from what was loaded, and were the same at the look before: a file that is being
    /// written may be whole JSON, or a list of tokens, long before it is what somebody meant.
    pub(super) fn look(&mut self) -> bool {
        let now = self.stamps();
        let settled = std::mem::replace(&mut self.changing, now != self.files) && now == self.files;
        if now != self.files {
            self.files = now;
        }
        settled
    }

    fn stamps(&self) -> Vec<(PathBuf, Option<Stamp>)> {
        self.running.files().into_iter().map(|path| (path.clone(), stamp(&path))).collect()
    }

    /// Reads, judges, compares and applies. A configuration that cannot be used changes nothing.
    pub(super) async fn reload(&mut self, relay: &Relay, log: Option<&LogGuard>, by: &'static str) -> Reloaded {
        self.files = self.stamps();
        self.changing = false;
        let reloaded = match self.running.again(&Env::of_process(), JUDGES) {
            Ok(new) => self.take(new, relay, log, by).await,
            Err(problems) => rejected("invalid", problems.to_string()),
        };
        if let Some(error) = &reloaded.error {
            relay.staff.telemetry.emit(events::ConfigRejected { by, result: reloaded.result, error });
        }
        let last = LastReload { at: SystemTime::now(), by, result: reloaded.result, error: reloaded.error.clone() };
        let facts = match reloaded.error {
            None => facts_of(&self.running, &relay.staff.telemetry),
            Some(_) => (**relay.told.load()).clone(),
        };
        relay.told.store(Arc::new(ConfigFacts { last_reload: Some(last), ..facts }));
        reloaded
    }

    async fn take(&mut self, new: Loaded, relay: &Relay, log: Option<&LogGuard>, by: &'static str) -> Reloaded {
        let changes = config::diff(&self.running, &new);
        let fixed: Vec<&str> =
            changes.iter().filter(|change| change.effect == Effect::NeedsRestart).map(|change| change.path.as_str()).collect();
        if !fixed.is_empty() && !new.config.reload.partial {
            let text = format!("{} cannot change without a restart, and reload.partial is false", fixed.join(", "));
            return rejected("refused", text);
        }
        let mut warnings = config::overridden(&self.running, &new);
        let kept = if fixed.is_empty() { Ok(new) } else { new.keeping(&self.running, &fixed, JUDGES) };
        let mut next = match kept {
            Ok(next) => next,
            Err(problems) => {
                return rejected("invalid", format!("what can change now does not go with what cannot: {problems}"));
            }
        };
        let budget = match descriptor_budget(&mut next.config) {
            Ok(warning) => warning,
            Err(error) => return rejected("invalid", error.to_string()),
        };
        let revoked = match relay.change(&next.config).await {
            Ok(revoked) => revoked,
            Err(error) => return rejected("invalid", format!("{error:#}")),
        };
        if let Some(log) = log {
            adjust_log(log, &self.running, &next);
        }
        warnings.extend(next.warnings.iter().cloned().chain(budget));
        let (left, changed) = (fixed.len(), changes.len() - fixed.len());
        self.running = next;
        self.files = self.stamps();
        let result = if changed > 0 { "applied" } else { "unchanged" };
        let telemetry = &relay.staff.telemetry;
        for Change { path, effect, text } in &changes {
            telemetry.emit(events::ConfigChanged { path, effect: effect.as_str(), text });
        }
        for warning in &warnings {
            telemetry.emit(events::ConfigWarning { path: &warning.at, text: &warning.text });
        }
        let hash = telemetry.digest(&self.running.for_digest());
        telemetry.emit(events::ConfigReloaded { by, result, changed, left, revoked, hash: &hash });
        Reloaded { result, error: None }
    }
}

fn rejected(result: &'static str, error: String) -> Reloaded {
    Reloaded { result, error: Some(error) }
}

/// Only what has changed: a level that an operator chose for the hour survives a reload that is about something else.
fn adjust_log(log: &LogGuard, old: &Loaded, new: &Loaded) {
    let (old, new) = (&old.config.log, &new.config.log);
    if old.level != new.level {
        log.set_level(new.level);
    }
    if old.format != new.format {
        log.set_format(new);
    }
}

fn stamp(path: &std::path::Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    let inode = (metadata.dev(), metadata.ino());
    Some(Stamp { inode, length: metadata.len(), modified: metadata.modified().ok() })
}
