//! Another configuration for a relay that runs: everything that may fail first, then one step.

use std::collections::HashSet;
use std::sync::Arc;

use super::outfit::Outfit;
use super::relay::{Relay, keep_buffers};
use crate::admission::supervisor::{self, Kick, Manner};
use crate::admission::{TokenId, rate_limiter};
use crate::config::Config;
use crate::listener;
use crate::session::adjust_worker;
use crate::telemetry::SessionId;
use crate::upstream::breaker;

impl Relay {
    /// Takes another configuration: for sessions that begin from now on, and at once where that is possible. What would need a
    /// restart (addresses, workers) is left as it is. Returns how many sessions were told to end because their token is gone.
    ///
    /// # Errors
    /// What a checked configuration does not have. Nothing has changed then.
    pub async fn change(&self, config: &Config) -> anyhow::Result<usize> {
        let before = self.outfit.load_full();
        let new = Outfit::new(config, &self.staff, Some(&before))?;
        // Together with the new ones they might be more than an upstream takes.
        before.shared.router.means().pool.close();
        // So that /ready knows of new upstreams before anybody asks.
        new.reachability.check().await;
        self.tell_actors(&before, &new).await;
        self.tell_workers(config);
        let new = Arc::new(new);
        self.staff.telemetry.metrics().set_targets(new.targets().iter().map(|target| target.label.as_str()));
        if before.config.log != config.log {
            self.staff.telemetry.show_names(&config.log);
        }
        if let Some(http) = &self.http {
            http.allow(config.http_allowed_networks.clone());
        }
        self.admin_key.change(config.admin.token.as_ref(), config.http_allowed_networks.clone());
        new.shared.router.drained().keep(|target| new.targets().iter().any(|known| known.id == target));
        new.show_drained();
        let removed = before.shared.gate.removed(&new.shared.gate);
        if config.reload.revoke_live {
            new.shared.gate.revoke(&removed);
        }
        let opened = listener::Configure { shared: Arc::clone(&new.shared), cap: new.cap(), tcp: config.tcp };
        // A Listener that is gone ends the process elsewhere.
        let _ = self.listener.send(opened).await;
        self.outfit.store(new);
        Ok(if config.reload.revoke_live { self.end_sessions_of(&removed).await } else { 0 })
    }

    async fn tell_actors(&self, before: &Outfit, new: &Outfit) {
        new.shared.claims.configure(new.config.publish_takeover);
        let (old, config) = (&before.config, &new.config);
        let settings = config.circuit_breaker;
        let _ = self.actors.breaker.send(breaker::Configure { settings, targets: new.labels() }).await;
        if old.rate_limit != config.rate_limit {
            // Only then: it forgets what was used up.
            let _ = self.actors.rate_limiter.send(rate_limiter::Configure { rate: config.rate_limit }).await;
        }
        let _ = self.staff.supervisor.send(supervisor::Configure { limit: config.connection_limit }).await;
    }

    fn tell_workers(&self, config: &Config) {
        self.buffers.configure(config.buffers.read.max(config.buffers.write), config.buffers.max_total);
        let (hold, keep) = (config.hold.max, keep_buffers(config, self.workers.len()));
        for worker in &self.workers {
            worker.run(move || adjust_worker(hold, keep));
        }
    }

    async fn end_sessions_of(&self, tokens: &[TokenId]) -> usize {
        let Ok(standing) = self.staff.supervisor.send(supervisor::Snapshot).await else { return 0 };
        let gone = |token: Option<u64>| token.is_some_and(|token| tokens.contains(&TokenId(token)));
        let sessions: HashSet<SessionId> =
            standing.sessions.iter().filter(|cell| gone(cell.facts().token)).map(|cell| cell.id).collect();
        if sessions.is_empty() {
            return 0;
        }
        let kick = Kick { reason: "token_revoked", manner: Manner::Now };
        self.staff.supervisor.send(supervisor::KickSome { sessions, kick }).await.unwrap_or(0)
    }
}
