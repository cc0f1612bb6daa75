//! May this client publish now, or does somebody else publish the stream?

use std::time::{Duration, Instant};

use actix::Recipient;
use tokio::time::{sleep, timeout};

use super::client::Client;
use super::find::{Again, Asked, bad_name_code};
use super::life::{Place, with_client};
use super::outcome::{Outcome, Side, Status};
use super::report;
use crate::admission::supervisor::Kick;
use crate::admission::{Claim, Former, IpKey, Party, Publisher, Refusal, Taken};
use crate::protocol::name::Action;
use crate::upstream::TargetId;

/// How long the old session may take to end its upstream's leg, and how long its upstream may then believe in it.
const GHOST: Duration = Duration::from_secs(5);

/// Gets the right to publish, if that is what was asked for: from whoever has it, where that may be.
pub(super) async fn claim(
    place: &Place,
    client: &mut Client,
    asked: &Asked,
    session: Recipient<Kick>,
) -> Result<(Claim, Again), Outcome> {
    let party = Party { token_name: asked.granted.token_name.clone(), address: IpKey::of(place.cell.client().ip()) };
    let mut claim = place.shared.claims.visitor(Publisher { party, cell: place.cell.clone(), session });
    if asked.request.action != Action::Publish {
        return Ok((claim, Again::default()));
    }
    place.cell.hear(Instant::now());
    loop {
        let wait = match claim.take(&asked.identity, Instant::now()) {
            Ok(None) => return Ok((claim, Again::default())),
            Ok(Some(former)) => return take_over(place, client, claim, &former).await,
            Err(Taken::For(time)) => time,
            Err(Taken::Held) => return Err(refused(place, client).await),
        };
        if let Err(cut) = with_client(place, client, sleep(wait)).await {
            return Err(cut.end(client, Action::Publish).await);
        }
    }
}

/// Waits until the old session has ended its upstream's leg, or has had its time.
async fn take_over(place: &Place, client: &mut Client, claim: Claim, former: &Former) -> Result<(Claim, Again), Outcome> {
    report::taking_over(place);
    match with_client(place, client, timeout(GHOST, former.gone())).await {
        Ok(_) => Ok((claim, behind(former))),
        Err(cut) => {
            drop(claim);
            Err(cut.end(client, Action::Publish).await)
        }
    }
}

/// An upstream may not have noticed yet that the old publication is over.
fn behind(former: &Former) -> Again {
    let ghosts = former.upstream().map(TargetId).into_iter().collect();
    Again { ghosts, ghosts_until: Some(Instant::now() + GHOST), ..Again::default() }
}

async fn refused(place: &Place, client: &mut Client) -> Outcome {
    let refusal = Refusal::AlreadyPublishing;
    let text = refusal.to_string();
    place.shared.gate.tally().count(&refusal);
    report::refused(place, refusal.reason(), &text);
    client.refuse(bad_name_code(Action::Publish), &text).await;
    Outcome::new(Side::Relay, refusal.reason(), Status::Rejected)
}
