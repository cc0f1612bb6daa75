//! Which upstream takes this stream? Candidates are dialled and told what the client said, until one says yes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::enter::enter;
use super::introduce::{Failure, Introduction};
use super::life::Place;
use super::outcome::{Outcome, Side, Status};
use super::relay::{failure_code, refusal_code};
use super::report;
use crate::admission::{AuthError, Granted, Login};
use crate::protocol::name::{Action, Identity, Names, StreamName};
use crate::protocol::proxy::Ends;
use crate::protocol::rtmp::adobe::LoginError;
use crate::protocol::rtmp::replay::Renamer;
use crate::protocol::rtmp::server::Request;
use crate::upstream::{Ask, Connected, DialPermit, Family, Link, Load, NoRoute, Publication, Seek, SeekError, Target, TargetId};

/// The first wait between two searches, and the longest: each has its own waits between dials.
const AGAIN_FIRST: Duration = Duration::from_millis(100);
const AGAIN_MOST: Duration = Duration::from_secs(1);

/// What a client is told whose upstream does not let the relay in: nothing that it could do about it.
const LOCKED_OUT: &str = "the upstream does not let the relay in: whoever runs the relay finds in its log why";

/// What a client asks for, and is authorised to.
pub(super) struct Asked {
    pub(super) request: Request,
    pub(super) name: StreamName,
    /// What every room calls the stream by.
    pub(super) identity: Identity,
    pub(super) granted: Granted,
    /// Who it has proved to be, for what it asks next.
    pub(super) login: Option<Login>,
}

/// An upstream that took the publish or play.
pub(super) struct Found {
    pub(super) target: Arc<Target>,
    pub(super) connected: Connected,
    pub(super) introduction: Box<Introduction>,
    pub(super) renamer: Renamer,
    pub(super) names: Names,
    pub(super) visit: Visit,
}

/// A session's place at its upstream, and what makes players find its stream there. Given back when dropped.
pub(super) struct Visit {
    _load: Load,
    _publication: Option<Publication>,
}

/// No upstream takes it.
pub(super) struct NotFound {
    /// Code and words for the client.
    pub(super) code: String,
    pub(super) text: String,
    pub(super) outcome: Outcome,
    why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// None could be reached: one may be, later.
    Unreachable,
    /// This one said no; `busy`: in a way that a publication which nobody has told it the end of may be the reason for.
    Refused { by: TargetId, busy: bool },
    /// It would be the same at any time.
    Final,
}

/// When a search is repeated, and where it should not begin.
#[derive(Debug, Default)]
pub(super) struct Again {
    /// The upstream that was lost: it is asked last.
    pub(super) lost: Option<TargetId>,
    /// Upstreams that may still believe in an earlier publication of ours.
    pub(super) ghosts: Vec<TargetId>,
    /// Until when those are asked again.
    pub(super) ghosts_until: Option<Instant>,
    /// Until when upstreams that cannot be reached are tried again.
    pub(super) unreachable_until: Option<Instant>,
}

impl Again {
    fn is_worth_it(&self, why: Why, now: Instant) -> bool {
        match why {
            Why::Unreachable => self.unreachable_until.is_some_and(|until| now < until),
            Why::Refused { by, busy } => busy && self.ghosts.contains(&by) && self.ghosts_until.is_some_and(|until| now < until),
            Why::Final => false,
        }
    }
}

