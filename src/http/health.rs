//! The short answers: who is this, does it run, should clients come?

use actix_web::{HttpResponse, web};
use serde_json::json;

use super::PATHS;
use super::desk::Desk;

pub(super) type Shared = web::Data<Desk>;
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `/`
pub(super) async fn root(desk: Shared) -> HttpResponse {
    let uptime_seconds = desk.uptime().as_secs();
    HttpResponse::Ok().json(json!({ "service": "relay", "version": VERSION, "uptime_seconds": uptime_seconds, "paths": PATHS }))
}

/// `/health`: 200 while the process runs, also while it drains: sessions are still served.
pub(super) async fn health(desk: Shared) -> HttpResponse {
    let draining = desk.sources().readiness.is_draining();
    let status = if draining { "draining" } else { "ok" };
    HttpResponse::Ok().json(json!({ "status": status, "uptime_seconds": desk.uptime().as_secs() }))
}

/// `/livez`
pub(super) async fn livez() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": "ok" }))
}

/// `/ready`
pub(super) async fn ready(desk: Shared) -> HttpResponse {
    match desk.sources().readiness.check().await {
        Ok(()) => HttpResponse::Ok().json(json!({ "ready": true })),
        Err(why) => {
            let body = json!({ "ready": false, "reason": why.reason(), "message": why.to_string() });
            HttpResponse::ServiceUnavailable().json(body)
        }
    }
}

/// `/version`
pub(super) async fn version() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "service": "relay", "version": VERSION }))
}
