//! Which way do the streams take? Through the relay, or past it when the harness itself is checked.

use ::relay::origin::Origin;
use serde_json::json;

use crate::peers::Nginx;
use crate::relay::Relay;

/// The way from clients to one origin.
pub struct Route {
    relay: Option<Relay>,
    address: String,
}

impl Route {
    /// Through a relay that lets everyone in; straight to the origin under `E2E_DIRECT`.
    pub fn to(origin: &Nginx) -> Self {
        if direct() {
            return Self::past_the_relay(origin);
        }
        Self::through(Relay::to(&origin.address()))
    }

    /// The same through a relay that keeps no publisher whose origin has died.
    pub fn to_mortal(origin: &Nginx) -> Self {
        if direct() {
            return Self::past_the_relay(origin);
        }
        Self::through(Relay::start(&origin.address(), json!({ "publish_hold": { "enabled": false } })))
    }

    /// The same to the origin that is embedded in the relay's own library.
    pub fn to_embedded(origin: &Origin) -> Self {
        let address = origin.addr().to_string();
        if direct() { Route { relay: None, address } } else { Self::through(Relay::to(&address)) }
    }

    /// Through this relay.
    pub fn through(relay: Relay) -> Self {
        Route { address: relay.address().to_owned(), relay: Some(relay) }
    }

    /// Straight to the origin: what the tools do without a relay is what they must do with one.
    pub fn past_the_relay(origin: &Nginx) -> Self {
        Route { relay: None, address: origin.address() }
    }

    /// Where `stream` is published and played.
    pub fn url(&self, stream: &str) -> String {
        format!("rtmp://{}/live/{stream}", self.address)
    }

    /// The relay, if there is one on this way.
    pub fn relay(&self) -> Option<&Relay> {
        self.relay.as_ref()
    }

    /// The same, to be shut down.
    pub fn relay_mut(&mut self) -> Option<&mut Relay> {
        self.relay.as_mut()
    }
}

/// Whether the relay is left out of the tests that can do without.
pub fn direct() -> bool {
    std::env::var_os("E2E_DIRECT").is_some()
}
