//! Pure: who holds a place, and is there one more?

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use super::hints::Hints;
use super::{IpKey, Refusal};
use crate::config::ConnectionLimit;

/// Number of a place, never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(u64);

/// A place that was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Given {
    /// To be named at [`Ledger::release`].
    pub place: Place,
    /// Whether a log line should now hint that this address has filled its places.
    pub fills_address: bool,
}

/// Every place taken, by whom. Bounded by `max_total_connections`.
#[derive(Debug)]
pub struct Ledger<T> {
    limit: ConnectionLimit,
    draining: bool,
    next: u64,
    places: BTreeMap<Place, (IpKey, T)>,
    per_ip: HashMap<IpKey, u32>,
    hints: Hints,
}

impl<T> Ledger<T> {
    /// An empty ledger.
    pub fn new(limit: ConnectionLimit) -> Self {
        Self { limit, draining: false, next: 0, places: BTreeMap::new(), per_ip: HashMap::new(), hints: Hints::default() }
    }

    /// Gives a place to `holder`, which comes from `key`.
    ///
    /// # Errors
    /// [`Refusal::Draining`], [`Refusal::MaxPerIp`], [`Refusal::MaxTotal`]. An address that is full hears of itself first: that
    /// is what it can change.
    pub fn admit(&mut self, key: IpKey, holder: T, now: Instant) -> Result<Given, Refusal> {
        if self.draining {
            return Err(Refusal::Draining);
        }
        let held = self.per_ip.get(&key).copied().unwrap_or(0);
        if self.limit.max_per_ip.is_some_and(|max| held >= max) {
            return Err(Refusal::MaxPerIp { key, held, hint: self.hints.due(key, now) });
        }
        if self.active() >= self.limit.max_total_connections {
            return Err(Refusal::MaxTotal { held: self.active() });
        }
        let place = Place(self.next);
        self.next += 1;
        self.places.insert(place, (key, holder));
        self.per_ip.insert(key, held + 1);
        Ok(Given { place, fills_address: self.fills(held + 1) && self.hints.due(key, now) })
    }

