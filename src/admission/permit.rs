//! The right to be here, from admission until the session ends.

use actix::Recipient;

use super::buckets::Counted;
use super::ledger::Given;
use super::supervisor::Release;

/// One place among the connections, given back exactly once: when this is dropped, on whatever path the session ends.
#[derive(Debug)]
#[must_use = "the place is given back when this is dropped"]
pub struct Permit {
    given: Given,
    supervisor: Recipient<Release>,
    /// Whether it took nothing from the address's rate.
    passed: bool,
}

impl Permit {
    pub(super) fn new(given: Given, supervisor: Recipient<Release>) -> Self {
        Self { given, supervisor, passed: false }
    }

    /// The same for a connection that was counted with another.
    pub(super) fn counted(mut self, counted: Counted) -> Self {
        self.passed = counted == Counted::WithAnother;
        self
    }

    /// Whether its connection belongs to a login whose beginning was counted: see [`super::Gate::expect_again`].
    pub(super) fn passed(&self) -> bool {
        self.passed
    }

    /// Whether a log line should now say so: this permit filled its address, for the first
    /// time in some minutes.
    pub fn fills_address(&self) -> bool {
        self.given.fills_address
    }
}

impl Drop for Permit {
    /// The one `do_send`: its senders are bounded by the permits, and it is silent where Supervisor is gone.
    fn drop(&mut self) {
        self.supervisor.do_send(Release { place: self.given.place });
    }
}
