//! May this client publish now, or does somebody else publish the stream?

use std::time::Instant;

use actix::Recipient;

use super::search::{Turned, Wish};
use super::visitor::Visitor;
use crate::admission::supervisor::Kick;
use crate::admission::{Claim, Refusal};
use crate::protocol::name::Action;
use crate::protocol::rtsp::front::Asked;
use crate::session::find::Again;
use crate::session::life::Place;
use crate::session::outcome::{Outcome, Side, Status};
use crate::session::takeover;
use crate::upstream::TargetId;

/// An upstream that may still believe in an earlier publication of the stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ghost {
    pub(super) at: TargetId,
    /// Until when it is asked again.
    pub(super) until: Instant,
}

/// Gets the right to publish, if that is what was asked for: from whoever has it, where that may be.
pub(super) async fn claim(
    place: &Place,
    visitor: &mut Visitor,
    asked: &Asked,
    wish: &Wish,
    session: Recipient<Kick>,
) -> Result<(Claim, Option<Ghost>), Outcome> {
    let mut claim = takeover::visitor(place, &wish.granted, session);
    if asked.action != Action::Publish {
        return Ok((claim, None));
    }
    let taken = super::meanwhile(place, visitor, takeover::take(place, &mut claim, &wish.identity)).await;
    match taken.and_then(|taken| taken.map_err(refused)) {
        Ok(again) => Ok((claim, ghost(&again))),
        Err(turned) => {
            drop(claim);
            Err(turned.end(visitor, asked).await)
        }
    }
}

fn ghost(again: &Again) -> Option<Ghost> {
    Some(Ghost { at: *again.ghosts.first()?, until: again.ghosts_until? })
}

fn refused(refusal: Refusal) -> Turned {
    let outcome = Outcome::new(Side::Relay, refusal.reason(), Status::Rejected);
    Turned::here(403, &refusal.to_string(), outcome)
}
