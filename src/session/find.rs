//! Which upstream takes this stream? Candidates are dialled and told what the client said, until one says yes.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::introduce::{Failure, Introduction, introduce};
use super::life::Place;
use super::outcome::{Outcome, Side, Status};
use super::relay::failure_code;
use super::{Shared, report};
use crate::admission::{AuthError, Granted};
use crate::protocol::name::{Action, Identity, Names, StreamName};
use crate::protocol::rtmp::replay::Renamer;
use crate::protocol::rtmp::server::Request;
use crate::upstream::{CircuitPermit, Connected, Link, Seek, SeekError, Target, TargetId};

/// The first wait between two searches, and the longest: each has its own waits between dials.
const AGAIN_FIRST: Duration = Duration::from_millis(100);
const AGAIN_MOST: Duration = Duration::from_secs(1);

/// What a client asks for, and is authorised to.
pub(super) struct Asked {
    pub(super) request: Request,
    pub(super) name: StreamName,
    /// What every room calls the stream by.
    pub(super) identity: Identity,
    pub(super) granted: Granted,
}

/// An upstream that took the publish or play.
pub(super) struct Found {
    pub(super) target: Arc<Target>,
    pub(super) connected: Connected,
    pub(super) introduction: Box<Introduction>,
    pub(super) renamer: Renamer,
    pub(super) names: Names,
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
pub(super) async fn find(place: &Place, asked: &Asked, again: &Again) -> Result<Found, NotFound> {
    let mut wait = AGAIN_FIRST;
    loop {
        let not_found = match find_once(place, asked, again.lost).await {
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
async fn find_once(place: &Place, asked: &Asked, lost: Option<TargetId>) -> Result<Found, NotFound> {
    let Asked { request, name, granted, .. } = asked;
    let shared = &place.shared;
    let mut seek = Seek::new(shared.routes.clone(), shared.candidates(lost));
    let mut report_step = report::steps(place);
    loop {
        let link = seek.next(&mut report_step).await.map_err(|e| sought_in_vain(request.action, &e))?;
        let Link { target, mut connected, permit, deadline } = link;
        report::connected(place, &target, &connected);
        let names = target.address(name, &shared.forward).map_err(|e| unaddressable(place, asked, &e.to_string()))?;
        let renamer = Renamer::new(request, names.clone(), granted.token_name.is_some());
        match introduce(&mut connected.stream, request, &renamer, deadline).await {
            Ok(introduction) => {
                permit.success();
                let introduction = Box::new(introduction);
                return Ok(Found { target, connected, introduction, renamer, names });
            }
            Err(failure) => {
                if let Some(not_found) = failed(place, request.action, &target, permit, failure, seek.made()) {
                    return Err(not_found);
                }
                seek.failed();
            }
        }
    }
}

fn sought_in_vain(action: Action, error: &SeekError) -> NotFound {
    // What policy forbids is refused; all else is the upstream's fault.
    let (side, status, why, text) = match error {
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
    permit: CircuitPermit,
    failure: Failure,
    attempt: u32,
) -> Option<NotFound> {
    match failure {
        Failure::Refused { code, text } => {
            // By command, not by failing: the upstream is well, and would say the same again.
            drop(permit);
            report::upstream_refused(place, target, &code);
            let why = Why::Refused { by: target.id, busy: code.is_empty() || code == "NetStream.Publish.BadName" };
            let code = if code.starts_with("NetStream.") { code } else { failure_code(action).to_owned() };
            let outcome = Outcome::new(Side::Upstream, "upstream_refused", Status::Error).because(&code);
            Some(NotFound { code, text, outcome, why })
        }
        Failure::Broken { kind, text } => {
            permit.failure();
            report::dial_failed(place, target, kind, &text, attempt);
            None
        }
    }
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

impl Shared {
    /// The targets for the next session, best first; the one that was `lost` comes last.
    fn candidates(&self, lost: Option<TargetId>) -> Vec<Arc<Target>> {
        let mut order = self.rotation.lock().unwrap_or_else(PoisonError::into_inner).candidates();
        order.sort_by_key(|id| Some(*id) == lost);
        order.into_iter().filter_map(|id| self.targets.iter().find(|t| t.id == id).cloned()).collect()
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
