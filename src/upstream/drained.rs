//! Which targets take no new streams, because an operator said so?

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use super::target::TargetId;

/// Targets that are being emptied: sessions that are there stay, players of what is live there still come, nobody else does. Cheap
/// to clone; all clones are the same, whatever the configuration becomes.
#[derive(Debug, Clone, Default)]
pub struct Drained(Arc<RwLock<BTreeSet<TargetId>>>);

impl Drained {
    /// Whether `target` takes no new streams.
    pub fn holds(&self, target: TargetId) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(&target)
    }

    /// From now on `target` takes no new streams, or takes them again.
    pub fn set(&self, target: TargetId, drained: bool) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let _ = if drained { all.insert(target) } else { all.remove(&target) };
    }

    /// Forgets all but `known`.
    pub fn keep(&self, known: impl Fn(TargetId) -> bool) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).retain(|target| known(*target));
    }
}
