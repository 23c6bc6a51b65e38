//! The FPGA's stores into memory that another party reads at the same time: the ring and the
//! register page.
//!
//! The law of this file: no `&[u8]` or `&mut [u8]` is ever formed over a mapping. The ring is a
//! slice of `AtomicU64`, and every field of the register page is an atomic of its own size, never
//! accessed with another one. Vector instructions store whole chunks, in assembly, because Rust has
//! no atomic of that size.
mod view;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use circbuf_abi::registers as reg;
use circbuf_abi::ring::{CHUNK_BYTES, GAP_BYTES};
use memmap2::{Advice, MmapRaw};

use crate::pci::HostRing;
use crate::ring_file::Identity;

pub(crate) use view::{RegisterView, RingView};

const WORD_BYTES: usize = size_of::<u64>();

/// A mapping that is only ever accessed through atomics.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    map: MmapRaw,
}

impl SharedMemory {
    /// `map` is a shared mapping whose file cannot shrink, writable if anything is to be stored.
    pub(crate) fn new(map: MmapRaw) -> Self {
        Self { map }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.map.len() as u64
    }

    /// Takes the pages of a part of it now, so that no store has to wait for one. Where that is not
    /// possible they come when they are wanted.
    pub(crate) fn populate(&self, offset: u64, bytes: u64) {
        let populated =
            self.map.advise_range(Advice::PopulateWrite, offset as usize, bytes as usize);
        if let Err(error) = populated {
            log::debug!("{bytes} bytes at {offset:#x} were not populated: {error}");
        }
    }

    /// Stores `bytes`, whole words, at `offset`, in address order.
    pub(crate) fn store(&self, offset: u64, bytes: &[u8]) {
        let words = &self.words()[offset as usize / WORD_BYTES..][..bytes.len() / WORD_BYTES];
        #[cfg(target_arch = "x86_64")]
        if bytes.len() >= CHUNK_BYTES && x86::store(words, bytes) {
            return;
        }
        store_by_words(words, bytes);
    }

    fn words(&self) -> &[AtomicU64] {
        let start: *const AtomicU64 = self.map.as_ptr().cast();
        // SAFETY: the mapping is page-aligned, that long, and lives as long as `self`; whoever
        // writes to it in this program does so through atomics, and it is never a slice of bytes.
        unsafe { std::slice::from_raw_parts(start, self.map.len() / WORD_BYTES) }
    }
}

/// The ring, addressed by cursors.
#[derive(Debug)]
pub(crate) enum RingMemory {
    /// Memory of this process.
    Own(SharedMemory),
    /// Memory of a PCI host, which may take it away.
    Host(Arc<HostRing>),
}

