//! What the camera's kernel reads of memory that the FPGA writes, through mappings that cannot be
//! written to.
use std::sync::atomic::{AtomicU64, Ordering, fence};

use circbuf_abi::registers as reg;
use circbuf_abi::ring::{CHUNK_BYTES, GAP_BYTES};
use memmap2::MmapRaw;

use super::{RegisterPage, RingMemory, WORD_BYTES};

/// Words of a chunk.
const WORDS: usize = CHUNK_BYTES / WORD_BYTES;

/// The ring, addressed by offsets.
#[derive(Debug)]
pub(crate) struct RingView(RingMemory);

impl RingView {
    /// `map` is a shared mapping of a whole ring.
    pub(crate) fn new(map: MmapRaw) -> Self {
        Self(RingMemory::new(map))
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    /// The 32 bytes in front of `offset`, a multiple of 32.
    pub(crate) fn chunk_before(&self, offset: u64) -> [u8; GAP_BYTES] {
        self.0.load_gap(offset + self.bytes() - CHUNK_BYTES as u64)
    }

    /// Copies what stands at `offset` into `out`, which ends within the ring.
    pub(crate) fn copy(&self, offset: u64, out: &mut [u8]) {
        copy_words(offset, out, |word| {
            let (chunk, in_chunk) = (word / WORDS * CHUNK_BYTES, word % WORDS);
            self.0.word(chunk as u64, in_chunk)
        });
    }
}

/// Copies what stands at `offset` of these words, each of which is loaded as a whole.
fn copy_words<'a>(offset: u64, out: &mut [u8], word: impl Fn(usize) -> &'a AtomicU64) {
    let (mut index, mut skip) = (offset as usize / WORD_BYTES, offset as usize % WORD_BYTES);
    let mut rest = out;
    while !rest.is_empty() {
        let bytes = word(index).load(Ordering::Relaxed).to_ne_bytes();
        let part = rest.len().min(WORD_BYTES - skip);
        let (now, later) = rest.split_at_mut(part);
        now.copy_from_slice(&bytes[skip..][..part]);
        (rest, index, skip) = (later, index + 1, 0);
    }
}

/// How far the FPGA is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) epoch: u64,
    /// Cursor behind the last whole frame.
    pub(crate) complete: u64,
    pub(crate) frames: u64,
}

/// The register page.
#[derive(Debug)]
pub(crate) struct RegisterView(RegisterPage);

impl RegisterView {
    /// `map` is a shared mapping of a register page.
    pub(crate) fn new(map: MmapRaw) -> Self {
        Self(RegisterPage::new(map))
    }

    /// Copies what stands at `offset` into `out`, which ends within the page: each of its words of 8 bytes as
    /// it was at one moment.
    pub(crate) fn copy(&self, offset: u64, out: &mut [u8]) {
        copy_words(offset, out, |word| self.0.field_u64(word * WORD_BYTES));
    }

    /// Three numbers of the same moment.
    pub(crate) fn progress(&self) -> Progress {
        let load = |field| u64::from_le(self.0.field_u64(field).load(Ordering::Relaxed));
        loop {
            // SYNC POINT: pairs with the release of `update` behind a change.
            let before = u64::from_le(self.0.field_u64(reg::UPDATE).load(Ordering::Acquire));
            let progress = Progress {
                epoch: load(reg::EPOCH),
                complete: load(reg::COMPLETE),
                frames: load(reg::FRAMES),
            };
            // SYNC POINT: pairs with the fence behind the odd `update` in front of a change.
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && load(reg::UPDATE) == before {
                return progress;
            }
            std::hint::spin_loop();
        }
    }
}
