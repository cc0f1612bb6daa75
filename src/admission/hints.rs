//! Pure: which addresses were lately hinted at, so that one hint does not become a stream of them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::IpKey;

/// An address is hinted at once in this time.
const EVERY: Duration = Duration::from_secs(600);
/// Addresses remembered; while all of them are fresh, no further address is hinted at.
const MAX_ADDRESSES: usize = 64;

/// Memory of hints given.
#[derive(Debug, Default)]
pub struct Hints {
    given: HashMap<IpKey, Instant>,
}

impl Hints {
    /// Whether a hint about `key` is due; a due hint counts as given.
    pub fn due(&mut self, key: IpKey, now: Instant) -> bool {
        let fresh = |given: &Instant| now.saturating_duration_since(*given) < EVERY;
        if self.given.get(&key).is_some_and(fresh) {
            return false;
        }
        if self.given.len() >= MAX_ADDRESSES {
            self.given.retain(|_, given| fresh(given));
        }
        let due = self.given.len() < MAX_ADDRESSES;
        if due {
            self.given.insert(key, now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> IpKey {
        IpKey::of([192, 0, 2, n].into())
    }

    #[test]
    fn an_address_is_hinted_at_once_in_ten_minutes() {
        let (mut hints, now) = (Hints::default(), Instant::now());
        assert!(hints.due(key(1), now));
        assert!(!hints.due(key(1), now + EVERY / 2));
        assert!(hints.due(key(2), now), "another address has its own");
        assert!(hints.due(key(1), now + EVERY));
    }

    #[test]
    fn a_crowd_of_addresses_is_hinted_at_a_bounded_number_of_times() {
        let (mut hints, now) = (Hints::default(), Instant::now());
        let given = (0..=255).filter(|&n| hints.due(key(n), now)).count();
        assert_eq!(given, MAX_ADDRESSES);
        assert!(hints.due(key(255), now + EVERY), "room again once the old ones are stale");
    }
}
