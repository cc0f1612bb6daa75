//! Pure: is what is said of upstreams sound: which there are, how they are checked, how many connections are kept?

use ipnetwork::IpNetwork;

use super::{Check, narrow, resolve, seconds, size};
use crate::config::file::{File, HealthCheckSection, PoolSection};
use crate::config::routing::Routing;
use crate::config::settings::{HealthCheck, Pool, ProxyProtocol, Route, Upstream};

impl Check<'_> {
    pub(super) fn upstreams(&mut self, file: &File, allowed: &[IpNetwork]) -> (Vec<Upstream>, Vec<Route>) {
        let (judge, intact) = (self.facts.judge, self.intact(&["upstream", "upstreams"]));
        let Routing { mut upstreams, routes, errors, warnings } = Routing::judge(file, intact, |url| judge(url, allowed));
        errors.into_iter().for_each(|(path, text)| self.error(&path, text));
        warnings.into_iter().for_each(|(path, text)| self.warn(&path, text));
        for file in upstreams.iter_mut().filter_map(|upstream| upstream.ca_file.as_mut()) {
            *file = resolve(self.facts.base, self.facts.origin, "upstreams", &file.to_string_lossy());
        }
        if upstreams.is_empty() && file.upstreams.is_none() && intact {
            self.error(
                "upstream",
                "is missing: where should streams go? expected \"rtmp://host[:port][/app]\" here or in the variable UPSTREAM",
            );
        }
        self.pools(file, &mut upstreams);
        (upstreams, routes)
    }

    /// Spare connections: what is said of all, unless something is said of one.
    fn pools(&mut self, file: &File, upstreams: &mut [Upstream]) {
        let all = self.pool("pool", &file.pool);
        for (at, upstream) in upstreams.iter_mut().enumerate() {
            let own = file.upstreams.iter().flatten().nth(at).and_then(|raw| raw.pool.as_ref());
            upstream.pool = own.map_or(all, |own| self.pool(&format!("upstreams[{at}].pool"), own));
            if upstream.pool.is_some() && upstream.proxy_protocol != ProxyProtocol::Off {
                let text = "does not go with `pool`: a spare connection has no client yet whom its header could name; expected \"off\", or \"pool\": {\"max_idle\": 0} for this upstream";
                self.error(&format!("upstreams[{at}].proxy_protocol"), text);
            }
        }
    }

    fn pool(&mut self, path: &str, section: &PoolSection) -> Option<Pool> {
        let (min_idle, max_idle) = (size(section.min_idle), size(section.max_idle));
        let keys = [format!("{path}.min_idle"), format!("{path}.max_idle")];
        if min_idle > max_idle && self.intact(&keys.each_ref().map(String::as_str)) {
            self.error(
                &keys[0],
                format!("found {min_idle}, more than max_idle ({max_idle}); expected max_idle to be as much at least"),
            );
        }
        (max_idle > 0).then_some(Pool { min_idle, max_idle, max_idle_time: section.max_idle_time.0 })
    }

    pub(super) fn health_check(&mut self, section: &HealthCheckSection) -> Option<HealthCheck> {
        let HealthCheckSection { enabled, interval_sec, timeout_sec, rise, fall, kind } = *section;
        let times = ["upstream_health_check.interval_sec", "upstream_health_check.timeout_sec"];
        if enabled && timeout_sec > interval_sec && self.intact(&times) {
            let text = format!(
                "found {timeout_sec}, longer than interval_sec ({interval_sec}): a silent upstream is checked less often"
            );
            self.warn("upstream_health_check.timeout_sec", text);
        }
        enabled.then(|| HealthCheck {
            interval: seconds(interval_sec),
            timeout: seconds(timeout_sec),
            rise: narrow(rise),
            fall: narrow(fall),
            kind,
        })
    }
}
