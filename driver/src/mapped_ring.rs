//! A mapped ring, addressed by cursors: u64 byte counts that never wrap.

use circbuf_abi::ring::{CHUNK_BYTES, GAP_BYTES, TRAILER_BYTES};

use crate::copy::{Ahead, Kernel, Manner, PairScan, Stores};
use crate::mapping::Mapping;
use crate::ring::{FrameHeader, Trailer, padded};

/// The memory of a ring. Whatever is read from it may already be out of date.
#[derive(Debug)]
pub struct MappedRing {
    memory: Mapping,
}

impl MappedRing {
    /// Takes a mapping as the memory of a ring.
    #[must_use]
    pub fn new(memory: Mapping) -> MappedRing {
        MappedRing { memory }
    }

    /// Size in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.memory.bytes() as u64
    }

    /// The place in the ring that a cursor stands for.
    #[must_use]
    pub fn offset(&self, cursor: u64) -> usize {
        (cursor % self.bytes()) as usize
    }

    /// Whether the memory lost its file: see [`Mapping::is_truncated`].
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.memory.is_truncated()
    }

    /// The 32 bytes from `cursor` on, a multiple of 32.
    #[must_use]
    pub fn chunk(&self, cursor: u64) -> [u8; CHUNK_BYTES] {
        self.memory.chunk(self.offset(cursor))
    }

    /// The header slot in front of the frame that starts at `start`. Before the first byte of a
    /// ring stands its last one.
    #[must_use]
    pub fn header(&self, start: u64) -> FrameHeader {
        FrameHeader(self.chunk((start % self.bytes()) + self.bytes() - GAP_BYTES as u64))
    }

    /// The trailer that ends at `end`, which is the end of a chunk above 0.
    #[must_use]
    pub fn trailer(&self, end: u64) -> Trailer {
        Trailer::parse(&self.chunk(end - CHUNK_BYTES as u64))
    }

    /// What stands where the trailer of the frame in front of the one at `start` belongs: behind it there is
    /// only the header slot.
    #[must_use]
    pub fn trailer_before(&self, start: u64) -> Trailer {
        self.trailer((start % self.bytes()) + self.bytes() - GAP_BYTES as u64)
    }

    /// The last word of the chunk that ends at `end`: where a trailer stands, marker and length.
    #[must_use]
    pub fn length_word(&self, end: u64) -> u32 {
        self.memory.load_u32(self.offset(end - 4))
    }

    /// A copy of the whole ring, of which each part may be of another age.
    #[must_use]
    pub fn image(&self) -> Vec<u8> {
        let mut image = vec![0; self.memory.bytes()];
        self.copy(0, &mut image, Stores::Cached, &mut PairScan::default());
        image
    }

    /// Copies the bytes from `start` on, a multiple of 8, and feeds them to `scan`.
    ///
    /// # Panics
    /// If `target` is longer than the ring, or its length no multiple of 8.
    pub(crate) fn copy(&self, start: u64, target: &mut [u8], stores: Stores, scan: &mut PairScan) {
        Kernel::best().copy(&self.memory, self.offset(start), target, stores, scan);
    }

    /// Copies payload, zeros and trailer of a frame to `target`, and tells whether FF FF stands in the
    /// payload or in the zeros.
    ///
    /// # Panics
    /// If `target` is not [`padded`] long for `length`.
    #[must_use]
    pub fn copy_frame(
        &self,
        start: u64,
        length: u32,
        target: &mut [u8],
        manner: Manner<'_>,
    ) -> bool {
        assert_eq!(target.len() as u64, padded(length), "room for payload, zeros and trailer");
        let Manner { stores, checksum, ahead: Ahead { bytes, mut scan } } = manner;
        let (ahead, rest) = target.split_at_mut(bytes.min(target.len()));
        let start = start + ahead.len() as u64;
        match checksum {
            None => self.copy(start, rest, stores, &mut scan),
            Some(checksum) => {
                checksum.update(ahead);
                let (kernel, offset) = (Kernel::best(), self.offset(start));
                kernel.copy_summed(&self.memory, offset, rest, stores, (&mut scan, checksum));
            }
        }
        // A trailer may well have a pair, as in its time.
        let payload = &target[..target.len() - TRAILER_BYTES];
        scan.has_pair() && payload.windows(2).any(|pair| pair == [0xFF, 0xFF])
    }
}
