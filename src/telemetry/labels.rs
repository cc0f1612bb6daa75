//! Pure: the words that labels can be, so that each shows its zero from the start.
//!
//! A word that is missing here still counts, from its first happening on; all of them are constants of the program, which is
//! what bounds their number.

use super::Side;

/// `status` of `rtmp_relay_connections_total`.
pub const STATUSES: [&str; 3] = ["success", "error", "rejected"];

/// `direction` of `rtmp_relay_bytes_total`: towards upstreams, towards clients.
pub const DIRECTIONS: [&str; 2] = [UPSTREAM, DOWNSTREAM];
pub(super) const UPSTREAM: &str = "upstream";
pub(super) const DOWNSTREAM: &str = "downstream";

/// `error_type` of `rtmp_relay_upstream_errors_total`: the kinds of a failed dial, then what can go wrong behind it.
pub const ERROR_TYPES: [&str; 14] = [
    "dns",
    "guard",
    "self",
    "connect_refused",
    "connect_timeout",
    "connect_other",
    "dial_queue",
    "local",
    "handshake",
    "handshake_timeout",
    "protocol",
    REFUSED,
    CLOSED,
    LOST,
];
/// An upstream that said no.
pub(super) const REFUSED: &str = "refused";
/// An upstream that said no by closing.
pub(super) const CLOSED: &str = "closed";
/// An upstream that went away while it relayed.
pub(super) const LOST: &str = "lost";

/// `reason` of `rtmp_relay_rejections_total`.
pub const REJECTIONS: [&str; 10] = [
    "bad_name",
    "denied_network",
    "network_not_allowed",
    RATE_LIMIT,
    MAX_TOTAL,
    MAX_PER_IP,
    AUTH,
    "draining",
    HARD_CAP,
    "unavailable",
];
pub(super) const RATE_LIMIT: &str = "rate_limit";
pub(super) const MAX_TOTAL: &str = "max_total";
pub(super) const MAX_PER_IP: &str = "max_per_ip";
pub(super) const AUTH: &str = "auth";
pub(super) const HARD_CAP: &str = "hard_cap";

/// `side` and `reason` of `rtmp_relay_sessions_ended_total`.
pub const ENDINGS: [(Side, &str); 4] = [
    (Side::Client, "client_not_reading"),
    (Side::Client, "idle_timeout"),
    (Side::Client, "player_idle_timeout"),
    (Side::Upstream, "upstream_not_reading"),
];

/// `where` of `rtmp_relay_panics_total`: the rooms and actors that catch one.
pub const PLACES: [&str; 4] = ["session", "rate_limiter", "breaker", "collector"];

/// Value of `rtmp_relay_circuit_state` for a state's word.
pub(super) fn circuit_value(state: &str) -> i64 {
    match state {
        "closed" => 0,
        "half_open" => 1,
        _ => 2,
    }
}
