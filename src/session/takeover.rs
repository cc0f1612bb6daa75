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
) -> Result<(Option<Claim>, Again), Outcome> {
    let action = asked.request.action;
    if action != Action::Publish {
        return Ok((None, Again::default()));
    }
    let party = Party { token_name: asked.granted.token_name.clone(), address: IpKey::of(place.cell.client().ip()) };
    let publisher = Publisher { party, cell: place.cell.clone(), session };
    place.cell.hear(Instant::now());
    loop {
        match place.shared.claims.claim(&asked.identity, &publisher, Instant::now()) {
            Ok((claim, None)) => return Ok((Some(claim), Again::default())),
            Ok((claim, Some(former))) => {
                report::taking_over(place);
                let _ = with_client(place, client, action, timeout(GHOST, former.gone())).await?;
                return Ok((Some(claim), behind(&former)));
            }
            Err(Taken::For(time)) => with_client(place, client, action, sleep(time)).await?,
            Err(Taken::Held) => return Err(refused(place, client).await),
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