/// Searches, and searches again while `again` says so.
pub(super) async fn find(place: &Place, asked: &Asked, again: &Again, ends: Ends) -> Result<Found, NotFound> {
    let mut wait = AGAIN_FIRST;
    loop {
        let not_found = match find_once(place, asked, again.lost, ends).await {
            Ok(found) => return Ok(found),
            Err(not_found) => not_found,
        };
        if !again.is_worth_it(not_found.why, Instant::now()) {
            return Err(not_found);
        }
        // Those who lost the same upstream at the same time spread.
        sleep(wait.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
        wait = (2 * wait).min(AGAIN_MOST);
    }
}

/// Walks through the candidates until one takes the publish or play.
async fn find_once(place: &Place, asked: &Asked, lost: Option<TargetId>, ends: Ends) -> Result<Found, NotFound> {
    let Asked { request, name, granted, .. } = asked;
    let shared = &place.shared;
    let mut seek = seek(place, asked, lost)?.for_client(ends);
    if lost.is_some() {
        seek = seek.urgent();
    }
    let mut report_step = report::steps(place);
    loop {
        let link = seek.next(&mut report_step).await.map_err(|e| sought_in_vain(place, request.action, &e))?;
        let Link { target, connected, permit, load, deadline } = link;
        report::connected(place, &target, &connected);
        let names = target.address(name, &shared.forward).map_err(|e| unaddressable(place, asked, &e.to_string()))?;
        let renamer = Renamer::new(request, names.clone(), granted.token_name.is_some());
        match enter(place, &seek, &target, (connected, deadline), request, &renamer).await {
            Ok((connected, introduction)) => {
                permit.success();
                introduction.handshake.into_iter().for_each(|took| shared.telemetry.metrics().upstream_handshaken(took));
                let introduction = Box::new(introduction);
                let publishes = request.action == Action::Publish;
                let publication = publishes.then(|| shared.router.publish(&asked.identity, target.id));
                let visit = Visit { _load: load, _publication: publication };
                return Ok(Found { target, connected, introduction, renamer, names, visit });
            }
            Err(Failure::Stale) => seek.stale(target.id),
            Err(failure) => {
                if let Some(not_found) = failed(place, request.action, &target, permit, failure, seek.made()) {
                    return Err(not_found);
                }
                seek.failed();
            }
        }
    }
}

/// Begins the search, along the routes.
fn seek(place: &Place, asked: &Asked, lost: Option<TargetId>) -> Result<Seek, NotFound> {
    let Asked { request, name, identity, .. } = asked;
    let vhost = name.vhost(&request.tc_url);
    let ask = Ask { family: Family::Rtmp, action: request.action, name: identity, vhost: &vhost, lost };
    place.shared.router.seek(&ask).map_err(|no_route| unrouted(place, request.action, no_route))
}

fn unrouted(place: &Place, action: Action, no_route: NoRoute) -> NotFound {
    let text = no_route.to_string();
    report::refused(place, no_route.reason(), &text);
    let outcome = Outcome::new(Side::Relay, no_route.reason(), Status::Rejected);
    NotFound { code: refusal_code(action).to_owned(), text, outcome, why: Why::Final }
}

fn sought_in_vain(place: &Place, action: Action, error: &SeekError) -> NotFound {
    // What policy forbids is refused; all else is the upstream's fault.
    let (side, status, why, text) = match error {
        SeekError::NoRoute(no_route) => return unrouted(place, action, *no_route),
        SeekError::Refused(_) => {
            let text = "the relay's configuration forbids this upstream, trying again will not help";
            (Side::Relay, Status::Rejected, Why::Final, text)
        }
        SeekError::GaveUp { .. } => {
            (Side::Upstream, Status::Error, Why::Unreachable, "the upstream cannot be reached, try again later")
        }
    };
    let outcome = Outcome::new(side, error.kind(), status).because(error);
    NotFound { code: failure_code(action).to_owned(), text: text.to_owned(), outcome, why }
}

/// Judges a failed introduction: `Some` where another dial would end the same.
fn failed(
    place: &Place,
    action: Action,
    target: &Target,
    permit: DialPermit,
    failure: Failure,
    attempt: u32,
) -> Option<NotFound> {
    match failure {
        Failure::Refused { code, text } => {
            // By command, not by failing: the upstream is well, and would say the same again.
            permit.refused();
            report::upstream_refused(place, target, &code);
            let why = Why::Refused { by: target.id, busy: code.is_empty() || code == "NetStream.Publish.BadName" };
            let code = if code.starts_with("NetStream.") { code } else { failure_code(action).to_owned() };
            let outcome = Outcome::new(Side::Upstream, "upstream_refused", Status::Error).because(&code);
            Some(NotFound { code, text, outcome, why })
        }
        // Told from the others before: the same upstream is dialled anew.
        Failure::Stale => None,
        Failure::Login(error) => Some(locked_out(place, action, target, permit, error)),
        // All that it asks was answered.
        Failure::Asks(_) => Some(locked_out(place, action, target, permit, LoginError::Wrong)),
        Failure::Dial(error) => {
            let (kind, counts) = (error.kind(), error.counts());
            if counts {
                permit.failure(kind, &error.to_string());
            }
            report::dial_failed(place, target, kind, &error, attempt);
            None
        }
        Failure::Broken { kind, text } => {
            permit.failure(kind, &text);
            report::dial_failed(place, target, kind, &text, attempt);
            None
        }
    }
}

/// As a refusal: what is wrong stands in the configuration.
fn locked_out(place: &Place, action: Action, target: &Target, permit: DialPermit, error: LoginError) -> NotFound {
    permit.refused();
    report::upstream_login_failed(place, target, &error);
    let outcome = Outcome::new(Side::Upstream, "upstream_login", Status::Error).because(error);
    let why = Why::Refused { by: target.id, busy: false };
    NotFound { code: failure_code(action).to_owned(), text: LOCKED_OUT.to_owned(), outcome, why }
}

fn unaddressable(place: &Place, asked: &Asked, text: &str) -> NotFound {
    let text = if asked.granted.app_was_token { AuthError::InPlaceOfApp.to_string() } else { text.to_owned() };
    report::refused(place, "bad_name", &text);
    let outcome = Outcome::new(Side::Relay, "bad_name", Status::Rejected).because(&text);
    NotFound { code: bad_name_code(asked.request.action).to_owned(), text, outcome, why: Why::Final }
}

/// The onStatus code for a name that cannot be used.
pub(super) fn bad_name_code(action: Action) -> &'static str {
    match action {
        Action::Publish => "NetStream.Publish.BadName",
        Action::Play => "NetStream.Play.StreamNotFound",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_is_repeated_for_what_time_may_change_and_for_nothing_else() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let (ours, theirs) = (TargetId(1), TargetId(2));
        let again = Again { lost: Some(ours), ghosts: vec![ours], ghosts_until: Some(later), unreachable_until: Some(later) };
        let refused = |by, busy| Why::Refused { by, busy };
        assert!(again.is_worth_it(Why::Unreachable, now) && !again.is_worth_it(Why::Unreachable, later));
        assert!(again.is_worth_it(refused(ours, true), now) && !again.is_worth_it(refused(ours, true), later));
        assert!(!again.is_worth_it(refused(ours, false), now), "it has something else against the stream");
        assert!(!again.is_worth_it(refused(theirs, true), now), "somebody else publishes there");
        assert!(!again.is_worth_it(Why::Final, now));
        assert!(!Again::default().is_worth_it(Why::Unreachable, now));
    }
}
