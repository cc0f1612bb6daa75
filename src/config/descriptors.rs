//! Pure: how many connections do this process's file descriptors hold?

use super::finding::Finding;
use super::settings::Config;

/// Descriptors beside those of sessions, at worst: 256 connections of HTTP, 64 of operators, 64 sockets that are just being refused, 64
/// look-ups of names, and those of listeners, threads and logs. With fewer, whoever asks for /status could take a client's place.
pub const RESERVE: u64 = 512;

/// What the limit on open files (RLIMIT_NOFILE) means for the connection limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FdBudget {
    /// Descriptors that `max_total_connections` sessions need at worst.
    pub needed: u64,
    /// Connections that can be let in: `max_total_connections`, or what the limit holds.
    pub connections: u32,
    /// What to say when that is fewer than configured.
    pub warning: Option<Finding>,
}

/// Judges `config` against the hard limit on open files (`None`: no limit). An error when not even one connection fits.
pub fn fd_budget(config: &Config, hard_limit: Option<u64>) -> Result<FdBudget, Finding> {
    let wanted = config.connection_limit.max_total_connections;
    let spares = config.upstreams.iter().filter_map(|upstream| upstream.pool).map(|pool| pool.max_idle as u64).sum::<u64>();
    let reserve = RESERVE + spares;
    // A session has two sockets: the client's and the upstream's.
    let needed = 2 * u64::from(wanted) + reserve;
    let limit = hard_limit.unwrap_or(u64::MAX);
    if limit >= needed {
        return Ok(FdBudget { needed, connections: wanted, warning: None });
    }
    let fits = u32::try_from(limit.saturating_sub(reserve) / 2).unwrap_or(u32::MAX);
    let at = "connection_limit.max_total_connections";
    let facts = format!("{wanted} connections need {needed} open files, and the limit (ulimit -Hn, LimitNOFILE=) is {limit}");
    if fits == 0 {
        return Err(Finding::new(at, format!("{facts}; that does not hold a single one")));
    }
    let warning = Some(Finding::new(at, format!("{facts}; only {fits} connections are let in")));
    Ok(FdBudget { needed, connections: fits, warning })
}