impl RingMemory {
    /// `map` is a shared, writable mapping of a whole ring.
    pub(crate) fn new(map: MmapRaw) -> Self {
        assert!(map.len() > 0 && map.len().is_multiple_of(CHUNK_BYTES), "a ring is whole chunks");
        Self::Own(SharedMemory::new(map))
    }

    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Own(memory) => memory.bytes(),
            Self::Host(ring) => ring.bytes(),
        }
    }

    /// Whether what was stored last may be nowhere: the ring's memory is not there any more.
    pub(crate) fn is_lost(&self) -> bool {
        match self {
            Self::Own(_) => false,
            Self::Host(ring) => ring.is_lost(),
        }
    }

    /// Stores whole chunks at `cursor`, in address order, wrapping at the end of the ring.
    pub(crate) fn store(&self, cursor: u64, chunks: &[u8]) {
        let at = self.offset(cursor);
        let before_wrap = (chunks.len() as u64).min(self.bytes() - at) as usize;
        self.store_at(at, &chunks[..before_wrap]);
        self.store_at(0, &chunks[before_wrap..]);
    }

    /// Stores a frame's last chunk so that its last words, which hold the trailer, appear after
    /// everything that was stored before them.
    pub(crate) fn store_trailer(&self, cursor: u64, chunk: &[u8; CHUNK_BYTES]) {
        let at = self.offset(cursor);
        let (front, last) = chunk.split_at(CHUNK_BYTES - WORD_BYTES);
        self.store_at(at, front);
        // SYNC POINT: payload before trailer, for a driver that has no counters.
        fence(Ordering::Release);
        self.store_at(at + front.len() as u64, last);
    }

    /// Zeroes the 32 bytes at `cursor`.
    pub(crate) fn zero_gap(&self, cursor: u64) {
        self.store_at(self.offset(cursor), &[0; GAP_BYTES]);
    }

    /// The 32 bytes at `cursor`, as they are now. A PCI function does not read a host's memory: there
    /// they count as zeroed, since nobody stamps them.
    pub(crate) fn load_gap(&self, cursor: u64) -> [u8; GAP_BYTES] {
        let mut bytes = [0; GAP_BYTES];
        if let Self::Own(_) = self {
            for (word, value) in bytes.as_chunks_mut().0.iter_mut().enumerate() {
                *value = self.word(cursor, word).load(Ordering::Relaxed).to_ne_bytes();
            }
        }
        bytes
    }

    /// The 8-byte word that is `word` words behind `cursor`.
    ///
    /// # Panics
    /// If the ring is a PCI host's.
    pub(crate) fn word(&self, cursor: u64, word: usize) -> &AtomicU64 {
        let Self::Own(memory) = self else { panic!("nobody stamps headers into a host's memory") };
        &memory.words()[self.offset(cursor) as usize / WORD_BYTES + word]
    }

    fn offset(&self, cursor: u64) -> u64 {
        debug_assert!(cursor.is_multiple_of(CHUNK_BYTES as u64), "cursor {cursor}");
        cursor % self.bytes()
    }

    fn store_at(&self, offset: u64, bytes: &[u8]) {
        match self {
            Self::Own(memory) => memory.store(offset, bytes),
            Self::Host(ring) => ring.store(offset, bytes),
        }
    }
}

/// Stores `bytes` into `words`, which is as long, in address order.
fn store_by_words(words: &[AtomicU64], bytes: &[u8]) {
    let (values, rest) = bytes.as_chunks();
    debug_assert!(rest.is_empty() && values.len() == words.len());
    let chunks = words.chunks(CHUNK_BYTES / WORD_BYTES);
    for (words, values) in chunks.zip(values.chunks(CHUNK_BYTES / WORD_BYTES)) {
        // SYNC POINT: a chunk before the next: a trailer before the gap behind it, and a gap before
        // the payload behind it, for a driver that has no counters.
        fence(Ordering::Release);
        for (word, value) in words.iter().zip(values) {
            word.store(u64::from_ne_bytes(*value), Ordering::Relaxed);
        }
    }
}

/// What the register page tells about the FPGA and does not change while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Statics {
    pub(crate) ring_bytes: u64,
    pub(crate) ring_identity: Identity,
    pub(crate) max_slot_bytes: u64,
    pub(crate) geometry: crate::model::Geometry,
    pub(crate) frame_period_ns: u64,
    pub(crate) stamped: bool,
}

/// The register page.
#[derive(Debug)]
pub(crate) struct RegisterPage {
    map: MmapRaw,
    /// Shadow of [`reg::UPDATE`].
    update: u64,
}

impl RegisterPage {
    /// `map` is a shared mapping of a register page, for the FPGA a writable one of zeros.
    pub(crate) fn new(map: MmapRaw) -> Self {
        assert!(map.len() == reg::PAGE_BYTES, "a register page has {} bytes", reg::PAGE_BYTES);
        Self { map, update: 0 }
    }

