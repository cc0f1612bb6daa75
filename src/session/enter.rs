//! Does the upstream let us in? Where it asks for user name and password, those of its URL are the answer, each step on a connection of its own.

use std::time::Instant;

use secrecy::ExposeSecret;

use super::introduce::{Failure, Introduction, introduce};
use super::life::Place;
use super::report;
use crate::protocol::rtmp::adobe::Login;
use crate::protocol::rtmp::replay::Renamer;
use crate::protocol::rtmp::server::Request;
use crate::upstream::{Connected, Seek, Target};

/// Introduces the client to the upstream ([`introduce`]), logging in where that is asked for. What comes back is the connection on which it
/// succeeded, of at most three.
pub(super) async fn enter(
    place: &Place,
    seek: &Seek,
    target: &Target,
    (mut connected, mut deadline): (Connected, Instant),
    request: &Request,
    renamer: &Renamer,
) -> Result<(Connected, Introduction), Failure> {
    let asked = match introduce(&mut connected, request, renamer, deadline).await {
        Err(Failure::Asks(asked)) => asked,
        Err(failure) => return Err(failure),
        Ok(introduction) => return Ok((connected, introduction)),
    };
    let who = target.url.login().map(|login| (login.user(), login.password().expose_secret()));
    let (mut login, mut asked) = (Login::default(), asked);
    loop {
        let own = format!("{:08x}", rand::random::<u32>());
        let behind = login.answer(&asked, who, &own).map_err(Failure::Login)?;
        // Its place at the upstream is free before the next one is asked for.
        drop(connected);
        (connected, deadline) = seek.redial(target).await.map_err(Failure::Dial)?;
        report::connected(place, target, &connected);
        match introduce(&mut connected, request, &renamer.showing(&behind), deadline).await {
            Err(Failure::Asks(next)) => asked = next,
            Err(failure) => return Err(failure),
            Ok(introduction) => return Ok((connected, introduction)),
        }
    }
}
