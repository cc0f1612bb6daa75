//! Upstreams: how they are, taken out of turn, put back, their circuits closed.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use serde_json::{Value, json};

use super::{Hall, Refusal, refused, shown};
use crate::http::desk::Desk;
use crate::upstream::{TargetId, breaker};

/// Upstreams that a refusal names.
const MAX_NAMED: usize = 20;

/// `GET /admin/targets`
pub(super) async fn list(desk: web::Data<Desk>) -> HttpResponse {
    let round = desk.ask().await;
    let circuit = |id: TargetId| {
        let circuits = round.circuit_breaker.as_ref().ok()?;
        let row = circuits.targets.iter().find(|row| row.target == id)?;
        Some(json!({ "state": row.view.state.as_str(), "failures": row.view.failures }))
    };
    let row = |view: crate::upstream::UpstreamView| {
        json!({
            "id": view.id.0,
            "target": view.target,
            "name": view.name,
            "sessions": view.sessions,
            "max_connections": view.max_connections,
            "drained": view.drained,
            "health": view.health.state,
            "circuit": circuit(view.id),
        })
    };
    let rows: Vec<Value> = (desk.sources().upstreams)().into_iter().map(row).collect();
    HttpResponse::Ok().json(json!({ "targets": rows }))
}

/// `POST /admin/targets/{id}/drain`
pub(super) async fn drain(hall: Hall, id: web::Path<String>) -> HttpResponse {
    set_drained(&hall, &id, true)
}

/// `POST /admin/targets/{id}/enable`
pub(super) async fn enable(hall: Hall, id: web::Path<String>) -> HttpResponse {
    set_drained(&hall, &id, false)
}

fn set_drained(hall: &Hall, id: &str, drained: bool) -> HttpResponse {
    match target(hall, id) {
        // It may have gone between the two questions.
        Ok(id) if (hall.drain_target)(id, drained) => HttpResponse::Ok().json(json!({ "id": id.0, "drained": drained })),
        Ok(_) => missing(hall, id).into(),
        Err(refusal) => refusal.into(),
    }
}

/// `POST /admin/targets/{id}/reset`
pub(super) async fn reset(hall: Hall, id: web::Path<String>) -> HttpResponse {
    match target(&hall, &id) {
        Ok(id) => close_circuits(&hall, Some(id)).await,
        Err(refusal) => refusal.into(),
    }
}

/// `POST /admin/breaker/reset`
pub(super) async fn reset_all(hall: Hall) -> HttpResponse {
    close_circuits(&hall, None).await
}

async fn close_circuits(hall: &Hall, target: Option<TargetId>) -> HttpResponse {
    match hall.breaker.send(breaker::Reset { target }).await {
        Ok(()) => HttpResponse::Ok().json(json!({ "reset": target.map_or_else(|| json!("all"), |id| json!(id.0)) })),
        Err(_) => refused(StatusCode::SERVICE_UNAVAILABLE, "the actor has ended"),
    }
}

/// The target of this name or number.
fn target(hall: &Hall, id: &str) -> Result<TargetId, Refusal> {
    let views = (hall.sources.upstreams)();
    let named = views.iter().find(|view| view.name.as_deref() == Some(id));
    let numbered = || id.parse().ok().and_then(|id| views.iter().find(|view| view.id == TargetId(id)));
    named.or_else(numbered).map(|view| view.id).ok_or_else(|| missing(hall, id))
}

fn missing(hall: &Hall, id: &str) -> Refusal {
    let views = (hall.sources.upstreams)();
    let known = views.iter().map(|view| view.name.clone().unwrap_or_else(|| view.id.0.to_string())).take(MAX_NAMED);
    let known: Vec<String> = known.collect();
    let more = if views.len() > MAX_NAMED { " and more" } else { "" };
    let error = format!("found {}, no upstream's name or number; expected one of {}{more}", shown(id), known.join(", "));
    Refusal { status: StatusCode::NOT_FOUND, error }
}
