//! How is a configured address listened on? For clients and for HTTP alike.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::config::{ListenAddr, Tcp};

/// Connections that the kernel keeps until they are accepted; it lowers this to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{key}: cannot listen on {address}: {}", self.reason())]
pub struct BindError {
    /// The configuration's key for it.
    pub key: String,
    /// The address.
    pub address: ListenAddr,
    /// What the kernel said.
    #[source]
    pub error: io::Error,
}

impl BindError {
    /// Why, in words that say what to do.
    pub fn reason(&self) -> String {
        match self.error.kind() {
            io::ErrorKind::AddrInUse => "another program has it".to_owned(),
            io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege".to_owned(),
            io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
            _ => self.error.to_string(),
        }
    }
}

/// Listens on `address`, which stands under `key` in the configuration; without a host on every address, v6 and v4 by one socket, or v4 alone where the machine has no IPv6
/// (told by the socket's own address).
///
/// # Errors
/// [`BindError`].
pub fn bind(key: &str, address: ListenAddr) -> Result<TcpListener, BindError> {
    let ListenAddr { host, port } = address;
    let listened = match host {
        Some(ip) => listen(SocketAddr::new(ip, port)),
        None => listen(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)).or_else(|e| match e.raw_os_error() {
            Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::EPROTONOSUPPORT) => {
                listen(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port))
            }
            _ => Err(e),
        }),
    };
    listened.map_err(|error| BindError { key: key.to_owned(), address, error })
}

/// What clients' sockets are to be like: accepted sockets inherit all of this (Linux), which costs nothing a session. Unread data is
/// given up after `write_timeout`.
///
/// # Errors
/// What setsockopt(2) says, for example of a buffer size.
pub fn shape_clients(listener: &TcpListener, tcp: Tcp, write_timeout: Duration) -> io::Result<()> {
    let socket = SockRef::from(listener);
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10)).with_retries(4);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(write_timeout))?;
    // On the listening socket, since the window's scale is settled by the handshake.
    tcp.recv_buffer.map_or(Ok(()), |size| socket.set_recv_buffer_size(size))?;
    tcp.send_buffer.map_or(Ok(()), |size| socket.set_send_buffer_size(size))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // A restart must not wait for the old connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn without_a_host_both_families_are_heard() {
        let listener = bind("listen_addr", ListenAddr { host: None, port: 0 }).expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("v4");
        if listener.local_addr().expect("bound").is_ipv6() {
            TcpStream::connect((Ipv6Addr::LOCALHOST, port)).expect("v6");
        }
    }

    #[test]
    fn accepted_sockets_inherit_their_shape() {
        let listener = bind("listen_addr", ListenAddr { host: Some(Ipv4Addr::LOCALHOST.into()), port: 0 }).expect("a free port");
        let tcp = Tcp { recv_buffer: Some(50_000), send_buffer: None };
        shape_clients(&listener, tcp, Duration::from_secs(7)).expect("every option is known");
        let _client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        listener.set_nonblocking(false).expect("an option");
        let (accepted, _) = listener.accept().expect("accepted");
        let socket = SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().expect("an option") && socket.keepalive().expect("an option"));
        assert_eq!(socket.tcp_user_timeout().expect("an option"), Some(Duration::from_secs(7)));
        assert_eq!(socket.recv_buffer_size().expect("an option"), 100_000, "the kernel doubles it");
    }

    #[test]
    fn a_taken_port_is_named() {
        let first = bind("listen_addr", ListenAddr { host: None, port: 0 }).expect("a free port");
        let port = first.local_addr().expect("bound").port();
        let error = bind("listen_addr", ListenAddr { host: None, port }).expect_err("it is taken");
        let text = error.to_string();
        assert!(text.contains(&format!(":{port}")) && text.contains("listen_addr"), "{text}");
        assert!(text.contains("another program has it"), "{text}");
    }
}
