//! What only the application can do: it is asked over a queue, and the answer is told as JSON.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Body, Hall, refused, whole, wrong};
use crate::config::{Change, Finding, LogLevel, View};

/// Something to be done.
#[derive(Debug)]
pub enum Order {
    /// Read the configuration again.
    Reload,
    /// Empty the relay and end.
    Drain,
    /// Say how much is logged, or change it.
    LogLevel(Option<LogLevel>),
    /// Say what this configuration would change.
    Compare(Box<View>),
}

/// What came of it.
#[derive(Debug)]
pub enum Answer {
    /// The configuration was read again.
    Reloaded {
        /// One of [`labels::CONFIG_RELOADS`](crate::telemetry::labels::CONFIG_RELOADS).
        result: &'static str,
        /// What differs.
        changes: Vec<Change>,
        /// What is worth a look.
        warnings: Vec<Finding>,
        /// Why nothing changed.
        error: Option<String>,
    },
    /// It drains.
    Draining,
    /// What is logged now.
    LogLevel(LogLevel),
    /// What would change.
    Compared(Vec<Change>),
    /// It cannot be done here.
    Cannot(&'static str),
}

/// An order with the way back for its answer.
#[derive(Debug)]
pub struct Asked {
    /// What is to be done.
    pub order: Order,
    /// Where to say what came of it. Whoever asked may be gone.
    pub answer: oneshot::Sender<Answer>,
}

async fn ask(hall: &Hall, order: Order) -> Result<Answer, HttpResponse> {
    let (answer, answered) = oneshot::channel();
    let busy = |text| refused(StatusCode::SERVICE_UNAVAILABLE, text);
    hall.orders.try_send(Asked { order, answer }).map_err(|_| busy("the relay is busy with other orders, or ending"))?;
    match answered.await {
        Ok(Answer::Cannot(why)) => Err(refused(StatusCode::CONFLICT, why)),
        Ok(answer) => Ok(answer),
        Err(_) => Err(busy("the relay is ending")),
    }
}

/// The answer, told in one way; another one than was asked for is a bug of ours, and says so.
async fn told(hall: Hall, order: Order, tell: impl FnOnce(Answer) -> Option<HttpResponse>) -> HttpResponse {
    match ask(&hall, order).await {
        Ok(answer) => {
            tell(answer).unwrap_or_else(|| refused(StatusCode::INTERNAL_SERVER_ERROR, "the answer was to another question"))
        }
        Err(refusal) => refusal,
    }
}

fn change(change: &Change) -> Value {
    let Change { path, effect, text } = change;
    json!({ "path": path, "effect": effect.as_str(), "text": text, "words": change.to_string() })
}

/// `POST /admin/reload`
pub(super) async fn reload(hall: Hall) -> HttpResponse {
    told(hall, Order::Reload, |answer| {
        let Answer::Reloaded { result, changes, warnings, error } = answer else { return None };
        let status = if error.is_none() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
        let changes: Vec<Value> = changes.iter().map(change).collect();
        let warnings: Vec<Value> = warnings.iter().map(|Finding { at, text }| json!({ "at": at, "text": text })).collect();
        Some(
            HttpResponse::build(status)
                .json(json!({ "result": result, "changes": changes, "warnings": warnings, "error": error })),
        )
    })
    .await
}

/// `POST /admin/drain`
pub(super) async fn drain(hall: Hall) -> HttpResponse {
    told(hall, Order::Drain, |answer| {
        matches!(answer, Answer::Draining).then(|| HttpResponse::Accepted().json(json!({ "draining": true })))
    })
    .await
}

/// `GET /admin/log-level`
pub(super) async fn level(hall: Hall) -> HttpResponse {
    told(hall, Order::LogLevel(None), tell_level).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    level: LogLevel,
}

/// `PUT /admin/log-level`
pub(super) async fn set_level(hall: Hall, body: Body) -> HttpResponse {
    let body = match whole(body) {
        Ok(body) => body,
        Err(refusal) => return refusal.into(),
    };
    match serde_json::from_slice(&body) {
        Ok(Wanted { level }) => told(hall, Order::LogLevel(Some(level)), tell_level).await,
        Err(_) => wrong(
            &String::from_utf8_lossy(&body),
            "{\"level\": \"info\"}, or \"error\", \"warn\", \"debug\", \"trace\" in its place",
        ),
    }
}

fn tell_level(answer: Answer) -> Option<HttpResponse> {
    let Answer::LogLevel(level) = answer else { return None };
    Some(HttpResponse::Ok().json(json!({ "level": level.as_str() })))
}

/// `GET /admin/config`
pub(super) async fn config(hall: Hall) -> HttpResponse {
    HttpResponse::Ok().json(crate::http::status::Config::from((hall.sources.config)()))
}

/// `POST /admin/config/compare`. Of secrets only keyed digests come in, and only whether they are equal goes out.
pub(super) async fn compare(hall: Hall, body: Body) -> HttpResponse {
    let body = match whole(body) {
        Ok(body) => body,
        Err(refusal) => return refusal.into(),
    };
    // What was found is not repeated: it is somebody's configuration.
    let Ok(view) = serde_json::from_slice::<View>(&body) else {
        return refused(
            StatusCode::BAD_REQUEST,
            "the body is not what `relay --check CONFIG --against URL` of this version sends",
        );
    };
    told(hall, Order::Compare(Box::new(view)), |answer| {
        let Answer::Compared(changes) = answer else { return None };
        Some(HttpResponse::Ok().json(json!({ "changes": changes.iter().map(change).collect::<Vec<_>>() })))
    })
    .await
}
