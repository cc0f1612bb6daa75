//! At which target is a stream live through this relay?

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::target::TargetId;
use crate::protocol::name::Identity;

/// Streams that are known to be live; players of further ones go where their strategy says.
pub const MAX_LIVE: usize = 1_000_000;

/// Publications that run now. Cheap to clone; all clones know the same.
#[derive(Clone, Default)]
pub struct Live {
    shared: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    /// Of several publications of one name, which only a takeover or an origin's policy makes, the last counts.
    streams: HashMap<Box<[u8]>, Vec<(u64, TargetId)>>,
    /// Publications so far.
    serial: u64,
}

/// One running publication, known until this is dropped.
#[must_use = "the stream is no longer known to be live when this is dropped"]
pub struct Publication {
    live: Live,
    key: Box<[u8]>,
    serial: u64,
}

impl Live {
    /// `name` is published at `target` from now on.
    pub fn publish(&self, name: &Identity, target: TargetId) -> Publication {
        let key: Box<[u8]> = name.joined().into();
        let mut known = self.known();
        known.serial += 1;
        let serial = known.serial;
        if known.streams.len() < MAX_LIVE || known.streams.contains_key(&key) {
            known.streams.entry(key.clone()).or_default().push((serial, target));
        }
        Publication { live: self.clone(), key, serial }
    }

    /// Where `name` is live.
    pub fn target_of(&self, name: &Identity) -> Option<TargetId> {
        self.known().streams.get(&*name.joined())?.last().map(|(_, target)| *target)
    }

    /// Streams that are live.
    pub fn count(&self) -> usize {
        self.known().streams.len()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Publication {
    fn drop(&mut self) {
        let mut known = self.live.known();
        if let Some(publications) = known.streams.get_mut(&self.key) {
            publications.retain(|(serial, _)| *serial != self.serial);
            if publications.is_empty() {
                known.streams.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(app: &str, stream: &str) -> Identity {
        Identity { app: app.into(), stream: stream.into() }
    }

    #[test]
    fn a_stream_is_known_as_long_as_it_is_published() {
        let live = Live::default();
        assert_eq!(live.target_of(&name("live", "cam")), None);
        let publication = live.publish(&name("live", "cam"), TargetId(3));
        assert_eq!(live.target_of(&name("live", "cam")), Some(TargetId(3)));
        assert_eq!(live.target_of(&name("live", "mic")), None);
        drop(publication);
        assert_eq!((live.target_of(&name("live", "cam")), live.count()), (None, 0));
    }

    #[test]
    fn of_two_publications_the_last_counts_and_the_first_comes_back() {
        let live = Live::default();
        let first = live.publish(&name("live", "cam"), TargetId(0));
        let second = live.publish(&name("live", "cam"), TargetId(1));
        assert_eq!(live.target_of(&name("live", "cam")), Some(TargetId(1)));
        drop(second);
        assert_eq!(live.target_of(&name("live", "cam")), Some(TargetId(0)));
        let third = live.publish(&name("live", "cam"), TargetId(2));
        drop(first);
        assert_eq!(live.target_of(&name("live", "cam")), Some(TargetId(2)));
        drop(third);
        assert_eq!(live.count(), 0);
    }
}
