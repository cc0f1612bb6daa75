//! Which addresses are listened on, and in private?

use std::net::TcpListener;
use std::sync::Arc;

use anyhow::{Context, anyhow};

use super::sockets::Sockets;
use crate::config::Config;
use crate::listener;
use crate::session::Door;
use crate::telemetry::{Telemetry, events};
use crate::tls::{self, Server};

/// Opens every address for clients, `listen_addr` first, or takes its socket from `sockets`.
///
/// # Errors
/// The first that cannot be listened on, named.
pub(super) fn open(config: &Config, sockets: &mut Sockets) -> anyhow::Result<Vec<(Door, TcpListener)>> {
    let open = |(key, address, tls): (String, _, _)| {
        let socket = sockets.open(&key, address)?;
        listener::shape_clients(&socket, config.tcp, config.timeouts.write).context("tcp")?;
        let address = socket.local_addr().context(key)?;
        Ok((Door { address, tls }, socket))
    };
    config.doors().map(open).collect()
}

/// What meets clients in private, if any address asks for it; its certificate is exchanged when its files change.
///
/// # Errors
/// What is wrong with the files.
pub(super) fn private(config: &Config, telemetry: &Telemetry) -> anyhow::Result<Option<Arc<Server>>> {
    let Some(files) = &config.security.tls else { return Ok(None) };
    let server = Server::new(files).map_err(|problems| {
        let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
        anyhow!(text.join("; "))
    })?;
    let server = Arc::new(server);
    let certificate = &server.standing().certificate;
    let (names, not_after) = (&certificate.names, certificate.not_after);
    telemetry.emit(events::CertificateLoaded { names, not_after, again: false });
    actix_rt::spawn(tls::watch(Arc::downgrade(&server), telemetry.clone()));
    Ok(Some(server))
}
