//! Pure: how a session ended, in words that the log, the metrics and /status share.

pub use crate::telemetry::{Side, Status};

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
    /// Whether bytes had begun to pass.
    pub relayed: bool,
    /// Whether it ended while its publisher was held, so that the loss of its upstream has been told.
    pub held: bool,
}

impl Outcome {
    /// An ending without more words.
    pub fn new(side: Side, reason: &'static str, status: Status) -> Self {
        Self { side, reason, status, detail: None, relayed: false, held: false }
    }

    /// The same with more words.
    #[must_use]
    pub fn because(mut self, detail: impl ToString) -> Self {
        self.detail = Some(detail.to_string());
        self
    }
}
