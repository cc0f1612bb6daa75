//! What may an operator have done, over HTTP?
//!
//! A server of its own, on an address of its own: JSON in, JSON out, described by docs/openapi.json. `door` judges who asks, `orders`
//! hands to the application what only that can do. Each action leaves a log line with who asked for it.

mod door;
mod orders;
mod sessions;
mod targets;

use std::future::ready;
use std::net::TcpListener;
use std::sync::Arc;

use actix::Recipient;
use actix_web::guard::{Guard, GuardContext};
use actix_web::http::{StatusCode, header};
use actix_web::middleware::{DefaultHeaders, from_fn};
use actix_web::{App, Error, HttpRequest, HttpResponse, HttpServer, Route, web};
use ipnetwork::IpNetwork;
use secrecy::SecretString;
use serde_json::json;

use super::desk::Desk;
use super::{HttpError, PATIENCE, SHUTDOWN_SECONDS, Served, Sources};
use crate::admission::supervisor::KickSome;
use crate::tls;
use crate::upstream::{TargetId, breaker};

pub use orders::{Answer, Asked, Order};

/// Open connections of operators; more wait in the kernel.
const MAX_CONNECTIONS: usize = 64;
/// Longest body, bytes: a configuration's keys with their values.
const MAX_BODY: usize = 256 * 1024;
/// Characters of what was found that an error repeats.
const MAX_SHOWN: usize = 64;
/// Orders that wait for the application; one more is told to come back.
pub const MAX_ORDERS: usize = 16;

/// What a request that only looks is called.
const LOOKS: &str = "";
/// Every method and path there is, as docs/openapi.json has them, and what the log and the metrics call it.
pub const ROUTES: [(&str, &str, &str); 14] = [
    ("GET", "/admin", LOOKS),
    ("GET", "/admin/sessions", LOOKS),
    ("DELETE", "/admin/sessions/{id}", "close_session"),
    ("GET", "/admin/targets", LOOKS),
    ("POST", "/admin/targets/{id}/drain", "drain_target"),
    ("POST", "/admin/targets/{id}/enable", "enable_target"),
    ("POST", "/admin/targets/{id}/reset", "reset_circuit"),
    ("POST", "/admin/breaker/reset", "reset_all_circuits"),
    ("GET", "/admin/config", LOOKS),
    ("POST", "/admin/config/compare", "compare"),
    ("POST", "/admin/reload", "reload"),
    ("POST", "/admin/drain", "drain"),
    ("GET", "/admin/log-level", LOOKS),
    ("PUT", "/admin/log-level", "log_level"),
];

/// Whom the server asks to act. Cheap to clone.
#[derive(Clone)]
pub struct Controls {
    /// Whom it asks how things stand.
    pub sources: Sources,
    /// Ends sessions.
    pub sessions: Recipient<KickSome>,
    /// Closes circuits.
    pub breaker: Recipient<breaker::Reset>,
    /// Takes a target out of turn, or puts it back; whether there is such a target. Must not block.
    pub drain_target: Arc<dyn Fn(TargetId, bool) -> bool + Send + Sync>,
    /// What only the application can do.
    pub orders: tokio::sync::mpsc::Sender<Asked>,
}

/// What a request must show. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Key(door::Key);

impl Key {
    /// A token, or none: then only this machine may ask. And from where; an empty list lets everyone.
    pub fn new(token: Option<&SecretString>, allowed: Vec<IpNetwork>) -> Self {
        Self(door::Key::new(token, allowed))
    }

    /// Asks for another one from now on.
    pub fn change(&self, token: Option<&SecretString>, allowed: Vec<IpNetwork>) {
        self.0.change(token, allowed);
    }
}

type Hall = web::Data<Controls>;

/// Starts the server on a thread of its own. It answers on `listener`, which is non-blocking; in private where there is `tls`.
///
/// # Errors
/// [`HttpError`].
pub fn serve(listener: TcpListener, key: &Key, tls: Option<&tls::Server>, controls: Controls) -> Result<Served, HttpError> {
    let key = key.0.clone();
    let private = tls.map(tls::Server::for_http);
    super::launch("relay-admin", listener, move |listener| {
        let app = move || {
            let desk = web::Data::new(Desk::new(controls.sources.clone(), PATIENCE));
            let guard = door::Door { key: key.clone(), telemetry: controls.sources.telemetry.clone() };
            App::new()
                .wrap(from_fn(door::pass))
                .wrap(DefaultHeaders::new().add(("Cache-Control", "no-store")).add(("X-Content-Type-Options", "nosniff")))
                .app_data(web::ThinData(guard))
                .app_data(web::PayloadConfig::new(MAX_BODY))
                .app_data(web::Data::new(controls.clone()))
                .app_data(desk)
                .configure(routes)
        };
        let server = HttpServer::new(app).workers(1).disable_signals().max_connections(MAX_CONNECTIONS);
        let server = server.shutdown_timeout(SHUTDOWN_SECONDS);
        let server = match private {
            None => server.listen(listener),
            Some(config) => server.listen_rustls_0_23(listener, config),
        };
        server.map(HttpServer::run)
    })
}

