//! Buffers lent to sessions while bytes are in hand, and no longer.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// What all workers' pools share, and /status shows.
#[derive(Debug)]
pub struct BufferStats {
    size: AtomicUsize,
    max_total: AtomicUsize,
    lent: AtomicUsize,
    unheld: AtomicU64,
    made: AtomicU64,
}

impl BufferStats {
    /// Counts from nothing.
    pub fn new(size: usize, max_total: usize) -> Arc<Self> {
        let (size, max_total) = (AtomicUsize::new(size), AtomicUsize::new(max_total));
        Arc::new(Self { size, max_total, lent: AtomicUsize::new(0), unheld: AtomicU64::new(0), made: AtomicU64::new(0) })
    }

    /// Bytes of a new buffer.
    pub fn size(&self) -> usize {
        self.size.load(Relaxed)
    }

    /// At most so many bytes may be in hand before holds are given up, bytes.
    pub fn max_total(&self) -> usize {
        self.max_total.load(Relaxed)
    }

    /// Changes both. Sessions whose buffers are larger keep them.
    pub fn configure(&self, size: usize, max_total: usize) {
        self.size.store(size, Relaxed);
        self.max_total.store(max_total, Relaxed);
    }

    /// Buffers lent now.
    pub fn lent(&self) -> usize {
        self.lent.load(Relaxed)
    }

    /// Messages passed on in pieces because `max_total` was reached.
    pub fn unheld(&self) -> u64 {
        self.unheld.load(Relaxed)
    }

    /// Buffers that were made because none was spare.
    pub fn made(&self) -> u64 {
        self.made.load(Relaxed)
    }

    /// Whether a message may be held until it is whole. Counts where it may not.
    pub(super) fn may_hold(&self) -> bool {
        let may = self.lent().saturating_mul(self.size()) <= self.max_total();
        if !may {
            self.unheld.fetch_add(1, Relaxed);
        }
        may
    }
}

/// One worker's spare buffers.
#[derive(Debug)]
pub(super) struct Pool {
    spare: RefCell<Vec<Box<[u8]>>>,
    keep: Cell<usize>,
    stats: Arc<BufferStats>,
}

impl Pool {
    /// Keeps at most `keep` spare buffers; more are freed when they come back.
    pub(super) fn new(keep: usize, stats: Arc<BufferStats>) -> Rc<Self> {
        Rc::new(Self { spare: RefCell::default(), keep: Cell::new(keep), stats })
    }

    /// Keeps another number; what is spare beyond it goes, and so does what has another size by now.
    pub(super) fn configure(&self, keep: usize) {
        self.keep.set(keep);
        let mut spare = self.spare.borrow_mut();
        spare.retain(|bytes| bytes.len() == self.stats.size());
        spare.truncate(keep);
    }

    pub(super) fn stats(&self) -> &BufferStats {
        &self.stats
    }

    /// A buffer of `size` bytes or more. Always: what may not be held is passed on, and for that it must be read.
    pub(super) fn lend(self: &Rc<Self>, size: usize) -> Buffer {
        self.stats.lent.fetch_add(1, Relaxed);
        let spare = self.spare.borrow_mut().pop().filter(|bytes| bytes.len() >= size);
        let bytes = spare.unwrap_or_else(|| {
            self.stats.made.fetch_add(1, Relaxed);
            vec![0; self.stats.size().max(size)].into_boxed_slice()
        });
        Buffer { bytes, pool: Rc::clone(self) }
    }
}

/// A lent buffer; goes back when dropped. Its bytes are whatever the last borrower left: only what was read is to be looked at.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    pool: Rc<Pool>,
}

impl std::ops::Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.stats.lent.fetch_sub(1, Relaxed);
        if let Ok(mut spare) = self.pool.spare.try_borrow_mut()
            && spare.len() < self.pool.keep.get()
            && self.bytes.len() == self.pool.stats.size()
        {
            spare.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_and_at_most_so_many_are_kept() {
        let stats = BufferStats::new(4096, 2 * 4096);
        let pool = Pool::new(1, Arc::clone(&stats));
        let lent = [pool.lend(4096), pool.lend(4096), pool.lend(1)];
        assert_eq!(stats.lent(), 3);
        assert!(!stats.may_hold(), "three are more than max_total");
        assert_eq!(stats.unheld(), 1);
        drop(lent);
        assert_eq!(stats.lent(), 0);
        assert_eq!(pool.spare.borrow().len(), 1);
        assert!(stats.may_hold());
        drop(pool.lend(4096));
        assert_eq!(stats.made(), 3, "the fourth was spare");
    }

    #[test]
    fn another_size_holds_for_new_buffers_and_old_sessions_get_what_they_need() {
        let stats = BufferStats::new(4096, 1 << 20);
        let pool = Pool::new(8, Arc::clone(&stats));
        let old = pool.lend(4096);
        drop(pool.lend(4096));
        stats.configure(8192, 1 << 21);
        pool.configure(8);
        assert!(pool.spare.borrow().is_empty(), "what was spare has the old size");
        assert_eq!((pool.lend(8192).len(), pool.lend(4096).len()), (8192, 8192));
        drop(old);
        assert!(pool.spare.borrow().iter().all(|bytes| bytes.len() == 8192));
        stats.configure(4096, 1 << 21);
        pool.configure(8);
        assert_eq!(pool.lend(8192).len(), 8192, "a session that began with more");
    }
}
