//! Pure: how a session ended, in words that the log, the metrics and /status share.

/// Who ended a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Client,
    /// The upstream.
    Upstream,
    /// The relay itself.
    Relay,
}

impl Side {
    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Relay => "relay",
        }
    }
}

/// How a session counts in `rtmp_relay_connections_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It relayed, and neither relay nor upstream was at fault when it ended.
    Success,
    /// Refused by limit, authentication, guard or policy.
    Rejected,
    /// All else.
    Error,
    /// Closed without a byte, as load balancers do; counted apart.
    Empty,
}

impl Status {
    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Rejected => "rejected",
            Self::Error => "error",
            Self::Empty => "empty",
        }
    }
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Who ended it.
    pub side: Side,
    /// Why: one word of a bounded set.
    pub reason: &'static str,
    /// How it counts.
    pub status: Status,
    /// More words for the log, without secrets.
    pub detail: Option<String>,
}

impl Outcome {
    /// An ending without more words.
    pub fn new(side: Side, reason: &'static str, status: Status) -> Self {
        Self { side, reason, status, detail: None }
    }

    /// The same with more words.
    #[must_use]
    pub fn because(mut self, detail: impl ToString) -> Self {
        self.detail = Some(detail.to_string());
        self
    }
}
