//! Pure: who may come in, who is believed, and where the relay may go.

use std::fmt;

use ipnetwork::IpNetwork;
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::ServerTls;

/// Who may come in, and where the relay may go.
#[derive(Debug, Clone, PartialEq)]
pub struct Security {
    /// Whether a client must show a token.
    pub auth_enabled: bool,
    /// The tokens of `auth_tokens` and of `auth_tokens_file`; no two have the same value.
    pub auth_tokens: Vec<TokenEntry>,
    /// Users with their passwords; no two are the same in both.
    pub users: Vec<UserEntry>,
    /// Where clients without a token are asked for user name and password.
    pub adobe_auth: AdobeAuth,
    /// Key of what is then signed; `None` takes a new random one at each start.
    pub auth_secret: Option<Key>,
    /// Networks clients may come from; empty lets every network.
    pub allowed_clients: Vec<IpNetwork>,
    /// Networks clients may not come from, though allowed above.
    pub denied_clients: Vec<IpNetwork>,
    /// Networks whose PROXY header is believed; empty believes none.
    pub trusted_proxies: Vec<IpNetwork>,
    /// Whether they must send one.
    pub proxy_protocol: ProxyMode,
    /// Non-public networks in which an upstream may stand.
    pub upstream_allowed_networks: Vec<IpNetwork>,
    /// What TLS for clients, or for HTTP, is done with; there if any address asks for it.
    pub tls: Option<ServerTls>,
}

/// A secret of the operator's own. `Debug` prints nothing of it.
#[derive(Debug, Clone)]
pub struct Key(pub SecretString);

// Only ever compared with the operator's own other configuration (reload), never with what a peer sent: no constant time needed.
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.0.expose_secret() == other.0.expose_secret()
    }
}

/// A user and what it opens.
#[derive(Debug, Clone, PartialEq)]
pub struct UserEntry {
    /// What the client says it is, 1 to 96 bytes.
    pub user: String,
    /// Its password as the token, and what that opens.
    pub entry: TokenEntry,
}

/// Where a client that shows no token is asked for user name and password.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AdobeAuth {
    /// Everywhere.
    All,
    /// Nowhere; who begins with it is answered all the same.
    #[default]
    None,
    /// In apps that one of these globs matches, known to compile with `literal_separator`.
    Apps(Vec<String>),
}

/// Whether a connection from a trusted proxy must begin with a PROXY header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProxyMode {
    /// It may: without one the proxy is the client itself.
    Optional,
    /// It must, as the specification has it.
    #[default]
    Required,
}

/// One token and what it opens.
#[derive(Clone)]
pub struct TokenEntry {
    /// What the client shows.
    pub token: SecretString,
    /// What logs call it.
    pub name: String,
    /// Whether it lets publish.
    pub publish: bool,
    /// Whether it lets play.
    pub play: bool,
    /// Globs on "app/stream", known to compile with `literal_separator`; empty opens every stream.
    pub streams: Vec<String>,
}

impl TokenEntry {
    fn parts(&self) -> (&str, &str, bool, bool, &[String]) {
        (self.token.expose_secret(), &self.name, self.publish, self.play, &self.streams)
    }
}

// Only ever compared with the operator's own other configuration (reload), never with what a peer sent: no constant time needed.
impl PartialEq for TokenEntry {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl fmt::Debug for TokenEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Globs may spell out stream keys.
        let streams = self.streams.len();
        let Self { name, publish, play, .. } = self;
        f.debug_struct("TokenEntry")
            .field("name", name)
            .field("publish", publish)
            .field("play", play)
            .field("streams", &streams)
            .finish_non_exhaustive()
    }
}
