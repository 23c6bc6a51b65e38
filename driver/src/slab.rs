//! The slab pool: page-aligned memory of which each slab holds one frame, laid out as a record.
//!
//! Slabs come in size classes, each twice the one before, and are reused last in, first out, so that a
//! slab that was just read is still in the cache when it is filled again. The pool never holds more
//! than its budget; with nothing free and nothing left of the budget, [`SlabPool::take`] says so
//! and the frame is lost for the reason `no_slab`.
//!
//! Once as many slabs exist as are ever in use at a time, a frame costs no allocation, no page fault
//! and no call of the system: all pages are there from the beginning, and the count of those who
//! hold a slab stands beside it and is used again with it.

#[allow(unsafe_code)]
mod region;

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::record::{RECORD_ALIGN, RecordHeader};
use crate::ring::Timestamp;
pub(crate) use region::Region;
use region::{HUGE_PAGE_BYTES, Stretch};

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
    /// Slabs are cut from huge pages.
    huge: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes of all slabs that exist, free or not.
    mapped_bytes: usize,
    /// Slabs that are not free.
    taken: usize,
    free: [Vec<Arc<Block>>; CLASSES],
    /// Slabs that exist, free or not.
    existing: [usize; CLASSES],
}

/// The memory of a slab.
#[derive(Debug)]
struct Block {
    memory: Stretch,
    class: usize,
    /// Of the record that was sealed here last.
    seal: Option<Seal>,
    /// Apart from the count that an `Arc` keeps: the last holder hands the `Arc` on to the pool.
    holders: AtomicUsize,
    pool: Weak<Shared>,
}

/// What is known of a sealed record without reading it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seal {
    pub(crate) header: RecordHeader,
    /// Start of the exposure.
    pub(crate) time: Timestamp,
    /// Whether the record header is in place, with its checksums.
    pub(crate) is_record: bool,
}

/// One holder of a block. The last one that is dropped gives the block back to its pool.
#[derive(Debug)]
struct Hold {
    block: Option<Arc<Block>>,
}

/// Memory for one record, aligned to 4096 bytes. Dropping it gives it back to its pool.
#[derive(Debug)]
pub struct Slab(Hold);

/// A slab whose content is final. Clones share it; the last one that is dropped gives it back.
#[derive(Debug, Clone)]
pub(crate) struct SealedSlab(Hold);

impl SlabPool {
    /// A pool that maps at most `budget_bytes`, on demand.
    #[must_use]
    pub fn new(budget_bytes: usize) -> SlabPool {
        SlabPool::with(budget_bytes, false)
    }

    /// The same with slabs in huge pages as far as the system has them. The copy into them is no
    /// faster, but a disk that reads them itself is: its requests have fewer pieces.
    #[must_use]
    pub fn with_huge_pages(budget_bytes: usize) -> SlabPool {
        SlabPool::with(budget_bytes, true)
    }

    fn with(budget_bytes: usize, huge: bool) -> SlabPool {
        SlabPool { shared: Arc::new(Shared { budget_bytes, huge, state: Mutex::default() }) }
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
                || state.fits(CLASS_BYTES_MIN << class, self.shared.budget_bytes))
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
        if state.free.get(class)?.is_empty() {
            state.map(class, &self.shared)?;
        }
        Some(Slab(Hold { block: Some(state.take(class)) }))
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // A panic elsewhere leaves the lists whole: every change is one push or pop.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether so many bytes more are within the budget if every free slab is given up.
    fn fits(&self, bytes: usize, budget_bytes: usize) -> bool {
        let free: usize =
            self.free.iter().enumerate().map(|(c, list)| list.len() * (CLASS_BYTES_MIN << c)).sum();
        bytes <= budget_bytes.saturating_sub(self.mapped_bytes - free)
    }

