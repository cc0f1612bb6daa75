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
    /// Only of this client: its address, with or without the port.
    pub(in crate::http) client: Option<String>,
    /// Only those in this state.
    pub(in crate::http) state: Option<String>,
}

impl Choice {
    /// What may be asked.
    pub(in crate::http) const FORM: &str = "limit and offset are whole numbers, stream is a name, client an address, state a word: \
         ?limit=100&offset=0&stream=live/cam&client=192.0.2.1&state=relaying";

    /// Whether `cell` is of the client and in the state that are asked for.
    fn takes(&self, cell: &SessionCell) -> bool {
        let client = cell.client();
        let of_client = |wanted: &String| *wanted == client.to_string() || *wanted == client.ip().to_string();
        self.client.as_ref().is_none_or(of_client) && self.state.as_ref().is_none_or(|wanted| wanted == cell.state().as_str())
    }
}

/// The chosen rows.
pub(in crate::http) struct Rows {
    pub(in crate::http) matching: usize,
    pub(in crate::http) offset: usize,
    pub(in crate::http) limit: usize,
    pub(in crate::http) rows: Vec<Row>,
}

impl Rows {
    pub(in crate::http) fn choose(cells: &[Arc<SessionCell>], choice: &Choice, telemetry: &Telemetry, clocks: Clocks) -> Self {
        let wanted = choice.stream.as_deref().map(|name| {
            let name = name.split('?').next().unwrap_or(name).trim_matches('/');
            (telemetry.fingerprint(name.as_bytes()), name.trim_start_matches('#').to_owned())
        });
        let matches = |cell: &&Arc<SessionCell>| {
            let of_stream = wanted.as_ref().is_none_or(|(of_name, itself)| cell.is_stream(of_name) || cell.is_stream(itself));
            of_stream && choice.takes(cell)
        };
        let (offset, limit) = (choice.offset.unwrap_or(0), choice.limit.unwrap_or(MAX_ROWS).min(MAX_ROWS));
        let chosen: Vec<_> = cells.iter().filter(matches).collect();
        let rows = chosen.iter().skip(offset).take(limit).map(|cell| Row::new(cell, clocks)).collect();
        Self { matching: chosen.len(), offset, limit, rows }
    }
}

/// One session.
#[derive(Debug, Serialize)]
pub(in crate::http) struct Row {
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
