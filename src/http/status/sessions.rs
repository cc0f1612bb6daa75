//! The rows of `/status` `.connections.sessions`.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::page::{Clocks, rfc3339, seconds};
use crate::telemetry::{SessionCell, Telemetry, Traffic};

/// Rows in one answer.
const MAX_ROWS: usize = 1000;

/// Which rows are asked for.
#[derive(Debug, Default, Deserialize)]
pub(in crate::http) struct Choice {
    /// At most so many; above [`MAX_ROWS`] it is that.
    pub(in crate::http) limit: Option<usize>,
    /// Not the first so many of those that match.
    pub(in crate::http) offset: Option<usize>,
    /// Only of this stream: its name, `app/stream`, or its fingerprint.
    pub(in crate::http) stream: Option<String>,
}

/// The chosen rows.
pub(super) struct Rows {
    pub(super) matching: usize,
    pub(super) offset: usize,
    pub(super) limit: usize,
    pub(super) rows: Vec<Row>,
}

impl Rows {
    pub(super) fn choose(cells: &[Arc<SessionCell>], choice: &Choice, telemetry: &Telemetry, clocks: Clocks) -> Self {
        let wanted = choice.stream.as_deref().map(|name| {
            let name = name.split('?').next().unwrap_or(name).trim_matches('/');
            (telemetry.fingerprint(name.as_bytes()), name.trim_start_matches('#').to_owned())
        });
        let matches = |cell: &&Arc<SessionCell>| {
            wanted.as_ref().is_none_or(|(of_name, itself)| cell.is_stream(of_name) || cell.is_stream(itself))
        };
        let (offset, limit) = (choice.offset.unwrap_or(0), choice.limit.unwrap_or(MAX_ROWS).min(MAX_ROWS));
        let chosen: Vec<_> = cells.iter().filter(matches).collect();
        let rows = chosen.iter().skip(offset).take(limit).map(|cell| Row::new(cell, clocks)).collect();
        Self { matching: chosen.len(), offset, limit, rows }
    }
}

/// One session.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    id: u64,
    client: SocketAddr,
    proxy: Option<SocketAddr>,
    protocol: Option<&'static str>,
    action: Option<&'static str>,
    app: Option<String>,
    stream: Option<String>,
    fingerprint: Option<String>,
    token: Option<String>,
    upstream: Option<String>,
    upstream_addr: Option<SocketAddr>,
    state: &'static str,
    started_at: String,
    duration_seconds: f64,
    quiet_seconds: f64,
    holds: u64,
    to_upstream: Passed,
    to_client: Passed,
}

/// What passed one way.
#[derive(Debug, Serialize)]
struct Passed {
    bytes: u64,
    messages: u64,
    reads: u64,
    writes: u64,
}

impl Passed {
    fn of(traffic: &Traffic) -> Self {
        Self {
            bytes: traffic.bytes.get(),
            messages: traffic.messages.get(),
            reads: traffic.reads.get(),
            writes: traffic.writes.get(),
        }
    }
}

impl Row {
    fn new(cell: &SessionCell, clocks: Clocks) -> Self {
        let facts = cell.facts();
        Self {
            id: cell.id.0,
            client: cell.client(),
            proxy: cell.proxy(),
            protocol: facts.protocol,
            action: facts.action,
            app: facts.app,
            stream: facts.stream,
            fingerprint: facts.fingerprint,
            token: facts.token_name,
            upstream: facts.upstream,
            upstream_addr: facts.upstream_addr,
            state: cell.state().as_str(),
            started_at: rfc3339(cell.started_at),
            duration_seconds: seconds(clocks.now.saturating_duration_since(cell.started)),
            quiet_seconds: seconds(cell.quiet_for(clocks.now)),
            holds: cell.holds.get(),
            to_upstream: Passed::of(&cell.to_upstream),
            to_client: Passed::of(&cell.to_client),
        }
    }
}
