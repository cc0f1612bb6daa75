//! Pure: the words for how a session ended, shared by log, metrics and /status.

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
