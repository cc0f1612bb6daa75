//! Who may ask for what?

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{Method, header};
use actix_web::middleware::Next;
use actix_web::{Error, HttpResponse, web};
use arc_swap::ArcSwap;
use ipnetwork::IpNetwork;
use serde_json::json;

use super::PATHS;

/// Answered for everyone: load balancers ask from anywhere, and nothing of the streams is in them.
const PUBLIC: [&str; 4] = ["/", "/health", "/livez", "/ready"];

/// `http_allowed_networks`. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub(super) struct Door(Arc<ArcSwap<Vec<IpNetwork>>>);

impl Door {
    /// An empty list lets everyone in.
    pub(super) fn new(allowed: Vec<IpNetwork>) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(allowed)))
    }

    /// Changes whom it lets in.
    pub(super) fn allow(&self, allowed: Vec<IpNetwork>) {
        self.0.store(Arc::new(allowed));
    }

    fn lets(&self, path: &str, client: Option<IpAddr>) -> bool {
        let known = client.map(|ip| ip.to_canonical());
        let allowed = self.0.load();
        PUBLIC.contains(&path) || allowed.is_empty() || known.is_some_and(|ip| allowed.iter().any(|net| net.contains(ip)))
    }

    fn judge(&self, request: &ServiceRequest) -> Option<HttpResponse> {
        // Methods can be any word, and would each become a label of a metric.
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            let body = json!({ "error": "only GET and HEAD are answered" });
            return Some(HttpResponse::MethodNotAllowed().insert_header((header::ALLOW, "GET, HEAD")).json(body));
        }
        let client = request.peer_addr().map(|peer| peer.ip());
        (!self.lets(request.path(), client)).then(|| {
            let body = json!({ "error": "http_allowed_networks does not name the network of your address" });
            HttpResponse::Forbidden().json(body)
        })
    }
}

/// The middleware that every request passes first.
pub(super) async fn pass<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let began = Instant::now();
    let refusal = request.app_data::<web::ThinData<Door>>().and_then(|door| door.judge(&request));
    let response = match refusal {
        Some(refusal) => request.into_response(refusal).map_into_right_body(),
        None => next.call(request).await?.map_into_left_body(),
    };
    tell(&response, began);
    Ok(response)
}

/// Only what is known beforehand of the path: the rest may hold names of streams.
fn tell<B>(response: &ServiceResponse<B>, began: Instant) {
    let request = response.request();
    let path = request.match_pattern();
    tracing::debug!(
        event = "http_request",
        client = request.peer_addr().map(tracing::field::display),
        method = %request.method(),
        path = path.as_deref().unwrap_or("unknown"),
        status = response.status().as_u16(),
        duration_ms = began.elapsed().as_millis() as u64,
        "an HTTP request was answered"
    );
}

/// What is not there.
pub(super) async fn unknown() -> HttpResponse {
    HttpResponse::NotFound().json(json!({ "error": "there is nothing at this path", "paths": PATHS }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_is_not_named_sees_health_alone() {
        let door = Door::new(vec!["192.0.2.0/24".parse().unwrap()]);
        let ip = |text: &str| Some(text.parse().unwrap());
        for path in PATHS {
            assert!(door.lets(path, ip("192.0.2.9")));
            assert!(door.lets(path, ip("::ffff:192.0.2.9")), "a mapped address is its v4");
            assert_eq!(door.lets(path, ip("198.51.100.1")), PUBLIC.contains(&path), "{path}");
            assert_eq!(door.lets(path, None), PUBLIC.contains(&path), "{path}");
        }
        assert!(!door.lets("/nothing", ip("198.51.100.1")));
        assert!(Door::new(Vec::new()).lets("/status", None));
    }
}
