//! Which addresses does a host name have now?

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::timeout_at;

use super::answers::{Answer, Answers, Key, Known};
use super::url::Host;
use crate::config::Dns;

/// Look-ups at a time. More wait in order, within their dial's time.
pub const MAX_LOOKUPS: usize = 64;
/// Addresses of one answer that are tried; more are left alone.
pub const MAX_ADDRESSES: usize = 16;
/// How long a look-up may take before an old answer is taken in its place.
const STALE_PATIENCE: Duration = Duration::from_millis(500);
/// Stack of a thread that runs getaddrinfo and its plug-ins.
const STACK: usize = 512 * 1024;

/// Answers for a name and a port, blocking.
pub type Lookup = Arc<dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

/// Asks the system's resolver, at most [`MAX_LOOKUPS`] times at once, once for all who ask for the same meanwhile, and remembers.
#[derive(Clone)]
pub struct Resolver {
    slots: Arc<Semaphore>,
    lookup: Lookup,
    memory: Arc<Mutex<Memory>>,
}

struct Memory {
    answers: Answers,
    flights: HashMap<Key, Flight>,
}

/// A look-up that is under way.
#[derive(Clone)]
struct Flight {
    began: Instant,
    landed: watch::Receiver<Option<Answer>>,
}

impl Resolver {
    /// The system's resolver: /etc/hosts, DNS, whatever nsswitch.conf says.
    pub fn system(lifetimes: Dns) -> Self {
        Self::with(Arc::new(|name, port| Ok((name, port).to_socket_addrs()?.collect())), lifetimes)
    }

    /// One with answers of its own.
    pub fn with(lookup: Lookup, lifetimes: Dns) -> Self {
        let memory = Memory { answers: Answers::new(lifetimes), flights: HashMap::new() };
        Self { slots: Arc::new(Semaphore::new(MAX_LOOKUPS)), lookup, memory: Arc::new(Mutex::new(memory)) }
    }

    /// The same, for tests that want every question asked.
    #[cfg(test)]
    pub(super) fn forgetful(lookup: Lookup) -> Self {
        Self::with(lookup, Dns { cache_ttl: Duration::ZERO, stale_ttl: Duration::ZERO })
    }

    /// The addresses of `host`, in the resolver's order. A literal is its own answer and asks nobody.
    ///
    /// An old answer is taken where there is no new one in good time: DNS may be down while the origin is not.
    /// Dropping the future ends the wait at once. getaddrinfo cannot be interrupted: its thread, and its slot, are given
    /// back when it returns, so that a dead DNS server never costs more than [`MAX_LOOKUPS`] threads.
    ///
    /// # Errors
    /// What the resolver says; `NotFound` for an empty answer.
    pub async fn resolve(&self, host: &Host, port: u16) -> io::Result<Vec<SocketAddr>> {
        let key = match host {
            Host::Literal(ip) => return Ok(vec![SocketAddr::new(*ip, port)]),
            Host::Name(name) => (name.clone(), port),
        };
        let known = self.memory().answers.get(&key, Instant::now());
        let answer = match known {
            Known::Enough(answer) => answer,
            Known::Unknown => landed(self.flight(key)).await,
            Known::Stale(addresses) => {
                let flight = self.flight(key);
                let until = flight.began + STALE_PATIENCE;
                match timeout_at(until.into(), landed(flight)).await {
                    Ok(Ok(fresh)) => Ok(fresh),
                    Ok(Err(_)) | Err(_) => Ok(addresses),
                }
            }
        };
        answer.map(|addresses| addresses.to_vec()).map_err(|(kind, text)| io::Error::new(kind, text))
    }

    /// Nobody could be reached at the addresses of `host`: the next who asks hears whether they have changed.
    pub fn doubt(&self, host: &Host, port: u16) {
        if let Host::Name(name) = host {
            self.memory().answers.doubt(&(name.clone(), port), Instant::now());
        }
    }

    /// The look-up that is under way, or a new one.
    fn flight(&self, key: Key) -> Flight {
        let mut memory = self.memory();
        if let Some(flight) = memory.flights.get(&key) {
            return flight.clone();
        }
        let (land, landed) = watch::channel(None);
        let flight = Flight { began: Instant::now(), landed };
        memory.flights.insert(key.clone(), flight.clone());
        tokio::spawn(fly(self.clone(), Landing { memory: Arc::clone(&self.memory), key, land }));
        flight
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One look-up, on a thread of its own: tokio's blocking pool would make the end of the process wait for it.
    async fn look_up(&self, (name, port): Key) -> io::Result<Vec<SocketAddr>> {
        let slot = self.slots.clone().acquire_owned().await.map_err(io::Error::other)?;
        let (answer, answered) = oneshot::channel();
        let lookup = self.lookup.clone();
        std::thread::Builder::new().name("relay-resolve".into()).stack_size(STACK).spawn(move || {
            let addresses = lookup(&name, port);
            drop(slot);
            answer.send(addresses).ok();
        })?;
        let addresses = answered.await.map_err(|_| io::Error::other("the resolver's thread ended without an answer"))??;
        distinct(addresses)
    }
}

/// Ends a flight however it ends: those who wait must not wait for nothing.
struct Landing {
    memory: Arc<Mutex<Memory>>,
    key: Key,
    land: watch::Sender<Option<Answer>>,
}

impl Landing {
    fn with(self, answer: Answer) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.answers.learn(self.key.clone(), Instant::now(), answer.clone());
        drop(memory);
        self.land.send_replace(Some(answer));
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).flights.remove(&self.key);
    }
}

async fn fly(resolver: Resolver, landing: Landing) {
    let answer = resolver.look_up(landing.key.clone()).await;
    landing.with(answer.map(Into::into).map_err(|error| (error.kind(), error.to_string())));
}

async fn landed(mut flight: Flight) -> Answer {
    let lost = || Err((io::ErrorKind::Other, "the look-up was lost".to_owned()));
    match flight.landed.wait_for(Option::is_some).await {
        Ok(answer) => answer.clone().unwrap_or_else(lost),
        Err(_) => lost(),
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
#[path = "resolve_tests.rs"]
mod tests;
