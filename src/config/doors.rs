//! Pure: where may clients and operators connect, and in private?

use std::path::PathBuf;

use super::address::ListenAddr;
use super::check::Check;
use super::file::File;
use super::settings::{Listen, ServerTls, Tls};

const CERT: &str = "security.tls_cert";
const KEY: &str = "security.tls_key";

/// Every address that is listened on.
pub(super) struct Doors {
    pub(super) listen: ListenAddr,
    pub(super) listen_tls: Tls,
    pub(super) listeners: Vec<Listen>,
    pub(super) http: Option<ListenAddr>,
    pub(super) http_tls: bool,
    /// There if any of them speaks TLS.
    pub(super) files: Option<ServerTls>,
}

/// Judges the addresses and what is spoken there.
pub(super) fn check(check: &mut Check<'_>, file: &File) -> Doors {
    let listen = check.address("listen_addr", &file.listen_addr).unwrap_or(ListenAddr { host: None, port: 0 });
    let mut listeners = Vec::with_capacity(file.listeners.len());
    for (index, raw) in file.listeners.iter().enumerate() {
        let address = check.address(&format!("listeners[{index}].addr"), &raw.addr);
        listeners.extend(address.map(|address| Listen { address, tls: raw.tls }));
    }
    let http = if file.http_addr.is_empty() { None } else { check.address("http_addr", &file.http_addr) };
    if listeners.len() == file.listeners.len() {
        collisions(check, listen, &listeners, http);
    }
    let listen_tls = match (file.security.tls_enabled, file.security.tls_allow_plain) {
        (false, _) => Tls::Off,
        (true, false) => Tls::Only,
        (true, true) => Tls::Optional,
    };
    let http_tls = file.http_tls && http.is_some();
    Doors { listen, listen_tls, http, http_tls, files: files(check, file, &listeners), listeners }
}

/// No two may take the same port of the same address.
fn collisions(check: &mut Check<'_>, listen: ListenAddr, listeners: &[Listen], http: Option<ListenAddr>) {
    let others = listeners.iter().enumerate().map(|(index, door)| (format!("listeners[{index}].addr"), door.address));
    let mut taken = vec![("listen_addr".to_owned(), listen)];
    for (key, address) in others.chain(http.map(|http| ("http_addr".to_owned(), http))) {
        if let Some((other, taken)) = taken.iter().find(|(_, taken)| taken.collides(&address)) {
            let right = if key == "http_addr" { "expected another port, or \"\" for no HTTP" } else { "expected another port" };
            check.error(&key, format!("takes the same port as {other} ({taken}); {right}"));
        }
        taken.push((key, address));
    }
}

/// The files of TLS, if anything asks for it.
fn files(check: &mut Check<'_>, file: &File, listeners: &[Listen]) -> Option<ServerTls> {
    let security = &file.security;
    let listener = listeners.iter().position(|door| door.tls != Tls::Off);
    let asked = [
        security.tls_enabled.then(|| "security.tls_enabled".to_owned()),
        listener.map(|index| format!("listeners[{index}]")),
        file.http_tls.then(|| "http_tls".to_owned()),
        file.admin_tls.then(|| "admin_tls".to_owned()),
    ];
    let Some(asker) = asked.into_iter().flatten().next() else {
        unused(check, file);
        return None;
    };
    if file.http_tls && file.http_addr.is_empty() {
        check.warn("http_tls", "has no effect: http_addr is \"\", so there is no HTTP");
    }
    if file.admin_tls && file.admin_addr.is_empty() {
        check.warn("admin_tls", "has no effect: admin_addr is \"\", so there is no /admin");
    }
    let clients = security.tls_enabled || listener.is_some();
    if !security.tls_client_ca.is_empty() && !clients {
        check.warn(
            "security.tls_client_ca",
            "has no effect: no address for clients speaks TLS, and neither HTTP nor /admin asks for certificates",
        );
    }
    if let (Some(plain), true) = (plain_door(file), clients && !security.tls_client_ca.is_empty()) {
        check.warn("security.tls_client_ca", format!("holds off nobody who comes without TLS, which {plain} allows"));
    }
    if security.tls_allow_plain && !security.tls_enabled {
        check.warn("security.tls_allow_plain", "has no effect without tls_enabled");
    }
    let missing = [(CERT, &security.tls_cert, "certificate"), (KEY, &security.tls_key, "private key")];
    for (key, path, what) in missing {
        if path.is_empty() && check.intact(&[key]) {
            check.error(key, format!("is missing, and {asker} asks for TLS; expected the path of a PEM file with the {what}"));
        }
    }
    let path = |key: &str, path: &str| -> Option<PathBuf> { check.path(key, path) };
    let (cert, key) = (path(CERT, &security.tls_cert)?, path(KEY, &security.tls_key)?);
    Some(ServerTls { cert, key, client_ca: path("security.tls_client_ca", &security.tls_client_ca) })
}

/// The key by which a client may come without TLS.
fn plain_door(file: &File) -> Option<String> {
    let plain = file.listeners.iter().position(|door| door.tls != Tls::Only);
    let by_listener = plain.map(|index| format!("listeners[{index}]"));
    match (file.security.tls_enabled, file.security.tls_allow_plain) {
        (true, false) => by_listener,
        (true, true) => Some("security.tls_allow_plain".to_owned()),
        (false, _) => Some("listen_addr".to_owned()),
    }
}

fn unused(check: &mut Check<'_>, file: &File) {
    let security = &file.security;
    let files = [(CERT, &security.tls_cert), (KEY, &security.tls_key), ("security.tls_client_ca", &security.tls_client_ca)];
    for (key, _) in files.into_iter().filter(|(_, path)| !path.is_empty()) {
        check.warn(key, "is not used: neither tls_enabled nor listeners nor http_tls nor admin_tls asks for TLS");
    }
    if security.tls_allow_plain {
        check.warn("security.tls_allow_plain", "has no effect without tls_enabled");
    }
}