    /// Takes a place back. A place that nobody holds is no error, and changes nothing.
    pub fn release(&mut self, place: Place) -> Option<T> {
        let (key, holder) = self.places.remove(&place)?;
        if let Entry::Occupied(mut held) = self.per_ip.entry(key) {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
        Some(holder)
    }

    /// Places taken.
    pub fn active(&self) -> u32 {
        u32::try_from(self.places.len()).unwrap_or(u32::MAX)
    }

    /// Addresses that hold a place.
    pub fn addresses(&self) -> usize {
        self.per_ip.len()
    }

    /// The `n` addresses with the most places, most first.
    pub fn top(&self, n: usize) -> Vec<(IpKey, u32)> {
        let order = |a: &(IpKey, u32), b: &(IpKey, u32)| b.1.cmp(&a.1).then(a.0.cmp(&b.0));
        let mut all: Vec<_> = self.per_ip.iter().map(|(key, held)| (*key, *held)).collect();
        if n > 0 && n < all.len() {
            all.select_nth_unstable_by(n - 1, order);
        }
        all.truncate(n);
        all.sort_unstable_by(order);
        all
    }

    /// Who holds places, in the order of admission.
    pub fn holders(&self) -> impl Iterator<Item = &T> {
        self.places.values().map(|(_, holder)| holder)
    }

    /// The limits in force.
    pub fn limit(&self) -> &ConnectionLimit {
        &self.limit
    }

    /// Whether no place is given any more.
    pub fn draining(&self) -> bool {
        self.draining
    }

    /// From now on no place is given.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Changes the limits. Who is in stays in, even above a lower limit.
    pub fn configure(&mut self, limit: ConnectionLimit) {
        self.limit = limit;
    }

    /// With one place an address, every address is full at once, and that says nothing; its first refusal does.
    fn fills(&self, held: u32) -> bool {
        self.limit.max_per_ip.is_some_and(|max| max > 1 && held == max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limit(max_total_connections: u32, max_per_ip: Option<u32>) -> ConnectionLimit {
        ConnectionLimit { max_total_connections, max_per_ip }
    }

    fn key(n: u8) -> IpKey {
        IpKey::of([192, 0, 2, n].into())
    }

    #[test]
    fn the_last_place_of_an_address_is_flagged_once() {
        let (mut ledger, now) = (Ledger::new(limit(10, Some(2))), Instant::now());
        assert!(!ledger.admit(key(1), (), now).unwrap().fills_address);
        let second = ledger.admit(key(1), (), now).unwrap();
        assert!(second.fills_address);
        assert_eq!(ledger.admit(key(1), (), now), Err(Refusal::MaxPerIp { key: key(1), held: 2, hint: false }));
        ledger.release(second.place);
        assert!(!ledger.admit(key(1), (), now).unwrap().fills_address, "not again for some minutes");
    }

    #[test]
    fn with_one_place_an_address_only_its_refusal_is_flagged() {
        let (mut ledger, now) = (Ledger::new(limit(10, Some(1))), Instant::now());
        assert!(!ledger.admit(key(1), (), now).unwrap().fills_address);
        assert_eq!(ledger.admit(key(1), (), now), Err(Refusal::MaxPerIp { key: key(1), held: 1, hint: true }));
        assert_eq!(ledger.admit(key(1), (), now), Err(Refusal::MaxPerIp { key: key(1), held: 1, hint: false }));
    }

    #[test]
    fn a_place_given_back_twice_counts_once() {
        let (mut ledger, now) = (Ledger::new(limit(2, None)), Instant::now());
        let first = ledger.admit(key(1), 'a', now).unwrap();
        ledger.admit(key(1), 'b', now).unwrap();
        assert_eq!(ledger.release(first.place), Some('a'));
        assert_eq!(ledger.release(first.place), None);
        assert_eq!((ledger.active(), ledger.addresses()), (1, 1));
    }

    #[test]
    fn a_lower_limit_keeps_who_is_in_and_a_drain_lets_nobody_in() {
        let (mut ledger, now) = (Ledger::new(limit(3, None)), Instant::now());
        let places: Vec<_> = (0..3).map(|n| ledger.admit(key(n), n, now).unwrap().place).collect();
        ledger.configure(limit(1, Some(1)));
        assert_eq!(ledger.active(), 3);
        assert_eq!(ledger.admit(key(9), 9, now), Err(Refusal::MaxTotal { held: 3 }));
        assert!(places.into_iter().all(|place| ledger.release(place).is_some()));
        ledger.drain();
        assert_eq!(ledger.admit(key(9), 9, now), Err(Refusal::Draining));
    }

    #[test]
    fn the_busiest_addresses_come_first() {
        let (mut ledger, now) = (Ledger::new(limit(100, None)), Instant::now());
        for n in 0..5 {
            (0..=n).for_each(|_| assert!(ledger.admit(key(n), (), now).is_ok()));
        }
        assert_eq!(ledger.top(2), [(key(4), 5), (key(3), 4)]);
        assert_eq!(ledger.top(0), []);
        assert_eq!(ledger.top(20).len(), 5);
    }

    proptest! {
        #[test]
        fn the_counts_are_those_of_a_simple_model(
            max_total in 1u32..12,
            max_per_ip in proptest::option::of(1u32..5),
            steps in proptest::collection::vec((0u8..6, any::<Option<prop::sample::Index>>()), 0..200),
        ) {
            let (mut ledger, now) = (Ledger::new(limit(max_total, max_per_ip)), Instant::now());
            let mut model: Vec<(Place, u8)> = Vec::new();
            for (address, release) in steps {
                let of = |model: &[(Place, u8)], a: u8| model.iter().filter(|held| held.1 == a).count() as u32;
                match release {
                    Some(index) if !model.is_empty() => {
                        let (place, _) = model.swap_remove(index.index(model.len()));
                        prop_assert!(ledger.release(place).is_some());
                    }
                    _ => {
                        let room = (model.len() as u32) < max_total && max_per_ip.is_none_or(|max| of(&model, address) < max);
                        let given = ledger.admit(key(address), (), now);
                        prop_assert_eq!(given.is_ok(), room);
                        model.extend(given.ok().map(|given| (given.place, address)));
                    }
                }
                prop_assert_eq!(ledger.active() as usize, model.len());
                prop_assert!(ledger.active() <= max_total);
                for (key_, held) in ledger.top(20) {
                    prop_assert!(held > 0 && max_per_ip.is_none_or(|max| held <= max));
                    prop_assert!((0..6).any(|a| key(a) == key_ && of(&model, a) == held));
                }
            }
            prop_assert!(model.into_iter().all(|(place, _)| ledger.release(place).is_some()));
            prop_assert_eq!((ledger.active(), ledger.addresses()), (0, 0));
        }
    }
}
