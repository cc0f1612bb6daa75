//! May this client publish now, or does somebody else publish the stream?

use std::time::{Duration, Instant};

use actix::Recipient;
use tokio::time::{sleep, timeout};

use super::find::Again;
use super::life::Place;
use super::report;
use crate::admission::supervisor::Kick;
use crate::admission::{Claim, Former, Granted, IpKey, Party, Publisher, Refusal, Taken};
use crate::protocol::name::Identity;
use crate::upstream::TargetId;

/// How long the old session may take to end its upstream's leg, and how long its upstream may then believe in it.
const GHOST: Duration = Duration::from_secs(5);

/// The claim of a client that is authorised, and has no stream yet.
pub(super) fn visitor(place: &Place, granted: &Granted, session: Recipient<Kick>) -> Claim {
    let party = Party { token_name: granted.token_name.clone(), address: IpKey::of(place.cell.client().ip()) };
    place.shared.claims.visitor(Publisher { party, cell: place.cell.clone(), session })
}

/// Gets the right to publish `name`, from whoever has it where that may be: waits until the old session has ended its upstream's leg,
/// or has had its time. Says how the search for an upstream has to go then.
///
/// # Errors
/// [`Refusal::AlreadyPublishing`], counted and reported.
pub(super) async fn take(place: &Place, claim: &mut Claim, name: &Identity) -> Result<Again, Refusal> {
    place.cell.hear(Instant::now());
    loop {
        match claim.take(name, Instant::now()) {
            Ok(None) => return Ok(Again::default()),
            Ok(Some(former)) => {
                report::taking_over(place);
                let _ = timeout(GHOST, former.gone()).await;
                return Ok(behind(&former));
            }
            Err(Taken::For(time)) => sleep(time).await,
            Err(Taken::Held) => {
                let refusal = Refusal::AlreadyPublishing;
                place.shared.gate.tally().count(&refusal);
                report::refused(place, refusal.reason(), &refusal.to_string());
                return Err(refusal);
            }
        }
    }
}

/// An upstream may not have noticed yet that the old publication is over.
fn behind(former: &Former) -> Again {
    let ghosts = former.upstream().map(TargetId).into_iter().collect();
    Again { ghosts, ghosts_until: Some(Instant::now() + GHOST), ..Again::default() }
}
