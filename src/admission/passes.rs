//! Pure: connections that belong to one which has been counted.
//!
//! A login by user name and password takes three connections. The first is counted; it leaves a pass for each that must follow. A connection
//! that came by a pass leaves none: whoever only ever begins to log in connects three times as often as the rate says, and no oftener.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::IpKey;

/// How long passes hold.
const HOLD: Duration = Duration::from_secs(30);
/// Addresses with passes; beyond, further ones get none, and each step of their logins counts.
pub const MAX_PASSES: usize = 4096;
/// Most passes of one address: several encoders may log in behind it.
const MOST: u8 = 64;

/// Who may connect without being counted, and how often.
#[derive(Debug, Default)]
pub struct Passes {
    given: HashMap<IpKey, Given>,
}

#[derive(Debug)]
struct Given {
    left: u8,
    until: Instant,
}

impl Passes {
    /// Gives `key` so many more.
    pub fn give(&mut self, key: IpKey, connections: u8, now: Instant) {
        if self.given.len() >= MAX_PASSES && !self.given.contains_key(&key) {
            self.expire(now);
        }
        if self.given.len() >= MAX_PASSES && !self.given.contains_key(&key) {
            return;
        }
        let given = self.given.entry(key).or_insert(Given { left: 0, until: now });
        let left = if given.until < now { 0 } else { given.left };
        *given = Given { left: left.saturating_add(connections).min(MOST), until: now + HOLD };
    }

    /// Takes one of `key`'s, if it has any.
    pub fn take(&mut self, key: IpKey, now: Instant) -> bool {
        let Some(given) = self.given.get_mut(&key) else { return false };
        let valid = given.until >= now;
        given.left -= 1;
        if given.left == 0 || !valid {
            self.given.remove(&key);
        }
        valid
    }

    /// Forgets those that hold no longer.
    pub fn expire(&mut self, now: Instant) {
        self.given.retain(|_, given| given.until >= now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> IpKey {
        IpKey::of(std::net::Ipv4Addr::from_bits(0x0A00_0000 + n).into())
    }

    #[test]
    fn as_many_pass_as_were_given_and_only_in_time() {
        let (mut passes, now) = (Passes::default(), Instant::now());
        assert!(!passes.take(key(1), now));
        passes.give(key(1), 2, now);
        passes.give(key(1), 1, now);
        assert!(!passes.take(key(2), now), "they are an address's own");
        assert_eq!((0..9).filter(|_| passes.take(key(1), now + HOLD)).count(), 3);
        passes.give(key(1), 2, now);
        assert!(!passes.take(key(1), now + HOLD + HOLD / 30), "too late");
        passes.give(key(1), 1, now);
        passes.give(key(1), 1, now + 2 * HOLD);
        assert_eq!((0..9).filter(|_| passes.take(key(1), now + 2 * HOLD)).count(), 1, "the old one is not renewed");
    }

    #[test]
    fn neither_one_address_nor_many_can_hoard() {
        let (mut passes, now) = (Passes::default(), Instant::now());
        (0..200).for_each(|_| passes.give(key(1), 2, now));
        assert_eq!((0..500).filter(|_| passes.take(key(1), now)).count(), usize::from(MOST));
        let many = u32::try_from(MAX_PASSES).unwrap();
        (0..=many).for_each(|n| passes.give(key(n), 1, now));
        assert!(passes.take(key(0), now) && !passes.take(key(many), now), "the last one found no room");
        passes.give(key(many), 1, now);
        passes.give(key(0), 1, now + 2 * HOLD);
        assert_eq!(passes.given.len(), 1, "room is made where it is needed");
    }
}
