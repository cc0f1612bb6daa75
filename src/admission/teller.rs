//! How many refused clients may be told why at once?

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Refusals told at once. Telling costs a handshake; a flood must not buy many of those, so the others are reset.
pub const MAX_TELLING: usize = 64;

/// Hands out the right to tell a client why it is refused. Cloned handles share the bound.
#[derive(Debug, Clone, Default)]
pub struct RefusalTeller(Arc<AtomicUsize>);

impl RefusalTeller {
    /// The right to tell one client, while fewer than [`MAX_TELLING`] are being told; `None`: close without a word.
    pub fn try_begin(&self) -> Option<Telling> {
        let one_more = |telling| (telling < MAX_TELLING).then_some(telling + 1);
        self.0.fetch_update(Relaxed, Relaxed, one_more).ok()?;
        Some(Telling(Arc::clone(&self.0)))
    }

    /// Clients that are being told now.
    pub fn telling(&self) -> usize {
        self.0.load(Relaxed)
    }
}

/// One client is being told, until this is dropped.
#[derive(Debug)]
#[must_use = "the place is given back when this is dropped"]
pub struct Telling(Arc<AtomicUsize>);

impl Drop for Telling {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_sixty_four_clients_are_told_at_once() {
        let teller = RefusalTeller::default();
        let mut telling: Vec<Telling> = std::iter::from_fn(|| teller.try_begin()).take(1000).collect();
        assert_eq!(telling.len(), MAX_TELLING);
        assert!(teller.clone().try_begin().is_none(), "a clone shares the bound");
        telling.pop();
        telling.push(teller.try_begin().expect("one place is free again"));
        drop(telling);
        assert_eq!(teller.telling(), 0);
    }
}
