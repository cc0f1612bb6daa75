//! The socket that HTTP answers on.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use socket2::{Domain, Socket, Type};

use crate::config::ListenAddr;

/// Connections that wait in the kernel.
const BACKLOG: i32 = 128;

/// Why the address cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {}; http_addr (HTTP_ADDR) names another address, or \"\" for none", reason(.source))]
pub struct BindError {
    /// The address that was asked for.
    pub address: ListenAddr,
    /// What the kernel said.
    pub source: io::Error,
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another program has it".to_owned(),
        io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        _ => error.to_string(),
    }
}

/// Binds; without a host every address of v6 and v4, or v4 alone where there is no v6.
pub(super) fn bind(address: ListenAddr) -> Result<(TcpListener, SocketAddr), BindError> {
    let bound = match address.host {
        Some(host) => listen((host, address.port).into()),
        None => match listen((Ipv6Addr::UNSPECIFIED, address.port).into()) {
            Err(error) if is_missing_v6(&error) => listen((Ipv4Addr::UNSPECIFIED, address.port).into()),
            bound => bound,
        },
    };
    bound.and_then(|listener| listener.local_addr().map(|at| (listener, at))).map_err(|source| BindError { address, source })
}

fn is_missing_v6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // So that a restart need not wait for the last one's connections to be forgotten.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
