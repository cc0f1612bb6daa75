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

/// `action` of `rtmp_relay_streams`.
pub const ACTIONS: [&str; 2] = [PUBLISH, PLAY];
pub(super) const PUBLISH: &str = "publish";
pub(super) const PLAY: &str = "play";

/// `actor` of `rtmp_relay_actor_wait_seconds`.
pub const ACTORS: [&str; 4] = ["supervisor", "rate_limiter", "breaker", "collector"];

/// `error_type` of `rtmp_relay_upstream_errors_total`: the kinds of a failed dial, then what can go wrong behind it.
pub const ERROR_TYPES: [&str; 23] = [
    "dns",
    "guard",
    "self",
    "connect_refused",
    "connect_timeout",
    "connect_other",
    "dial_queue",
    "local",
    "tls_untrusted",
    "tls_expired",
    "tls_wrong_name",
    "tls_certificate",
    "tls_refused",
    "tls_protocol",
    "tls_closed",
    "tls_timeout",
    "handshake",
    "handshake_timeout",
    "protocol",
    LOGIN,
    REFUSED,
    CLOSED,
    LOST,
];
/// An upstream that asked who we are, and did not let us in.
pub(super) const LOGIN: &str = "login";
/// An upstream that said no.
pub(super) const REFUSED: &str = "refused";
/// An upstream that said no by closing.
pub(super) const CLOSED: &str = "closed";
/// An upstream that went away while it relayed.
pub(super) const LOST: &str = "lost";

/// `result` of `rtmp_relay_tls_certificate_reloads_total`.
pub const RELOADS: [&str; 2] = [LOADED, REFUSED];
pub(super) const LOADED: &str = "loaded";

/// `result` of `rtmp_relay_upstream_pool_total`.
pub const POOL: [&str; 3] = ["hit", "miss", "stale"];

/// `reason` of `rtmp_relay_rejections_total`.
pub const REJECTIONS: [&str; 16] = [
    "proxy_untrusted",
    "proxy_missing",
    "bad_name",
    NO_ROUTE,
    NO_UPSTREAM_OF_FAMILY,
    UPSTREAM_FULL,
    "denied_network",
    "network_not_allowed",
    RATE_LIMIT,
    MAX_TOTAL,
    MAX_PER_IP,
    AUTH,
    "already_publishing",
    "draining",
    HARD_CAP,
    "unavailable",
];
const NO_ROUTE: &str = "no_route";
const NO_UPSTREAM_OF_FAMILY: &str = "no_upstream_of_family";
const UPSTREAM_FULL: &str = "upstream_full";
pub(super) const RATE_LIMIT: &str = "rate_limit";
pub(super) const MAX_TOTAL: &str = "max_total";
pub(super) const MAX_PER_IP: &str = "max_per_ip";
pub(super) const AUTH: &str = "auth";
pub(super) const HARD_CAP: &str = "hard_cap";

/// `side` and `reason` of `rtmp_relay_sessions_ended_total`.
pub const ENDINGS: [(Side, &[&str]); 3] =
    [(Side::Client, CLIENT_ENDS), (Side::Upstream, UPSTREAM_ENDS), (Side::Relay, RELAY_ENDS)];

const CLIENT_ENDS: &[&str] = &[
    // As it should be.
    "client_closed",
    "client_reset",
    "client_left",
    "empty",
    // Too slow.
    "handshake_timeout",
    "command_timeout",
    "idle_timeout",
    "player_idle_timeout",
    "client_not_reading",
    // Not what this port speaks.
    "tls_on_plain_port",
    "plain_on_tls_port",
    "tls_handshake",
    "tls_client_cert",
    "tls_untrusted",
    "http_on_rtmp_port",
    "rtmpt",
    "rtsp_over_http",
    "stray_rtsp_frame",
    "not_rtmp",
    "rtmpe",
    "proxy_malformed",
    // Not as RTMP has it.
    "malformed_command",
    "command_out_of_order",
    "too_many_commands",
    "tiny_ack_window",
    "chunk_without_header",
    "chunk_mid_message",
    "too_many_chunk_streams",
    "message_too_long",
    "chunk_size_zero",
    "short_control_message",
    "too_many_chunks",
    "too_much_partial",
    // Not as RTSP has it.
    "malformed_rtsp",
    "rtsp_message_too_long",
    "unexpected_rtsp_frame",
    "too_many_rtsp_requests",
];

const UPSTREAM_ENDS: &[&str] = &[
    // While it relayed.
    "upstream_closed",
    "upstream_reset",
    "upstream_not_reading",
    "upstream_protocol_error",
    "hold_expired",
    // Before.
    "upstream_refused",
    "upstream_login",
    "dns",
    "connect_refused",
    "connect_timeout",
    "connect_other",
    "tls_untrusted",
    "tls_expired",
    "tls_wrong_name",
    "tls_certificate",
    "tls_refused",
    "tls_protocol",
    "tls_closed",
    "tls_timeout",
    "dial_queue",
    "local",
    "retry_attempts",
    "retry_timeout",
    "circuit_open",
];

const RELAY_ENDS: &[&str] = &[
    "shutdown",
    "drained",
    "token_revoked",
    "operator",
    "panic",
    "socket",
    "guard",
    "self",
    "refused",
    "auth_challenge",
    "bad_name",
    NO_ROUTE,
    NO_UPSTREAM_OF_FAMILY,
    UPSTREAM_FULL,
    "taken_over",
    "already_publishing",
    "second_publish_refused",
    "second_play_refused",
    "proxy_untrusted",
    "proxy_missing",
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

/// `result` of `rtmp_relay_config_reloads_total`.
pub const CONFIG_RELOADS: [&str; 4] = ["applied", "unchanged", "invalid", "refused"];

/// `action` of `rtmp_relay_admin_actions_total`: what an operator asked for.
pub const ADMIN_ACTIONS: [&str; 10] = [
    "close_session",
    "drain_target",
    "enable_target",
    "reset_circuit",
    "reset_all_circuits",
    "compare",
    "reload",
    "drain",
    "log_level",
    UNKNOWN_ACTION,
];
/// A request that stands for no action, with a method that would.
pub const UNKNOWN_ACTION: &str = "unknown";

/// `result` of `rtmp_relay_admin_actions_total`.
pub const ADMIN_RESULTS: [&str; 4] = ["done", "refused", "failed", "left"];

/// `reason` of `rtmp_relay_admin_refusals_total`.
pub const ADMIN_REFUSALS: [&str; 5] = ["network", "token", "not_here", "browser", "content_type"];

/// `result` of `rtmp_relay_publish_holds_over_total`.
pub const HOLDS: [&str; 4] = ["resumed", "expired", "refused", "ended"];

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
