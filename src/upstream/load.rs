//! How many sessions does this relay have at each target?

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::target::TargetId;
use crate::telemetry::{SessionAtUpstream, Telemetry};

/// Sessions and dials in progress, a count for each target. Cheap to clone; all clones count in the same place.
#[derive(Clone)]
pub struct Loads {
    slots: Arc<[Arc<Slot>]>,
    telemetry: Telemetry,
}

struct Slot {
    id: TargetId,
    sessions: Arc<AtomicU32>,
    most: Option<u32>,
    label: String,
}

/// One session's place at a target, given back when this is dropped.
#[must_use = "the place is given back when this is dropped"]
pub struct Load {
    slot: Arc<Slot>,
    _shown: SessionAtUpstream,
}

impl Loads {
    /// Counts for targets with their labels; `most`: sessions there may be at the same time. Targets that `before` counts too are
    /// counted on.
    pub fn new<'a>(
        targets: impl IntoIterator<Item = (TargetId, &'a str, Option<u32>)>,
        telemetry: Telemetry,
        before: Option<&Self>,
    ) -> Self {
        let slot = |(id, label, most): (TargetId, &str, Option<u32>)| {
            let sessions = before.and_then(|before| before.slot(id)).map(|slot| Arc::clone(&slot.sessions)).unwrap_or_default();
            Arc::new(Slot { id, sessions, most, label: label.to_owned() })
        };
        Self { slots: targets.into_iter().map(slot).collect(), telemetry }
    }

    /// Takes a place at `target`; `None` where it has as many as it may have, or is none of these.
    pub fn take(&self, target: TargetId) -> Option<Load> {
        let slot = self.slot(target)?;
        let below = |sessions: u32| slot.most.is_none_or(|most| sessions < most).then(|| sessions.saturating_add(1));
        slot.sessions.fetch_update(Relaxed, Relaxed, below).ok()?;
        Some(Load { slot: Arc::clone(slot), _shown: self.telemetry.metrics().session_at(&slot.label) })
    }

    /// Sessions at `target`.
    pub fn of(&self, target: TargetId) -> u32 {
        self.slot(target).map_or(0, |slot| slot.sessions.load(Relaxed))
    }

    /// Whether `target` has as many as it may have.
    pub fn is_full(&self, target: TargetId) -> bool {
        self.slot(target).is_some_and(|slot| slot.most.is_some_and(|most| slot.sessions.load(Relaxed) >= most))
    }

    fn slot(&self, target: TargetId) -> Option<&Arc<Slot>> {
        self.slots.iter().find(|slot| slot.id == target)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.slot.sessions.fetch_sub(1, Relaxed);
    }
}

impl std::fmt::Debug for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Load({})", self.slot.id.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_taken_up_to_the_bound_and_given_back_once() {
        let (full, free) = (TargetId(0), TargetId(1));
        let loads = Loads::new([(full, "rtmp://a:1935", Some(2)), (free, "rtmp://b:1935", None)], Telemetry::silent(), None);
        let held: Vec<_> = (0..3).map(|_| loads.take(full)).collect();
        assert_eq!(held.iter().filter(|load| load.is_some()).count(), 2);
        assert!(loads.is_full(full) && loads.of(full) == 2);
        drop(held);
        assert!(!loads.is_full(full) && loads.of(full) == 0);
        let many: Vec<_> = (0..1000).filter_map(|_| loads.clone().take(free)).collect();
        assert!(loads.of(free) == 1000 && !loads.is_full(free));
        drop(many);
        assert_eq!(loads.of(free), 0);
    }
}
