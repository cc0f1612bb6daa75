//! Who may have something done?
//!
//! Whoever shows the token; or, where there is none, whoever is on this machine. A browser on this machine is not meant: it sends `Origin`
//! with what other sites make it ask, and their names as `Host`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{Method, StatusCode, header};
use actix_web::middleware::Next;
use actix_web::{Error, HttpResponse, web};
use arc_swap::ArcSwap;
use ipnetwork::IpNetwork;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{LOOKS, ROUTES};
use crate::http::door::Door as Networks;
use crate::telemetry::{Telemetry, events, labels};

/// Longest name of a target, and number of a session, that a log line repeats, bytes.
const MAX_OBJECT: usize = 64;

/// What lets somebody in. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub(super) struct Key {
    /// The digest of the token. Comparing digests takes the same time for every token, whatever its length.
    token: Arc<ArcSwap<Option<[u8; 32]>>>,
    networks: Networks,
}

impl Key {
    pub(super) fn new(token: Option<&SecretString>, allowed: Vec<IpNetwork>) -> Self {
        Self { token: Arc::new(ArcSwap::from_pointee(token.map(digest))), networks: Networks::new(allowed) }
    }

    pub(super) fn change(&self, token: Option<&SecretString>, allowed: Vec<IpNetwork>) {
        self.token.store(Arc::new(token.map(digest)));
        self.networks.allow(allowed);
    }
}

fn digest(token: &SecretString) -> [u8; 32] {
    Sha256::digest(token.expose_secret()).into()
}

/// Judges requests, and tells of actions.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) key: Key,
    pub(super) telemetry: Telemetry,
}

/// Why a request is not answered.
struct Refusal {
    status: StatusCode,
    reason: &'static str,
    text: &'static str,
}

const fn refusal(status: StatusCode, reason: &'static str, text: &'static str) -> Refusal {
    Refusal { status, reason, text }
}

impl Door {
    /// What lets the request in: "token" or "loopback".
    fn judge(&self, request: &ServiceRequest) -> Result<&'static str, Refusal> {
        let headers = request.headers();
        let of_a_page = headers.get("Sec-Fetch-Site").is_some_and(|site| site != "none");
        if headers.contains_key(header::ORIGIN) || of_a_page {
            return Err(refusal(StatusCode::FORBIDDEN, "browser", "what a page in a browser asks is not answered"));
        }
        if !self.key.networks.lets("/admin", request.peer_addr().map(|peer| peer.ip())) {
            let text = "http_allowed_networks does not name the network of your address";
            return Err(refusal(StatusCode::FORBIDDEN, "network", text));
        }
        let credential = self.credential(request)?;
        let length = headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
        let json = headers.get(header::CONTENT_TYPE).is_some_and(|kind| {
            let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
            kind.trim().eq_ignore_ascii_case("application/json")
        });
        if (length || headers.contains_key(header::TRANSFER_ENCODING)) && !json {
            return Err(refusal(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "content_type",
                "a body is JSON, and says so: Content-Type: application/json",
            ));
        }
        Ok(credential)
    }

    fn credential(&self, request: &ServiceRequest) -> Result<&'static str, Refusal> {
        if let Some(expected) = &**self.key.token.load() {
            let shown = request.headers().get(header::AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
            let token = match shown.split_at_checked(7) {
                Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => token,
                _ => b"",
            };
            let digest: [u8; 32] = Sha256::digest(token).into();
            return if bool::from(digest.ct_eq(expected)) {
                Ok("token")
            } else {
                Err(refusal(
                    StatusCode::UNAUTHORIZED,
                    "token",
                    "security.admin_token is missing or wrong: Authorization: Bearer ...",
                ))
            };
        }
        let here = request.peer_addr().is_some_and(|peer| peer.ip().to_canonical().is_loopback());
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        if here && means_here(host) {
            Ok("loopback")
        } else {
            let text = "without security.admin_token only this machine may ask, and by an address such as 127.0.0.1";
            Err(refusal(StatusCode::FORBIDDEN, "not_here", text))
        }
    }
}

/// Whether a `Host` names this machine by itself: another name may have been made to point here.
fn means_here(host: &str) -> bool {
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(host, |(name, _)| name);
    let inner = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || inner.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// The middleware that every request passes first.
pub(super) async fn pass<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    // Without a door nobody comes in; there is always one.
    let Some(door) = request.app_data::<web::ThinData<Door>>().map(|door| door.0.clone()) else {
        return Ok(request.into_response(HttpResponse::InternalServerError().finish()).map_into_right_body());
    };
    let client = request.peer_addr();
    let credential = match door.judge(&request) {
        Ok(credential) => credential,
        Err(Refusal { status, reason, text }) => {
            door.telemetry.emit(events::AdminRefused { client, reason });
            let mut answer = HttpResponse::build(status);
            if status == StatusCode::UNAUTHORIZED {
                answer.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
            }
            return Ok(request.into_response(answer.json(json!({ "error": text }))).map_into_right_body());
        }
    };
    let telling = telling(&door.telemetry, &request, credential);
    let response = next.call(request).await?.map_into_left_body();
    if let Some(mut telling) = telling {
        telling.status = Some(response.status().as_u16());
    }
    Ok(response)
}

/// Tells of an action when it is dropped, answered or not: whoever asks may be gone before that.
struct Telling {
    telemetry: Telemetry,
    client: Option<SocketAddr>,
    credential: &'static str,
    action: &'static str,
    object: Option<String>,
    status: Option<u16>,
}

/// `None` for whoever only looks.
fn telling(telemetry: &Telemetry, request: &ServiceRequest, credential: &'static str) -> Option<Telling> {
    if [Method::GET, Method::HEAD].contains(request.method()) {
        return None;
    }
    // Only what is known beforehand of the path: the rest is whatever somebody wrote.
    let path = request.match_pattern().unwrap_or_default();
    let (method, known) = (request.method().as_str(), |action: &&str| *action != LOOKS);
    let action = ROUTES.iter().find(|(of, at, _)| *of == method && *at == path).map(|(.., action)| *action).filter(known);
    let id = path.contains("{id}").then(|| request.path().split('/').nth(3)).flatten();
    let plain = |id: &&str| id.len() <= MAX_OBJECT && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    Some(Telling {
        telemetry: telemetry.clone(),
        client: request.peer_addr(),
        credential,
        action: action.unwrap_or(labels::UNKNOWN_ACTION),
        object: id.filter(plain).map(str::to_owned),
        status: None,
    })
}

impl Drop for Telling {
    fn drop(&mut self) {
        let Self { client, credential, action, status, .. } = *self;
        self.telemetry.emit(events::AdminAction { client, credential, action, object: self.object.as_deref(), status });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_nobody_else_can_own_mean_this_machine() {
        for host in ["127.0.0.1", "127.0.0.1:8081", "localhost:8081", "LOCALHOST", "[::1]:8081", "[::1]", "127.9.9.9:1"] {
            assert!(means_here(host), "{host}");
        }
        for host in
            ["", "relay:8081", "127.0.0.1.example.com", "localhost.example.com:8081", "192.0.2.1:8081", "[::2]:1", "::1:x"]
        {
            assert!(!means_here(host), "{host}");
        }
    }
}
