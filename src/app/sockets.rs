//! Which sockets were handed to this process, and which does it open itself?
//!
//! A service manager that listens in place of the relay (systemd's socket activation) lets clients wait while the relay restarts, and
//! ports below 1024 need no privilege. Its sockets are recognised by their addresses: no order, no name to keep in step.

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, bail};
use listenfd::ListenFd;

use crate::config::ListenAddr;
use crate::listener::{BindError, bind};

/// Listening sockets that nobody has claimed yet.
#[derive(Debug, Default)]
pub struct Sockets {
    handed: Vec<(SocketAddr, TcpListener)>,
}

impl Sockets {
    /// None: all are opened.
    pub fn none() -> Self {
        Self::default()
    }

    /// Those that the environment tells of (`LISTEN_FDS`, `LISTEN_PID`), which is then forgotten. To be called before there are threads.
    ///
    /// # Errors
    /// One that is no TCP socket.
    pub fn of_process() -> anyhow::Result<Self> {
        let mut fds = ListenFd::from_env();
        let mut handed = Vec::new();
        for n in 0..fds.len() {
            let socket = fds.take_tcp_listener(n).context("LISTEN_FDS")?;
            handed.extend(socket);
        }
        Self::of(handed)
    }

    fn of(handed: Vec<TcpListener>) -> anyhow::Result<Self> {
        let address = |socket: TcpListener| Ok((socket.local_addr()?, socket));
        let handed = handed.into_iter().map(address).collect::<std::io::Result<_>>().context("LISTEN_FDS")?;
        Ok(Self { handed })
    }

    /// The socket for `address`, which stands under `key` in the configuration: the one that was handed over, else a new one.
    ///
    /// # Errors
    /// [`BindError`].
    pub(super) fn open(&mut self, key: &str, address: ListenAddr) -> Result<TcpListener, BindError> {
        let Some(at) = self.handed.iter().position(|(handed, _)| is_meant(*handed, address)) else { return bind(key, address) };
        let (_, socket) = self.handed.swap_remove(at);
        socket.set_nonblocking(true).map_err(|error| BindError { key: key.to_owned(), address, error })?;
        Ok(socket)
    }

    /// Makes sure that all were claimed: clients would wait for ever at one that was not.
    ///
    /// # Errors
    /// The addresses.
    pub(super) fn all_claimed(self) -> anyhow::Result<()> {
        let left: Vec<String> = self.handed.iter().map(|(address, _)| address.to_string()).collect();
        if !left.is_empty() {
            bail!("handed a socket for {}, which neither listen_addr nor listeners nor http_addr names", left.join(", "));
        }
        Ok(())
    }
}

/// Whether a socket at `handed` is what the configuration calls `address`.
fn is_meant(handed: SocketAddr, address: ListenAddr) -> bool {
    let everywhere = handed.ip().is_unspecified();
    handed.port() == address.port
        && address.host.map_or(everywhere, |host| if everywhere { host.is_unspecified() } else { host == handed.ip() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> ListenAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_socket_is_recognised_by_its_address() {
        let meant = |handed: &str, configured: &str| is_meant(handed.parse().unwrap(), address(configured));
        assert!(meant("[::]:1935", ":1935") && meant("0.0.0.0:1935", ":1935") && meant("[::]:1935", "0.0.0.0:1935"));
        assert!(meant("127.0.0.1:1935", "localhost:1935") && meant("[::1]:1935", "[::1]:1935"));
        assert!(!meant("[::]:1936", ":1935") && !meant("[::]:1935", "127.0.0.1:1935") && !meant("127.0.0.1:1935", ":1935"));
    }

    #[test]
    fn what_was_handed_over_is_taken_once_and_what_is_left_is_named() {
        let [clients, other] = [0, 0].map(|port| TcpListener::bind(("127.0.0.1", port)).unwrap());
        let places = [&clients, &other].map(|socket| socket.local_addr().unwrap());
        let mut sockets = Sockets::of(vec![other, clients]).unwrap();
        let taken = sockets.open("listen_addr", address(&places[0].to_string())).unwrap();
        assert_eq!(taken.local_addr().unwrap(), places[0]);
        let taken_again = sockets.open("listen_addr", address(&places[0].to_string()));
        assert!(taken_again.is_err(), "the address is taken, and the socket for it gone");
        assert!(sockets.all_claimed().unwrap_err().to_string().contains(&places[1].to_string()));
        Sockets::none().all_claimed().unwrap();
    }
}
