//! The slab pool: page-aligned memory of which each slab holds one frame, laid out as a record.
//!
//! Slabs come in size classes, each twice the one before, and are reused last in, first out, so that a
//! slab that was just read is still in the cache when it is filled again. The pool never holds more
//! than its budget; with nothing free and nothing left of the budget, [`SlabPool::take`] says so
//! and the frame is lost for the reason `no_slab`.

use std::sync::{Arc, Mutex, PoisonError};

use memmap2::MmapMut;

use crate::record::RECORD_ALIGN;

/// The smallest slab: 16 KiB.
const CLASS_BYTES_MIN: usize = 16 << 10;
/// Enough classes for a frame of 2^24 bytes with its record header: the largest is 32 MiB.
const CLASSES: usize = 12;

/// A pool of slabs with a fixed budget. Clones share it.
#[derive(Debug, Clone)]
pub struct SlabPool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    budget_bytes: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes of all slabs that exist, free or not.
    mapped_bytes: usize,
    /// Slabs that are not free.
    taken: usize,
    free: [Vec<MmapMut>; CLASSES],
}

/// Memory for one record, aligned to 4096 bytes. Dropping it gives it back to its pool.
#[derive(Debug)]
pub struct Slab {
    block: Option<MmapMut>,
    class: usize,
    pool: Arc<Shared>,
}

impl SlabPool {
    /// A pool that maps at most `budget_bytes`, on demand.
    #[must_use]
    pub fn new(budget_bytes: usize) -> SlabPool {
        SlabPool { shared: Arc::new(Shared { budget_bytes, state: Mutex::default() }) }
    }

    /// Bytes that the pool may map.
    #[must_use]
    pub fn budget_bytes(&self) -> usize {
        self.shared.budget_bytes
    }

    /// Number of slabs that are in use.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.shared.lock().taken
    }

    /// The size that a slab for `record_bytes` has.
    #[must_use]
    pub fn class_bytes(record_bytes: usize) -> usize {
        record_bytes.next_power_of_two().max(CLASS_BYTES_MIN)
    }

    /// Whether [`SlabPool::take`] would succeed at this moment.
    #[must_use]
    pub fn has_room(&self, record_bytes: usize) -> bool {
        let class = class_of(record_bytes);
        let state = self.shared.lock();
        class < CLASSES
            && (!state.free[class].is_empty()
                || state.reclaimable_bytes() + (CLASS_BYTES_MIN << class)
                    <= self.shared.budget_bytes)
    }

    /// The same, or the record would not even fit an empty pool, so that waiting is of no use.
    #[must_use]
    pub fn has_room_or_never(&self, record_bytes: usize) -> bool {
        SlabPool::class_bytes(record_bytes) > self.shared.budget_bytes
            || self.has_room(record_bytes)
    }

    /// Takes a slab of at least `record_bytes`. Its content is whatever was in it before.
    ///
    /// `None` if the budget is used up, the slab would be larger than all of it, or the system has
    /// no memory.
    #[must_use]
    pub fn take(&self, record_bytes: usize) -> Option<Slab> {
        let class = class_of(record_bytes);
        let mut state = self.shared.lock();
        let block = match state.free.get_mut(class)?.pop() {
            Some(block) => block,
            None => state.map(class, self.shared.budget_bytes)?,
        };
        state.taken += 1;
        Some(Slab { block: Some(block), class, pool: Arc::clone(&self.shared) })
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // A panic elsewhere leaves the lists whole: every change is one push or pop.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Bytes that would stay mapped if every free slab were given up.
    fn reclaimable_bytes(&self) -> usize {
        let free: usize =
            self.free.iter().enumerate().map(|(c, list)| list.len() * (CLASS_BYTES_MIN << c)).sum();
        self.mapped_bytes - free
    }

    /// Maps a new slab, at the price of free ones of other classes if the budget demands it.
    fn map(&mut self, class: usize, budget_bytes: usize) -> Option<MmapMut> {
        let bytes = CLASS_BYTES_MIN << class;
        if self.reclaimable_bytes() + bytes > budget_bytes {
            return None;
        }
        let mut victim = 0;
        while self.mapped_bytes + bytes > budget_bytes {
            match self.free[victim].pop() {
                Some(_unmapped) => self.mapped_bytes -= CLASS_BYTES_MIN << victim,
                None => victim += 1,
            }
        }
        let block = MmapMut::map_anon(bytes).ok()?;
        self.mapped_bytes += bytes;
        Some(block)
    }
}

fn class_of(record_bytes: usize) -> usize {
    (SlabPool::class_bytes(record_bytes) / CLASS_BYTES_MIN).trailing_zeros() as usize
}

impl std::ops::Deref for Slab {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.block.as_ref().expect("the block is there until drop")
    }
}

impl std::ops::DerefMut for Slab {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.block.as_mut().expect("the block is there until drop")
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        state.taken -= 1;
        state.free[self.class].extend(self.block.take());
    }
}

const _: () = assert!(CLASS_BYTES_MIN.is_multiple_of(RECORD_ALIGN));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slabs_are_aligned_and_reused_last_in_first_out() {
        let pool = SlabPool::new(1 << 20);
        let (a, b) = (pool.take(4096).unwrap(), pool.take(4096).unwrap());
        let (at_a, at_b) = (a.as_ptr(), b.as_ptr());
        assert_eq!(at_a.align_offset(RECORD_ALIGN), 0);
        drop(a);
        drop(b);
        assert_eq!(pool.take(4096).unwrap().as_ptr(), at_b);
        assert_ne!(at_a, at_b);
    }

    #[test]
    fn an_exhausted_pool_gives_none_until_a_slab_comes_back() {
        let pool = SlabPool::new(64 << 10);
        let taken: Vec<_> = std::iter::from_fn(|| pool.take(16 << 10)).collect();
        assert_eq!(taken.len(), 4);
        assert!(!pool.has_room(1));
        drop(taken);
        assert!(pool.has_room(1) && pool.take(1).is_some());
    }

    #[test]
    fn free_slabs_of_other_classes_make_room() {
        let pool = SlabPool::new(64 << 10);
        drop(std::iter::from_fn(|| pool.take(16 << 10)).collect::<Vec<_>>());
        let large = pool.take(64 << 10).expect("the four small ones are free");
        assert_eq!(large.len(), 64 << 10);
        assert!(pool.take(1).is_none());
    }

    #[test]
    fn a_record_larger_than_the_budget_or_any_class_is_refused() {
        assert!(SlabPool::new(64 << 10).take(65 << 10).is_none());
        assert!(SlabPool::new(usize::MAX).take(64 << 20).is_none());
        assert!(!SlabPool::new(usize::MAX).has_room(64 << 20));
    }

    #[test]
    fn the_largest_frame_has_a_class() {
        let bytes = crate::record::record_bytes(crate::record::frame_body_bytes((1 << 24) - 1));
        assert!(SlabPool::new(usize::MAX).take(bytes).is_some());
    }
}
