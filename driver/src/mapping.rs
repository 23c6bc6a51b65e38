//! A read-only mapping of memory that another party writes at any time.
//!
//! The law of this file: no slice of the mapped bytes and no reference to them ever exists, but to an
//! aligned atomic word for the length of its load, so that a racing writer is no undefined behaviour.
//! The kernels of [`crate::copy`] load by assembler instructions, each of which does what loads of its
//! words, one after the other, might have done.
//! What was loaded is a copy that may already be out of date, and [`crate::validate`] decides whether
//! it still was true.

use std::ffi::c_void;
use std::io;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
#[cfg(not(target_pointer_width = "64"))]
use std::sync::atomic::AtomicU32;
#[cfg(target_pointer_width = "64")]
use std::sync::atomic::AtomicU64;
use std::sync::atomic::{Ordering, fence};

use circbuf_abi::ring::CHUNK_BYTES;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use crate::sigbus::Guard;

/// Shared memory, mapped read-only.
#[derive(Debug)]
pub struct Mapping {
    // Before the addresses: the guard has to forget the range before the range is unmapped.
    guard: Guard,
    addresses: Addresses,
    bytes: usize,
}

/// No processor has smaller pages; what is mapped begins at a multiple of this anyway.
const PAGE_BYTES: usize = 4096;

/// Addresses that are ours, whatever is mapped there.
#[derive(Debug)]
struct Addresses {
    first: NonNull<c_void>,
    bytes: usize,
}

// SAFETY: addresses belong to the process, and what is mapped there is only ever loaded, by words.
unsafe impl Send for Addresses {}
// SAFETY: as above: there is nothing in it that a shared reference could change.
unsafe impl Sync for Addresses {}

/// Bytes of a mapping, to be loaded from. They are there as long as the mapping is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stretch<'a> {
    first: *const u8,
    bytes: usize,
    mapping: PhantomData<&'a Mapping>,
}

impl Stretch<'_> {
    /// Address of the first byte.
    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.first
    }

    /// How many bytes may be loaded from there on.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Mapping {
    /// Maps the first `bytes` of `file`.
    ///
    /// # Errors
    /// Whatever the system says, for example that the file may not be read.
    ///
    /// # Panics
    /// If `bytes` is zero or no multiple of 64.
    pub fn of(file: &impl AsFd, bytes: usize) -> io::Result<Mapping> {
        Mapping::at(file, 0, bytes)
    }

    /// Maps `bytes` of `file` from `offset` on, a multiple of the page size.
    ///
    /// # Errors
    /// As [`Mapping::of`].
    ///
    /// # Panics
    /// As [`Mapping::of`].
    pub fn at(file: &impl AsFd, offset: u64, bytes: usize) -> io::Result<Mapping> {
        assert!(bytes > 0 && bytes.is_multiple_of(64), "a mapping of {bytes} bytes");
        Mapping::times(1, file, (offset, bytes), 1)
    }

    /// Maps a ring: the first `bytes` of `file` twice in a row, so that bytes that wrap are one stretch of
    /// addresses. The pages are asked for at once, so that no load has to wait for one later.
    ///
    /// # Errors
    /// Whatever the system says; it needs a multiple of its page size.
    ///
    /// # Panics
    /// As [`Mapping::of`].
    pub fn ring(file: &impl AsFd, bytes: usize) -> io::Result<Mapping> {
        Mapping::ring_of_pages(file, bytes, 1)
    }

    /// The same of a file whose pages have so many bytes, a power of two.
    ///
    /// # Errors
    /// As [`Mapping::ring`].
    ///
    /// # Panics
    /// As [`Mapping::of`].
    pub(crate) fn ring_of_pages(
        file: &impl AsFd,
        bytes: usize,
        page_bytes: usize,
    ) -> io::Result<Mapping> {
        assert!(bytes > 0 && bytes.is_multiple_of(64), "a mapping of {bytes} bytes");
        Mapping::times(2, file, (0, bytes), page_bytes)
    }

    fn times(
        copies: usize,
        file: &impl AsFd,
        (from, bytes): (u64, usize),
        page_bytes: usize,
    ) -> io::Result<Mapping> {
        let addresses = Addresses::reserve(copies * bytes, page_bytes)?;
        for copy in 0..copies {
            addresses.map(copy * bytes, file, from, bytes)?;
        }
        let guard = Guard::watch(addresses.first.as_ptr() as usize, addresses.bytes);
        Ok(Mapping { guard, addresses, bytes })
    }

    /// Size in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
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
    /// memory have to be: where order matters, a fence stands between them. Where a processor loads four
    /// bytes at a time, the number is whole if it only grows.
    ///
    /// # Panics
    /// If the offset is misaligned or outside.
    #[must_use]
    pub fn load_u64(&self, offset: usize) -> u64 {
        let load = || u64::from_le(self.words(offset, 8).next().expect("one word"));
        let mut number = load();
        while cfg!(not(target_pointer_width = "64")) {
            fence(Ordering::Acquire);
            let again = load();
            if again >> 32 == number >> 32 {
                return again;
            }
            number = again;
        }
        number
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
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        chunk
    }

    /// Loads the words from `offset` on, one after the other, with their bytes as they stand there; both
    /// numbers are multiples of 8.
    pub(crate) fn words(&self, offset: usize, bytes: usize) -> impl Iterator<Item = u64> {
        self.stretch(offset, bytes);
        let first = self.addresses.first.as_ptr().wrapping_byte_add(offset).cast::<u64>();
        (0..bytes / 8).map(move |index| load(first.wrapping_add(index)))
    }

    /// The bytes from `offset` on; both numbers are multiples of 8. In a ring they may go on behind its
    /// end.
    pub(crate) fn stretch(&self, offset: usize, bytes: usize) -> Stretch<'_> {
        assert!(offset.is_multiple_of(8) && bytes.is_multiple_of(8), "{bytes} at {offset:#x}");
        assert!(
            offset.checked_add(bytes).is_some_and(|end| end <= self.addresses.bytes),
            "{bytes} bytes at {offset:#x} of a mapping of {}",
            self.bytes
        );
        let first = self.addresses.first.as_ptr().wrapping_byte_add(offset).cast();
        Stretch { first, bytes, mapping: PhantomData }
    }
}

