//! Which addresses does a host name have now?

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use tokio::sync::{Semaphore, oneshot};

use super::url::Host;

/// Look-ups at a time. More wait in order, within their dial's time.
pub const MAX_LOOKUPS: usize = 64;
/// Addresses of one answer that are tried; more are left alone.
pub const MAX_ADDRESSES: usize = 16;
/// Stack of a thread that runs getaddrinfo and its plug-ins.
const STACK: usize = 512 * 1024;

/// Answers for a name and a port, blocking.
pub type Lookup = Arc<dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

/// Asks the system's resolver, at most [`MAX_LOOKUPS`] times at once.
#[derive(Clone)]
pub struct Resolver {
    slots: Arc<Semaphore>,
    lookup: Lookup,
}

impl Resolver {
    /// The system's resolver: /etc/hosts, DNS, whatever nsswitch.conf says.
    pub fn system() -> Self {
        Self::with(Arc::new(|name, port| Ok((name, port).to_socket_addrs()?.collect())))
    }

    /// One with answers of its own.
    pub fn with(lookup: Lookup) -> Self {
        Self { slots: Arc::new(Semaphore::new(MAX_LOOKUPS)), lookup }
    }

    /// The addresses of `host`, in the resolver's order. A literal is its own answer and asks nobody.
    ///
    /// Dropping the future ends the wait at once. getaddrinfo cannot be interrupted: its thread, and its slot, are given
    /// back when it returns, so that a dead DNS server never costs more than [`MAX_LOOKUPS`] threads.
    ///
    /// # Errors
    /// What the resolver says; `NotFound` for an empty answer.
    pub async fn resolve(&self, host: &Host, port: u16) -> io::Result<Vec<SocketAddr>> {
        let name = match host {
            Host::Literal(ip) => return Ok(vec![SocketAddr::new(*ip, port)]),
            Host::Name(name) => name.clone(),
        };
        let slot = self.slots.clone().acquire_owned().await.map_err(io::Error::other)?;
        let (answer, answered) = oneshot::channel();
        let lookup = self.lookup.clone();
        // A thread of our own: tokio's blocking pool would make the end of the process wait for it.
        std::thread::Builder::new().name("relay-resolve".into()).stack_size(STACK).spawn(move || {
            let addresses = lookup(&name, port);
            drop(slot);
            // Nobody listens when the dial was cancelled.
            answer.send(addresses).ok();
        })?;
        let addresses = answered.await.map_err(|_| io::Error::other("the resolver's thread ended without an answer"))??;
        distinct(addresses)
    }
}

fn distinct(addresses: Vec<SocketAddr>) -> io::Result<Vec<SocketAddr>> {
    let mut kept: Vec<SocketAddr> = Vec::new();
    for address in addresses {
        if kept.len() == MAX_ADDRESSES {
            break;
        }
        // A zone or flow label from a resolver is nothing to dial by.
        let address = SocketAddr::new(plain(address.ip()), address.port());
        if !kept.contains(&address) {
            kept.push(address);
        }
    }
    if kept.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(kept)
}

/// A mapped address is dialled as the address of version 4 that it is.
fn plain(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn name(text: &str) -> Host {
        Host::Name(text.into())
    }

    #[tokio::test]
    async fn a_literal_asks_nobody() {
        let resolver = Resolver::with(Arc::new(|_, _| Err(io::Error::other("asked"))));
        let ip = "2001:db8::1".parse().expect("an address");
        assert_eq!(resolver.resolve(&Host::Literal(ip), 1935).await.expect("an answer"), [SocketAddr::new(ip, 1935)]);
    }

    #[tokio::test]
    async fn answers_keep_their_order_without_repetition_and_within_the_bound() {
        let resolver = Resolver::with(Arc::new(|_, port| {
            let mut all: Vec<SocketAddr> = vec![SocketAddr::new("::ffff:8.8.8.8".parse().expect("ip"), port)];
            all.push(SocketAddr::new("8.8.8.8".parse().expect("ip"), port));
            all.extend((0..40).map(|n| SocketAddr::new([8, 8, 4, n].into(), port)));
            Ok(all)
        }));
        let got = resolver.resolve(&name("many.example"), 7).await.expect("an answer");
        assert_eq!(got.len(), MAX_ADDRESSES);
        assert_eq!(got[0], "8.8.8.8:7".parse().expect("an address"));
        assert_eq!(got[1], "8.8.4.0:7".parse().expect("an address"));
    }

    #[tokio::test]
    async fn an_empty_answer_and_a_panicking_resolver_are_errors() {
        let empty = Resolver::with(Arc::new(|_, _| Ok(Vec::new())));
        assert_eq!(empty.resolve(&name("x"), 1).await.expect_err("empty").kind(), io::ErrorKind::NotFound);
        let broken = Resolver::with(Arc::new(|_, _| panic!("a broken plug-in")));
        assert!(broken.resolve(&name("x"), 1).await.is_err());
        assert_eq!(broken.slots.available_permits(), MAX_LOOKUPS);
    }

    #[tokio::test]
    async fn a_dead_resolver_never_holds_more_threads_than_the_bound() {
        let gate = Arc::new(Mutex::new(()));
        let running = Arc::new(AtomicUsize::new(0));
        let shut = gate.lock().expect("the gate");
        let resolver = Resolver::with({
            let (gate, running) = (gate.clone(), running.clone());
            Arc::new(move |_, port| {
                running.fetch_add(1, SeqCst);
                drop(gate.lock());
                Ok(vec![SocketAddr::new([8, 8, 8, 8].into(), port)])
            })
        });
        let host = name("slow.example");
        // Each of these is cancelled while getaddrinfo "runs".
        for _ in 0..MAX_LOOKUPS + 20 {
            let cancelled = timeout(Duration::ZERO, resolver.resolve(&host, 1)).await;
            assert!(cancelled.is_err());
        }
        assert_eq!(resolver.slots.available_permits(), 0);
        assert!(running.load(SeqCst) <= MAX_LOOKUPS);
        drop(shut);
        assert!(resolver.resolve(&host, 1).await.is_ok(), "the slots come back");
        assert!(running.load(SeqCst) <= MAX_LOOKUPS + 1);
    }
}
