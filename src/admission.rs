//! May this peer come in now?
//!
//! [`Gate`] is the face for a session: [`Gate::admit`] judges the client's network, its rate and the connection limits and
//! gives a [`Permit`], which holds the place until it is dropped; [`Gate::authenticate`] judges the token once the client has
//! said what it came for. A client that logs in with user name and password is asked by [`Gate::ask`] and judged by
//! [`Gate::login`] before that. Behind it stand two actors, [`RateLimiter`] and [`Supervisor`], over pure cores. [`Claims`] sees
//! to it that a stream has one publisher.

pub mod auth;
mod buckets;
mod challenges;
pub mod claims;
mod gate;
mod hints;
mod key;
mod ledger;
mod networks;
mod passes;
mod permit;
mod proxies;
pub mod rate_limiter;
mod refusal;
pub mod supervisor;
pub mod takeover;
mod teller;

pub use auth::{AuthError, Authenticator, Granted, Login, Proof, TokenId};
pub use buckets::MAX_KEYS;
pub use challenges::Question;
pub use claims::{Claim, Claims, Former, Publisher, Taken};
pub use gate::Gate;
pub use key::IpKey;
pub use networks::Networks;
pub use permit::Permit;
pub use proxies::{Expect, Proxies};
pub use rate_limiter::RateLimiter;
pub use refusal::{Refusal, Tally};
pub use supervisor::Supervisor;
pub use takeover::Party;
pub use teller::{MAX_TELLING, RefusalTeller, Telling};

/// Security that asks for nothing, for tests to begin from.
#[cfg(test)]
fn asks_nothing() -> crate::config::Security {
    crate::config::Security {
        auth_enabled: false,
        auth_tokens: Vec::new(),
        users: Vec::new(),
        adobe_auth: crate::config::AdobeAuth::None,
        auth_secret: None,
        allowed_clients: Vec::new(),
        denied_clients: Vec::new(),
        trusted_proxies: Vec::new(),
        proxy_protocol: crate::config::ProxyMode::Required,
        upstream_allowed_networks: Vec::new(),
        tls: None,
    }
}
