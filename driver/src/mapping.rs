//! A read-only mapping of memory that another party writes at any time.
//!
//! The law of this file: no slice of the mapped bytes and no reference to them ever exists, but to an
//! aligned atomic word for the length of its load, so that a racing writer is no undefined behaviour.
//! What was loaded is a copy that may already be out of date, and [`crate::validate`] decides whether
//! it still was true.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};

use circbuf_abi::ring::CHUNK_BYTES;
use memmap2::{MmapOptions, MmapRaw};

use crate::sigbus::Guard;

/// Shared memory, mapped read-only.
#[derive(Debug)]
pub struct Mapping {
    // Before the map: the guard has to forget the range before the range is unmapped.
    guard: Guard,
    map: MmapRaw,
}

impl Mapping {
    /// Maps the first `bytes` of `file`.
    ///
    /// # Errors
    /// Whatever the system says, for example that the file may not be read.
    ///
    /// # Panics
    /// If `bytes` is zero or no multiple of 64.
    pub fn of(file: &impl AsRawFd, bytes: usize) -> io::Result<Mapping> {
        assert!(bytes > 0 && bytes.is_multiple_of(64), "a mapping of {bytes} bytes");
        let map = MmapOptions::new().len(bytes).map_raw_read_only(file)?;
        let guard = Guard::watch(map.as_ptr() as usize, bytes);
        Ok(Mapping { guard, map })
    }

    /// Size in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.map.len()
    }

    /// Whether the file was truncated under the mapping: bytes that were read since may be zeros
    /// that nobody wrote.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.guard.was_hit()
    }

    /// Loads a little-endian u32 at a multiple of 4.
    ///
    /// # Panics
    /// If the offset is misaligned or outside.
    #[must_use]
    pub fn load_u32(&self, offset: usize) -> u32 {
        assert!(offset.is_multiple_of(4), "u32 at {offset:#x}");
        let word = self.load_u64(offset & !7);
        if offset.is_multiple_of(8) { word as u32 } else { (word >> 32) as u32 }
    }

    /// Loads a little-endian u64 at a multiple of 8. All loads are relaxed, as those of read-only
    /// memory have to be: where order matters, a fence stands between them.
    ///
    /// # Panics
    /// If the offset is misaligned or outside.
    #[must_use]
    pub fn load_u64(&self, offset: usize) -> u64 {
        u64::from_le(self.words(offset, 8).next().expect("one word").load(Ordering::Relaxed))
    }

    /// Copies the chunk at a multiple of 32. Its words are loaded one after the other, so they
    /// may be of different age.
    ///
    /// # Panics
    /// If the offset is misaligned or outside.
    #[must_use]
    pub fn chunk(&self, offset: usize) -> [u8; CHUNK_BYTES] {
        let mut chunk = [0; CHUNK_BYTES];
        let words = self.words(offset, CHUNK_BYTES);
        for (bytes, word) in chunk.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        chunk
    }

    /// The words from `offset` on; both numbers are multiples of 8.
    pub(crate) fn words(&self, offset: usize, bytes: usize) -> impl Iterator<Item = &AtomicU64> {
        assert!(offset.is_multiple_of(8) && bytes.is_multiple_of(8), "{bytes} at {offset:#x}");
        assert!(
            offset.checked_add(bytes).is_some_and(|end| end <= self.bytes()),
            "{bytes} bytes at {offset:#x} of a mapping of {}",
            self.bytes()
        );
        let first = self.map.as_mut_ptr().wrapping_add(offset).cast::<u64>();
        (0..bytes / 8).map(move |index| {
            let at = first.wrapping_add(index);
            // SAFETY: aligned to 8 and inside the mapping (asserted above; a mapping is
            // page-aligned); it is shared memory, which every party accesses by whole words.
            // Only loads are done: the mapping is read-only.
            unsafe { AtomicU64::from_ptr(at) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn mapped(bytes: &[u8]) -> Mapping {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Mapping::of(&file, bytes.len()).unwrap()
    }

    #[test]
    fn words_and_chunks_are_those_of_the_file() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mapping = mapped(&bytes);
        assert_eq!(mapping.load_u32(4), 0x0706_0504);
        assert_eq!(mapping.load_u32(8), 0x0B0A_0908);
        assert_eq!(mapping.load_u64(248), 0xFFFE_FDFC_FBFA_F9F8);
        assert_eq!(mapping.chunk(32)[..], bytes[32..64]);
    }

    #[test]
    #[should_panic(expected = "8 bytes at 0x40 of a mapping of 64")]
    fn a_word_behind_the_end_is_refused() {
        let _ = mapped(&[0; 64]).load_u32(64);
    }

    #[test]
    fn a_file_that_is_truncated_reads_as_zeros_and_says_so() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 8192]).unwrap();
        let mapping = Mapping::of(&file, 8192).unwrap();
        assert_eq!(mapping.chunk(4096), [7; 32]);
        assert!(!mapping.is_truncated());
        file.set_len(4096).unwrap();
        assert_eq!(mapping.chunk(4096), [0; 32]);
        assert!(mapping.is_truncated());
        assert_eq!(mapping.chunk(0), [7; 32], "the rest is as it was");
    }
}