/// Loads a word of a mapping, at a multiple of 8.
#[cfg(target_pointer_width = "64")]
fn load(at: *mut u64) -> u64 {
    // SAFETY: aligned to 8 and inside the mapping (asserted by `stretch`; a mapping is
    // page-aligned); it is shared memory, which every party accesses by whole words.
    // Only loads are done: the mapping is read-only.
    unsafe { AtomicU64::from_ptr(at) }.load(Ordering::Relaxed)
}

/// The same where atomic loads of eight bytes may be stores as well, which read-only memory forbids.
#[cfg(not(target_pointer_width = "64"))]
fn load(at: *mut u64) -> u64 {
    let halves = [0, 1].map(|half| {
        // SAFETY: as above, with words of four bytes.
        let word = unsafe { AtomicU32::from_ptr(at.cast::<u32>().wrapping_add(half)) };
        word.load(Ordering::Relaxed).to_ne_bytes()
    });
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&halves[0]);
    bytes[4..].copy_from_slice(&halves[1]);
    u64::from_ne_bytes(bytes)
}

impl Addresses {
    /// Takes so many bytes of addresses with nothing behind them, from a multiple of `align` on. That is a
    /// power of two; a page is not too much to ask for.
    fn reserve(bytes: usize, align: usize) -> io::Result<Addresses> {
        let spare = if align > PAGE_BYTES { align } else { 0 };
        let all = bytes.checked_add(spare).and_then(NonZeroUsize::new);
        let length = all.ok_or(io::ErrorKind::InvalidInput)?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping, at addresses that the kernel chooses, replaces nothing.
        let first = unsafe { mmap_anonymous(None, length, ProtFlags::PROT_NONE, flags) }?;
        let addresses = Addresses { first, bytes: length.get() };
        let front = (first.as_ptr() as usize).next_multiple_of(align) - first.as_ptr() as usize;
        let (_front, addresses) = addresses.split(front);
        let (addresses, _behind) = addresses.split(bytes);
        Ok(addresses)
    }

    /// The first so many bytes, and the rest.
    fn split(self, bytes: usize) -> (Addresses, Addresses) {
        assert!(bytes <= self.bytes, "{bytes} of {} bytes", self.bytes);
        let whole = ManuallyDrop::new(self);
        let rest = NonNull::new(whole.first.as_ptr().wrapping_byte_add(bytes));
        let rest = rest.expect("addresses end before they begin anew");
        let front = Addresses { first: whole.first, bytes };
        (front, Addresses { first: rest, bytes: whole.bytes - bytes })
    }

    /// Puts `bytes` of a file, `from` a place in it on, at `offset`.
    fn map(&self, offset: usize, file: &impl AsFd, from: u64, bytes: usize) -> io::Result<()> {
        let length = NonZeroUsize::new(bytes).ok_or(io::ErrorKind::InvalidInput)?;
        let from = nix::libc::off_t::try_from(from).map_err(|_| io::ErrorKind::InvalidInput)?;
        let at = NonZeroUsize::new(self.first.as_ptr().wrapping_byte_add(offset) as usize);
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_FIXED | MapFlags::MAP_POPULATE;
        assert!(offset + bytes <= self.bytes, "inside what was reserved");
        // SAFETY: the addresses are ours and nothing refers to what is mapped there.
        unsafe { mmap(at, length, ProtFlags::PROT_READ, flags, file, from) }?;
        Ok(())
    }
}

impl Drop for Addresses {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        // SAFETY: they were reserved by `reserve`, and stretches do not outlive their mapping.
        let unmapped = unsafe { munmap(self.first, self.bytes) };
        debug_assert_eq!(unmapped, Ok(()));
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
    fn a_ring_goes_on_behind_its_end() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&(0..8192 / 8u64).flat_map(u64::to_le_bytes).collect::<Vec<_>>()).unwrap();
        let ring = Mapping::ring(&file, 8192).unwrap();
        let words: Vec<u64> = ring.words(8184, 24).collect();
        assert_eq!((words, ring.bytes()), (vec![1023, 0, 1], 8192));
        assert!(Mapping::ring(&file, 64).is_err(), "no whole page");
        for page_bytes in [4096, 1 << 21] {
            let ring = Mapping::ring_of_pages(&file, 8192, page_bytes).unwrap();
            assert!((ring.addresses.first.as_ptr() as usize).is_multiple_of(page_bytes));
            assert_eq!(ring.words(8184, 24).collect::<Vec<_>>(), [1023, 0, 1]);
            assert_eq!((ring.addresses.bytes, ring.bytes()), (2 * 8192, 8192));
        }
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
