//! How is that said over HTTP?
//!
//! A small server on a thread of its own: health for machines, /status for people, /metrics for Prometheus. It only asks and
//! never changes anything. /status asks the control actors in parallel, each under a deadline, and shows an answer that did
//! not come as missing.

mod desk;
mod door;
mod facts;
mod health;
mod readiness;
mod status;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::guard::{Any, Get, Head};
use actix_web::middleware::{DefaultHeaders, from_fn};
use actix_web::{App, HttpResponse, HttpServer, web};
use actix_web_prom::{PrometheusMetrics, PrometheusMetricsBuilder};
use ipnetwork::IpNetwork;

pub use facts::{BufferFacts, ConfigFacts, LastReload, ListenerFacts, Sources};
pub use readiness::{NotReady, Reachable, Readiness};

use crate::tls;
use desk::Desk;
use door::Door;

/// Every path that is answered, as `/` and a 404 name them.
const PATHS: [&str; 7] = ["/", "/health", "/livez", "/ready", "/version", "/status", "/metrics"];
/// Answers of an actor that come later than this are missing.
const PATIENCE: Duration = Duration::from_millis(500);
/// Open connections of HTTP clients; more wait in the kernel. The descriptors belong to streams.
const MAX_CONNECTIONS: usize = 256;
/// What requests in progress get at the end.
const SHUTDOWN_SECONDS: u64 = 2;

/// Buckets of the requests' durations, seconds: few, for there is a set of them for each path and status.
const DURATIONS: [f64; 4] = [0.005, 0.05, 0.5, 5.0];

/// How the server is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Networks that may ask for everything; empty lets everyone.
    pub allowed: Vec<IpNetwork>,
    /// Where answers are given in private: whose certificate is shown.
    pub tls: Option<Arc<tls::Server>>,
}

/// Why there is no HTTP server: the machine lacks a thread, or a metric's name stands twice.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP server cannot start: {0}")]
pub struct HttpError(String);

/// A server that runs.
pub struct Served {
    address: SocketAddr,
    handle: ServerHandle,
    door: Door,
}

impl Served {
    /// The bound address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the networks that may ask for everything; empty lets everyone.
    pub fn allow(&self, networks: Vec<IpNetwork>) {
        self.door.allow(networks);
    }

    /// Stops accepting and returns when what was being answered is answered, after 2 s at the latest.
    pub async fn stop(self) {
        self.handle.stop(true).await;
    }
}

/// Starts the server on a thread of its own. It answers on `listener`, which is non-blocking.
///
/// # Errors
/// [`HttpError`].
pub fn serve(listener: TcpListener, settings: &Settings, sources: Sources) -> Result<Served, HttpError> {
    let address = listener.local_addr().map_err(|error| HttpError(error.to_string()))?;
    let metrics = metrics(&sources)?;
    let door = Door::new(settings.allowed.clone());
    let kept = door.clone();
    let private = settings.tls.as_ref().map(|server| server.for_http());
    let (send, receive) = std::sync::mpsc::sync_channel(1);
    let run = move || {
        actix_rt::System::new().block_on(async move {
            let app = move || {
                // Once a worker, and there is one: all requests meet at one desk.
                let desk = web::Data::new(Desk::new(sources.clone(), PATIENCE));
                let (door, metrics) = (door.clone(), metrics.clone());
                App::new()
                    .wrap(metrics)
                    .wrap(from_fn(door::pass))
                    .wrap(headers())
                    .app_data(web::ThinData(door))
                    .configure(|app| routes(app, desk))
            };
            let server = HttpServer::new(app).workers(1).disable_signals().max_connections(MAX_CONNECTIONS);
            let server = server.shutdown_timeout(SHUTDOWN_SECONDS);
            let server = match private {
                None => server.listen(listener),
                Some(config) => server.listen_rustls_0_23(listener, config),
            };
            let server = server.map(HttpServer::run);
            let started = server.as_ref().map(|server| server.handle()).map_err(ToString::to_string);
            // The asker waits for this below; if it is gone, so is the process.
            let _ = send.send(started);
            if let Ok(server) = server {
                let _ = server.await;
            }
        });
    };
    let start = |error: String| HttpError(error);
    std::thread::Builder::new().name("relay-http".into()).spawn(run).map_err(|error| start(error.to_string()))?;
    let handle = receive.recv().map_err(|error| start(error.to_string()))?.map_err(start)?;
    Ok(Served { address, handle, door: kept })
}

/// Counts requests by path, method and status, all three from bounded sets, and answers /metrics.
fn metrics(sources: &Sources) -> Result<PrometheusMetrics, HttpError> {
    PrometheusMetricsBuilder::new("rtmp_relay")
        .registry(sources.telemetry.metrics().registry().clone())
        .endpoint("/metrics")
        .mask_unmatched_patterns("unknown")
        .buckets(&DURATIONS)
        .build()
        .map_err(|error| HttpError(error.to_string()))
}

fn headers() -> DefaultHeaders {
    DefaultHeaders::new().add(("Cache-Control", "no-store")).add(("X-Content-Type-Options", "nosniff"))
}

fn routes(app: &mut web::ServiceConfig, desk: web::Data<Desk>) {
    // Load balancers like HEAD for their checks.
    let read = || web::route().guard(Any(Get()).or(Head()));
    app.app_data(desk)
        .route("/", read().to(health::root))
        .route("/health", read().to(health::health))
        .route("/livez", read().to(health::livez))
        .route("/ready", read().to(health::ready))
        .route("/version", read().to(health::version))
        .route("/status", read().to(status::status))
        // The body is the middleware's; the route is what lets it be counted by its name.
        .route("/metrics", read().to(HttpResponse::Ok))
        .default_service(web::to(door::unknown));
}

#[cfg(test)]
#[path = "http/tests.rs"]
mod tests;