    /// Stores the fields that do not change; the magic appears last.
    pub(crate) fn describe(&self, statics: &Statics) {
        let flags = if statics.stamped { reg::FLAG_STAMPED } else { 0 };
        self.store_u32(reg::VERSION, reg::VERSION_VALUE);
        self.store_u64(reg::RING_BYTES, statics.ring_bytes);
        self.store_u64(reg::RING_DEVICE, statics.ring_identity.device);
        self.store_u64(reg::RING_INODE, statics.ring_identity.inode);
        self.store_u64(reg::MAX_SLOT_BYTES, statics.max_slot_bytes);
        self.store_u32(reg::WIDTH, statics.geometry.width.into());
        self.store_u32(reg::HEIGHT, statics.geometry.height.into());
        self.store_u32(reg::QUALITY2, statics.geometry.quality2.into());
        self.store_u32(reg::COLOR_MODE, statics.geometry.color_mode.into());
        self.store_u64(reg::FRAME_PERIOD_NS, statics.frame_period_ns);
        self.store_u32(reg::FLAGS, flags);
        fence(Ordering::Release);
        self.store_u64(reg::MAGIC, reg::MAGIC_VALUE);
    }

    /// Tells whether the FPGA runs (`STATE_*`), behind everything it has written.
    pub(crate) fn set_state(&self, state: u32) {
        fence(Ordering::Release);
        self.store_u32(reg::STATE, state);
    }

    /// Announces that bytes below `cursor` are about to be touched.
    pub(crate) fn reserve(&self, cursor: u64) {
        // SYNC POINT: complete before reserved. Pairs with an acquire load of `reserved`: who sees
        // it and loads `complete` then finds no older one than was published before it.
        self.field_u64(reg::RESERVED).store(cursor.to_le(), Ordering::Release);
        // SYNC POINT: reserved before bytes. Pairs with the driver's acquire fence between its
        // copy and its load of `reserved` (point 4 of the law of validity).
        fence(Ordering::SeqCst);
    }

    /// Announces that everything below `cursor` is in memory.
    pub(crate) fn publish_written(&self, cursor: u64) {
        // SYNC POINT: bytes before written. Pairs with the driver's acquire load.
        self.field_u64(reg::WRITTEN).store(cursor.to_le(), Ordering::Release);
    }

    /// Announces that `frames` frames are whole, and that the next one starts at `complete`.
    pub(crate) fn publish_complete(&mut self, complete: u64, frames: u64) {
        self.begin_update();
        self.end_update(complete, frames);
    }

    fn begin_update(&mut self) {
        self.update += 1;
        self.store_u64(reg::UPDATE, self.update);
        // SYNC POINT: odd `update` before what changes, and the stamped header before `complete`.
        fence(Ordering::Release);
    }

    fn end_update(&mut self, complete: u64, frames: u64) {
        self.store_u64(reg::COMPLETE, complete);
        self.store_u64(reg::FRAMES, frames);
        self.update += 1;
        self.field_u64(reg::UPDATE).store(self.update.to_le(), Ordering::Release);
    }

    /// Begins epoch `epoch`: all cursors return to 0, `frames` stays.
    pub(crate) fn reset(&mut self, epoch: u64, frames: u64) {
        self.begin_update();
        self.store_u64(reg::EPOCH, epoch);
        // SYNC POINT: epoch before any counter or byte changes.
        fence(Ordering::SeqCst);
        self.reserve(0);
        self.publish_written(0);
        self.end_update(0, frames);
    }

    fn store_u64(&self, field: usize, value: u64) {
        self.field_u64(field).store(value.to_le(), Ordering::Relaxed);
    }

    fn store_u32(&self, field: usize, value: u32) {
        self.field_u32(field).store(value.to_le(), Ordering::Relaxed);
    }

    fn field_u64(&self, field: usize) -> &AtomicU64 {
        let start: *const AtomicU64 = self.map.as_ptr().cast();
        // SAFETY: the mapping is page-aligned, of this length (checked in `new`), and lives as
        // long as `self`; it is only ever accessed through atomics.
        let fields = unsafe { std::slice::from_raw_parts(start, reg::PAGE_BYTES / 8) };
        &fields[field / 8]
    }

    fn field_u32(&self, field: usize) -> &AtomicU32 {
        let start: *const AtomicU32 = self.map.as_ptr().cast();
        // SAFETY: as in `field_u64`; both slices consist of `UnsafeCell`s, so they may overlap,
        // and no field is accessed with two sizes.
        let fields = unsafe { std::slice::from_raw_parts(start, reg::PAGE_BYTES / 4) };
        &fields[field / 4]
    }
}
