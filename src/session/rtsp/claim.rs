//! May this client publish now, or does somebody else publish the stream?

use std::time::{Duration, Instant};

use actix::Recipient;
use tokio::time::{sleep, timeout};

use super::search::{Turned, Wish};
use super::visitor::Visitor;
use crate::admission::supervisor::Kick;
use crate::admission::{Claim, IpKey, Party, Publisher, Refusal, Taken};
use crate::protocol::name::{Action, Identity};
use crate::protocol::rtsp::front::Asked;
use crate::session::life::Place;
use crate::session::outcome::{Outcome, Side, Status};
use crate::session::report;
use crate::upstream::TargetId;

/// How long the old session may take to end at its upstream, and how long its upstream may then believe in it.
const GHOST: Duration = Duration::from_secs(5);

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
    let party = Party { token_name: wish.granted.token_name.clone(), address: IpKey::of(place.cell.client().ip()) };
    let mut claim = place.shared.claims.visitor(Publisher { party, cell: place.cell.clone(), session });
    if asked.action != Action::Publish {
        return Ok((claim, None));
    }
    place.cell.hear(Instant::now());
    let name = name(&wish.identity);
    loop {
        let wait = match claim.take(&name, Instant::now()) {
            Ok(None) => return Ok((claim, None)),
            Ok(Some(former)) => {
                report::taking_over(place);
                let gone = super::meanwhile(place, visitor, timeout(GHOST, former.gone())).await;
                if let Err(turned) = gone {
                    drop(claim);
                    return Err(turned.end(visitor, asked).await);
                }
                let until = Instant::now() + GHOST;
                return Ok((claim, former.upstream().map(|id| Ghost { at: TargetId(id), until })));
            }
            Err(Taken::For(time)) => time,
            Err(Taken::Held) => return Err(refused(place).end(visitor, asked).await),
        };
        if let Err(turned) = super::meanwhile(place, visitor, sleep(wait)).await {
            return Err(turned.end(visitor, asked).await);
        }
    }
}

/// What the stream is claimed by: an RTMP stream of the same name is another stream, at another origin. No app begins so.
fn name(identity: &Identity) -> Identity {
    Identity { app: [b"rtsp://", &identity.app[..]].concat(), stream: identity.stream.clone() }
}

fn refused(place: &Place) -> Turned {
    let refusal = Refusal::AlreadyPublishing;
    let text = refusal.to_string();
    place.shared.gate.tally().count(&refusal);
    report::refused(place, refusal.reason(), &text);
    Turned::here(403, &text, Outcome::new(Side::Relay, refusal.reason(), Status::Rejected))
}