fn routes(app: &mut web::ServiceConfig) {
    for path in paths() {
        let mut resource = web::resource(path);
        for (method, ..) in ROUTES.into_iter().filter(|(_, of, _)| *of == path) {
            resource = resource.route(route(method, path));
        }
        app.service(resource.default_service(web::to(move |request: HttpRequest| ready(wrong_method(&request, path)))));
    }
    app.default_service(web::to(unknown));
}

/// Every path once.
fn paths() -> Vec<&'static str> {
    let mut paths: Vec<&str> = ROUTES.iter().map(|(_, path, _)| *path).collect();
    paths.dedup();
    paths
}

fn route(method: &'static str, path: &str) -> Route {
    let route = web::route().guard(Is(method));
    match (method, path) {
        ("GET", "/admin/sessions") => route.to(sessions::list),
        ("DELETE", _) => route.to(sessions::close),
        ("GET", "/admin/targets") => route.to(targets::list),
        (_, "/admin/targets/{id}/drain") => route.to(targets::drain),
        (_, "/admin/targets/{id}/enable") => route.to(targets::enable),
        (_, "/admin/targets/{id}/reset") => route.to(targets::reset),
        (_, "/admin/breaker/reset") => route.to(targets::reset_all),
        ("GET", "/admin/config") => route.to(orders::config),
        (_, "/admin/config/compare") => route.to(orders::compare),
        (_, "/admin/reload") => route.to(orders::reload),
        (_, "/admin/drain") => route.to(orders::drain),
        ("GET", "/admin/log-level") => route.to(orders::level),
        ("PUT", _) => route.to(orders::set_level),
        _ => route.to(index),
    }
}

/// One method.
struct Is(&'static str);

impl Guard for Is {
    fn check(&self, context: &GuardContext<'_>) -> bool {
        context.head().method.as_str() == self.0
    }
}

async fn index() -> HttpResponse {
    let routes: Vec<String> = ROUTES.iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    HttpResponse::Ok().json(json!({ "service": "relay", "version": env!("CARGO_PKG_VERSION"), "routes": routes }))
}

async fn unknown() -> HttpResponse {
    let paths = paths();
    HttpResponse::NotFound()
        .json(json!({ "error": "there is nothing at this path; GET /admin lists what there is", "paths": paths }))
}

fn wrong_method(request: &HttpRequest, path: &'static str) -> HttpResponse {
    let methods: Vec<&str> = ROUTES.iter().filter(|(_, of, _)| *of == path).map(|(method, ..)| *method).collect();
    let error = format!("found {}; expected {}", shown(request.method().as_str()), methods.join(" or "));
    HttpResponse::MethodNotAllowed().insert_header((header::ALLOW, methods.join(", "))).json(json!({ "error": error }))
}

/// A refusal of what was asked.
fn refused(status: StatusCode, error: impl std::fmt::Display) -> HttpResponse {
    HttpResponse::build(status).json(json!({ "error": error.to_string() }))
}

/// Something else was found than would be right.
fn wrong(found: &str, expected: &str) -> HttpResponse {
    refused(StatusCode::BAD_REQUEST, format!("found {}; expected {expected}", shown(found)))
}

/// What somebody sent, told back to him: no more of it than helps.
fn shown(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// The body, whole.
type Body = Result<web::Bytes, Error>;

/// Why something cannot be done.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    error: String,
}

impl From<Refusal> for HttpResponse {
    fn from(Refusal { status, error }: Refusal) -> Self {
        refused(status, error)
    }
}

/// # Errors
/// Whoever sends too much, or stops in the middle.
fn whole(body: Body) -> Result<web::Bytes, Refusal> {
    body.map_err(|error| match error.as_response_error().status_code() {
        status @ StatusCode::PAYLOAD_TOO_LARGE => {
            Refusal { status, error: format!("the body is too long; expected at most {MAX_BODY} bytes") }
        }
        _ => Refusal { status: StatusCode::BAD_REQUEST, error: "the body did not come whole".to_owned() },
    })
}

#[cfg(test)]
#[path = "admin/tests.rs"]
mod tests;
