//! Who is this, before it says what it wants? Clients with user name and password are asked for them when they connect.

use std::net::IpAddr;

use super::client::Client;
use super::life::Place;
use super::outcome::{Outcome, Side, Status};
use super::report;
use crate::admission::{AuthError, Permit, Question, Refusal};
use crate::protocol::rtmp::adobe::{self, Challenge, Response, Said};

/// What a client without token, name and password reads.
const WORDS: &str = "this app asks for a user name and a password; a token belongs into the server's URL, as /app?token=...";

/// Why a client's connect is refused.
pub(super) struct Refused {
    description: Vec<u8>,
    outcome: Outcome,
    /// Connections on which it will come back, if it can.
    to_come: u8,
}

/// Judges a connect that waits, and accepts it unless the client is to be asked first or has failed to prove who it is.
pub(super) fn judge(place: &Place, client: &mut Client) -> Result<(), Refused> {
    let gate = &place.shared.gate;
    // Taken out in any case: what a client says to us is nothing for an upstream, who may ask us in turn.
    let said = client.session.take_said();
    if gate.authenticates() {
        let ip = place.cell.client().ip();
        match said {
            Some(Said::User(user)) => return Err(Refused::asking(adobe::need_proof(&user, &challenge(gate.ask(&user, ip))), 1)),
            Some(Said::Response(response)) => client.login = Some(login(place, ip, &response)?),
            Some(Said::Other) => return Err(Refused::failing(place, Refusal::Auth(AuthError::Method))),
            None => {
                let (app, tokens) = client.session.shown();
                if gate.asks(app, tokens) {
                    return Err(Refused::asking(adobe::need_auth(WORDS).into_bytes(), 2));
                }
            }
        }
    }
    client.accept();
    Ok(())
}

fn login(place: &Place, ip: IpAddr, said: &Response) -> Result<crate::admission::Login, Refused> {
    let Response { user, challenge, response, opaque } = said;
    let expected = |salt: &str, password: &str| adobe::response(user, salt.as_bytes(), password.as_bytes(), opaque, challenge);
    place.shared.gate.login((user, ip), opaque, response, expected).map_err(|refusal| Refused::failing(place, refusal))
}

fn challenge(question: Question) -> Challenge {
    let Question { salt, challenge, opaque } = question;
    Challenge { salt, challenge, opaque }
}

impl Refused {
    /// A step of a login, as it should be.
    fn asking(description: Vec<u8>, to_come: u8) -> Self {
        Self { description, outcome: Outcome::new(Side::Relay, "auth_challenge", Status::Rejected), to_come }
    }

    fn failing(place: &Place, refusal: Refusal) -> Self {
        let text = refusal.to_string();
        report::login_failed(place, &text);
        let reason = if let Refusal::Auth(e) = &refusal { e.reason() } else { refusal.reason() };
        let outcome = Outcome::new(Side::Relay, refusal.reason(), Status::Rejected).because(reason);
        Self { description: adobe::failed(&text).into_bytes(), outcome, to_come: 0 }
    }

    /// Tells the client. It will be back at once, on a new connection: its place is free before it knows, and its rate knows of it.
    pub(super) async fn tell(self, place: &Place, mut client: Client, permit: Permit) -> Outcome {
        if self.to_come > 0 {
            place.shared.gate.expect_again(&permit, place.cell.client().ip(), self.to_come).await;
        }
        let telling = place.shared.gate.teller().try_begin();
        // Where too many are being told already it keeps its place meanwhile, which bounds them too.
        let _held = telling.is_none().then_some(permit);
        client.refuse_connect(&self.description).await;
        self.outcome
    }
}
