//! What of a relay follows from its configuration, and is made anew when that changes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use actix::{Addr, ArbiterHandle};
use anyhow::Context;
use tokio_util::sync::DropGuard;

use crate::admission::{Claims, Gate, RateLimiter, Supervisor, Tally};
use crate::config::Config;
use crate::session::Shared;
use crate::telemetry::Telemetry;
use crate::tls;
use crate::upstream::{self, Breaker, Numbering, Reachability, Router, Target, TargetId, UpstreamView};

/// Accepted sockets above `max_total_connections`: those that are just being told why they are refused.
const HARD_CAP_EXTRA: usize = 64;

/// Those who stay from start to end, whatever the configuration becomes.
pub(super) struct Staff {
    pub(super) telemetry: Telemetry,
    /// Where checks of upstreams run.
    pub(super) control: ArbiterHandle,
    pub(super) supervisor: Addr<Supervisor>,
    pub(super) rate_limiter: Addr<RateLimiter>,
    pub(super) breaker: Breaker,
    pub(super) tally: Tally,
    pub(super) numbering: Numbering,
    /// Addresses that the relay listens on.
    pub(super) own: Vec<SocketAddr>,
    /// Meets clients in private; its certificate is exchanged by itself.
    pub(super) tls: Option<Arc<tls::Server>>,
}

/// A configuration, and what sessions get that begin under it.
pub(super) struct Outfit {
    pub(super) config: Config,
    pub(super) shared: Arc<Shared>,
    pub(super) reachability: Reachability,
    views: Arc<dyn Fn() -> Vec<UpstreamView> + Send + Sync>,
    _checks: Option<DropGuard>,
    _spares: DropGuard,
}

impl Outfit {
    /// The first one, or the one that follows `before`: what was counted, who has his turn and what is known of upstreams go on.
    ///
    /// # Errors
    /// An upstream or a token entry that a checked configuration does not have. Nothing has changed then.
    pub(super) fn new(config: &Config, staff: &Staff, before: Option<&Self>) -> anyhow::Result<Self> {
        let old = before.map(|before| &*before.shared);
        let router = old.map(|old| &old.router);
        let known = router.map_or(&[][..], Router::targets);
        let targets = upstream::targets(config, &staff.numbering, known).context("upstream")?;
        let (own, breaker, telemetry) = (staff.own.clone(), staff.breaker.clone(), staff.telemetry.clone());
        let means =
            upstream::means(config, &targets, own, breaker, telemetry, router.map(Router::means)).context("upstream_tls")?;
        let reachability = upstream::reachability(config, &targets, &means);
        let check = |settings| upstream::watch(&targets, settings, &means.dialer, &means.health, &staff.control);
        let _checks = config.health_check.map(check);
        let _spares = upstream::spares(&targets, &means, &staff.control);
        let router = Router::new(config, targets, means, router).context("routes")?;
        let views = upstream::views(config, &router);
        let shared = Arc::new(Shared {
            gate: gate(config, staff, old)?,
            router,
            forward: config.forward_query.clone(),
            tls: staff.tls.clone(),
            timeouts: config.timeouts,
            buffers: config.buffers,
            claims: old.map_or_else(|| Claims::new(config.publish_takeover), |old| Arc::clone(&old.claims)),
            publish_hold: config.publish_hold,
            held_bytes: old.map(|old| Arc::clone(&old.held_bytes)).unwrap_or_default(),
            telemetry: staff.telemetry.clone(),
            sessions: old.map_or_else(|| Arc::new(AtomicU64::new(0)), |old| Arc::clone(&old.sessions)),
        });
        Ok(Self { config: config.clone(), shared, reachability, views, _checks, _spares })
    }

    /// The upstreams, in their order.
    pub(super) fn targets(&self) -> &[Arc<Target>] {
        self.shared.router.targets()
    }

    /// Targets with their labels, for the breaker.
    pub(super) fn labels(&self) -> Vec<(TargetId, String)> {
        self.targets().iter().map(|target| (target.id, target.label.clone())).collect()
    }

    /// Most accepted sockets.
    pub(super) fn cap(&self) -> usize {
        self.config.connection_limit.max_total_connections as usize + HARD_CAP_EXTRA
    }

    /// Takes a target out of turn, or puts it back. Whether there is such a target.
    pub(super) fn drain_target(&self, target: TargetId, drained: bool) -> bool {
        let known = self.targets().iter().any(|known| known.id == target);
        if known {
            self.shared.router.drained().set(target, drained);
            self.show_drained();
        }
        known
    }

    /// Tells the metrics which targets an operator has drained.
    pub(super) fn show_drained(&self) {
        let drained = self.shared.router.drained();
        let labels = self.targets().iter().filter(|target| drained.holds(target.id)).map(|target| target.label.as_str());
        self.shared.telemetry.metrics().show_drained(&labels.collect());
    }

    /// The upstreams as /status shows them.
    pub(super) fn upstreams(&self) -> Vec<UpstreamView> {
        (self.views)()
    }
}

fn gate(config: &Config, staff: &Staff, old: Option<&Shared>) -> anyhow::Result<Gate> {
    // Where no rate is limited nobody waits for an answer that is always yes.
    let rate_limiter = config.rate_limit.map(|_| staff.rate_limiter.clone());
    let gate = match old {
        Some(old) => old.gate.changed(&config.security, rate_limiter),
        None => Gate::new(&config.security, rate_limiter, staff.supervisor.clone(), staff.tally.clone())
            .map(|gate| gate.timed(staff.telemetry.metrics())),
    };
    gate.context("security.auth_tokens")
}
