//! Pure: how a relay that runs is changed, drained and asked.

use std::fmt;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use crate::config::ListenAddr;

/// The door of operators.
#[derive(Clone, Default)]
pub struct Admin {
    /// Where /admin answers; `None` turns it off. A loopback address, unless there is a token.
    pub address: Option<ListenAddr>,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// What every request must show.
    pub token: Option<SecretString>,
}

impl PartialEq for Admin {
    fn eq(&self, other: &Self) -> bool {
        let token = |admin: &Self| admin.token.as_ref().map(|token| token.expose_secret().to_owned());
        (self.address, self.tls) == (other.address, other.tls) && token(self) == token(other)
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("address", &self.address).field("token", &self.token.is_some()).finish()
    }
}

/// How a new configuration is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reload {
    /// How often the file is looked at; `None` never.
    pub watch: Option<Duration>,
    /// Whether the rest applies where a change needs a restart.
    pub partial: bool,
    /// Whether sessions end whose token is there no more.
    pub revoke_live: bool,
}

/// How the relay empties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// How long clients are accepted after readiness has said no.
    pub delay: Duration,
    /// Over how long sessions are told to go, one by one; at most [`Timeouts::shutdown`](super::Timeouts::shutdown).
    pub spread: Duration,
}
