//! `/status`: the one owner of its JSON shape.

mod page;
mod sessions;
mod upstreams;

use std::time::{Instant, SystemTime};

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;

use super::health::Shared;

pub(super) use page::{Clocks, Page};
pub(super) use sessions::Choice;

/// `/status?limit=&offset=&stream=`
pub(super) async fn status(request: HttpRequest, desk: Shared) -> HttpResponse {
    let choice = match web::Query::<Choice>::from_query(request.query_string()) {
        Ok(choice) => choice.into_inner(),
        Err(_) => {
            let error = "limit and offset are whole numbers, stream is a name: /status?limit=100&offset=0&stream=live/cam";
            return HttpResponse::BadRequest().json(json!({ "error": error }));
        }
    };
    let round = desk.ask().await;
    let clocks = Clocks { now: Instant::now(), wall: SystemTime::now() };
    HttpResponse::Ok().json(Page::new(desk.sources(), &round, &choice, clocks))
}
