//! Sessions: which are there, and one of them ended.

use std::collections::HashSet;
use std::time::{Instant, SystemTime};

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;

use super::{Hall, refused, wrong};
use crate::admission::supervisor::{Kick, KickSome, Manner};
use crate::http::desk::Desk;
use crate::http::status::{Choice, Clocks, Rows};
use crate::telemetry::SessionId;

/// The label of a session that an operator has ended.
const REASON: &str = "operator";

/// `GET /admin/sessions?stream=&client=&state=&limit=&offset=`
pub(super) async fn list(request: HttpRequest, desk: web::Data<Desk>) -> HttpResponse {
    let Ok(choice) = web::Query::<Choice>::from_query(request.query_string()) else {
        return wrong(request.query_string(), Choice::FORM);
    };
    let round = desk.ask().await;
    match &round.connections {
        Ok(standing) => {
            let clocks = Clocks { now: Instant::now(), wall: SystemTime::now() };
            let rows = Rows::choose(&standing.sessions, &choice, &desk.sources().telemetry, clocks);
            HttpResponse::Ok().json(json!({
                "total": standing.sessions.len(),
                "matching": rows.matching,
                "offset": rows.offset,
                "limit": rows.limit,
                "sessions": rows.rows,
            }))
        }
        Err(why) => refused(StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

/// `DELETE /admin/sessions/{id}`
pub(super) async fn close(hall: Hall, id: web::Path<String>) -> HttpResponse {
    let Ok(number) = id.parse() else { return wrong(&id, "the number of a session: GET /admin/sessions has them") };
    let kick = Kick { reason: REASON, manner: Manner::Now };
    match hall.sessions.send(KickSome { sessions: HashSet::from([SessionId(number)]), kick }).await {
        Ok(0) => refused(
            StatusCode::NOT_FOUND,
            format!("session {number} is not there (any more): GET /admin/sessions has those that are"),
        ),
        Ok(_) => HttpResponse::Ok().json(json!({ "closed": number })),
        Err(_) => refused(StatusCode::SERVICE_UNAVAILABLE, "the actor has ended"),
    }
}