    /// Takes the free slab that was used last. There is one.
    fn take(&mut self, class: usize) -> Arc<Block> {
        let free = &mut self.free[class];
        // Whoever was the last but one to let go of a block may not have let go of its `Arc` yet.
        let place = loop {
            match free.iter_mut().rposition(|block| Arc::get_mut(block).is_some()) {
                Some(place) => break place,
                None => std::thread::yield_now(),
            }
        };
        let block = free.remove(place);
        block.holders.store(1, Ordering::Relaxed);
        self.taken += 1;
        block
    }

    fn give_back(&mut self, block: Arc<Block>) {
        self.taken -= 1;
        self.free[block.class].push(block);
    }

    /// Maps a new slab, at the price of free ones of other classes if the budget demands it; a huge
    /// page full of slabs where that costs nothing.
    fn map(&mut self, class: usize, shared: &Arc<Shared>) -> Option<()> {
        let slab_bytes = CLASS_BYTES_MIN << class;
        let many = slab_bytes.next_multiple_of(HUGE_PAGE_BYTES);
        let left = shared.budget_bytes.saturating_sub(self.mapped_bytes);
        let bytes = if shared.huge && many <= left { many } else { slab_bytes };
        if !self.fits(bytes, shared.budget_bytes) {
            return None;
        }
        while self.mapped_bytes + bytes > shared.budget_bytes {
            self.give_up_one();
        }
        let stretches = Region::map(bytes, slab_bytes).ok()?;
        self.mapped_bytes += bytes;
        self.existing[class] += stretches.len();
        let free = &mut self.free[class];
        // So that no slab that comes back ever moves the list.
        free.reserve(self.existing[class] - free.len());
        free.extend(stretches.into_iter().map(|memory| {
            let (holders, pool) = (AtomicUsize::new(0), Arc::downgrade(shared));
            Arc::new(Block { memory, class, seal: None, holders, pool })
        }));
        Some(())
    }

    /// Gives up one of the smallest free slabs. There is one.
    fn give_up_one(&mut self) {
        let class = self.free.iter().position(|list| !list.is_empty());
        let class = class.expect("what fits is mapped or free");
        self.free[class].pop();
        self.existing[class] -= 1;
        self.mapped_bytes -= CLASS_BYTES_MIN << class;
    }
}

fn class_of(record_bytes: usize) -> usize {
    (SlabPool::class_bytes(record_bytes) / CLASS_BYTES_MIN).trailing_zeros() as usize
}

impl Hold {
    fn block(&self) -> &Arc<Block> {
        self.block.as_ref().expect("the block is there until drop")
    }
}

impl Clone for Hold {
    fn clone(&self) -> Hold {
        // Who clones holds the block, so that nobody is the last one meanwhile.
        self.block().holders.fetch_add(1, Ordering::Relaxed);
        Hold { block: self.block.clone() }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Some(block) = self.block.take() else { return };
        if block.holders.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        // A pool that is gone has no use for it.
        if let Some(pool) = block.pool.upgrade() {
            pool.lock().give_back(block);
        }
    }
}

impl Slab {
    /// Makes the content final.
    pub(crate) fn seal(mut self, seal: Seal) -> SealedSlab {
        self.block_mut().seal = Some(seal);
        SealedSlab(self.0)
    }

    fn block_mut(&mut self) -> &mut Block {
        let block = self.0.block.as_mut().expect("the block is there until drop");
        Arc::get_mut(block).expect("a slab has one holder")
    }

    /// The mapping that the slab is part of.
    pub(crate) fn region(&self) -> &Arc<Region> {
        self.0.block().memory.region()
    }
}

impl SealedSlab {
    /// What it was sealed with.
    pub(crate) fn seal(&self) -> &Seal {
        self.0.block().seal.as_ref().expect("whoever sealed it has left this")
    }

    /// The mapping that the slab is part of.
    pub(crate) fn region(&self) -> &Arc<Region> {
        self.0.block().memory.region()
    }
}

impl Deref for Slab {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0.block().memory
    }
}

impl DerefMut for Slab {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.block_mut().memory
    }
}

impl Deref for SealedSlab {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0.block().memory
    }
}

const _: () = assert!(CLASS_BYTES_MIN.is_multiple_of(RECORD_ALIGN));

#[cfg(test)]
mod tests;
