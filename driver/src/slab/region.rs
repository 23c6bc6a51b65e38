//! Mapped memory that is cut into stretches, one for each slab.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use memmap2::{Advice, MmapMut, MmapOptions, MmapRaw};

/// Size and alignment of a huge page: 2 MiB on x86-64 and, with pages of 4 KiB, on ARM.
pub(super) const HUGE_PAGE_BYTES: usize = 2 << 20;
/// The smallest page of any system.
const PAGE_BYTES: usize = 4096;

/// A mapping of private memory. It stays as long as one of its stretches does.
#[derive(Debug)]
pub(crate) struct Region {
    map: MmapRaw,
    /// Where in the mapping the stretches begin.
    at: usize,
    bytes: usize,
    /// Stretches that are not free; changed under the pool's lock alone.
    taken: AtomicUsize,
}

/// A part of a region that nobody else has.
#[derive(Debug)]
pub(super) struct Stretch {
    region: Arc<Region>,
    /// From the beginning of the mapping; `bytes` from there on lie in it.
    at: usize,
    bytes: usize,
}

impl Region {
    /// Maps `bytes` and cuts them into stretches. A whole number of huge pages is asked for as such.
    ///
    /// All pages are there when this returns: a page fault costs more than copying four pages.
    pub(super) fn map(bytes: usize, stretch_bytes: usize) -> io::Result<Vec<Stretch>> {
        let (map, at) = match bytes.is_multiple_of(HUGE_PAGE_BYTES) {
            true => map_huge(bytes)?,
            false => (MmapOptions::new().len(bytes).populate().map_anon()?, 0),
        };
        let region = Arc::new(Region { map: map.into(), at, bytes, taken: AtomicUsize::new(0) });
        assert!(at + bytes <= region.map.len() && bytes.is_multiple_of(stretch_bytes));
        let stretch =
            |start| Stretch { region: Arc::clone(&region), at: at + start, bytes: stretch_bytes };
        Ok((0..bytes).step_by(stretch_bytes).map(stretch).collect())
    }

    /// Where the stretches lie, and how many bytes they are.
    pub(crate) fn span(&self) -> (*mut u8, usize) {
        (self.map.as_mut_ptr().wrapping_add(self.at), self.bytes)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_idle(&self) -> bool {
        self.taken.load(Ordering::Relaxed) == 0
    }

    /// One of its stretches is taken; true if it is the first.
    pub(super) fn note_taken(&self) -> bool {
        self.taken.fetch_add(1, Ordering::Relaxed) == 0
    }

    /// One of its stretches is free again; true if all are.
    pub(super) fn note_free(&self) -> bool {
        self.taken.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

/// Memory in huge pages if the system has them, and where in the mapping it is aligned to them.
fn map_huge(bytes: usize) -> io::Result<(MmapMut, usize)> {
    let mut map = MmapMut::map_anon(bytes + HUGE_PAGE_BYTES)?;
    let at = map.as_ptr().align_offset(HUGE_PAGE_BYTES);
    if let Err(error) = map.advise_range(Advice::HugePage, at, bytes) {
        log::debug!("no huge pages: {error}");
    }
    if map.advise_range(Advice::PopulateWrite, at, bytes).is_err() {
        // Kernels before 5.14 do not know it.
        map[at..][..bytes].iter_mut().step_by(PAGE_BYTES).for_each(|byte| *byte = 0);
    }
    Ok((map, at))
}

impl Stretch {
    pub(super) fn region(&self) -> &Arc<Region> {
        &self.region
    }

    fn start(&self) -> *mut u8 {
        self.region.map.as_mut_ptr().wrapping_add(self.at)
    }
}

impl Deref for Stretch {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the stretch lies inside the mapping, which its region keeps; anonymous memory is
        // initialised with zeros; no other stretch overlaps it, so that only `deref_mut`, which takes
        // this one exclusively, can change it.
        unsafe { std::slice::from_raw_parts(self.start(), self.bytes) }
    }
}

impl DerefMut for Stretch {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; the reference to the stretch is exclusive, and so are its bytes.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.bytes) }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::resource::{UsageWho, getrusage};

    use super::*;

    fn faults() -> i64 {
        getrusage(UsageWho::RUSAGE_THREAD).unwrap().minor_page_faults()
    }

    #[test]
    fn stretches_share_no_byte_and_outlive_each_other() {
        for (bytes, stretch_bytes) in [(64 << 10, 16 << 10), (4 << 20, 1 << 20)] {
            let mut stretches = Region::map(bytes, stretch_bytes).unwrap();
            assert_eq!(stretches.len() * stretch_bytes, bytes);
            for (number, stretch) in (1..).zip(&mut stretches) {
                assert!(stretch.iter().all(|byte| *byte == 0));
                stretch.fill(number);
            }
            let last = stretches.pop().unwrap();
            for (number, stretch) in (1..).zip(&stretches) {
                assert!(stretch.iter().all(|byte| *byte == number));
            }
            let number = stretches.len() as u8 + 1;
            drop(stretches);
            assert!(last.iter().all(|byte| *byte == number));
        }
    }

    #[test]
    fn all_pages_are_there_before_anything_is_written() {
        for bytes in [1 << 20, 4 << 20] {
            let mut stretches = Region::map(bytes, 256 << 10).unwrap();
            let before = faults();
            stretches.iter_mut().for_each(|stretch| stretch.fill(7));
            let pages = (bytes / PAGE_BYTES) as i64;
            assert!(faults() - before < pages / 16, "{} faults", faults() - before);
        }
    }

    #[test]
    fn what_may_lie_in_huge_pages_begins_with_one() {
        let stretches = Region::map(4 << 20, 1 << 20).unwrap();
        assert_eq!(stretches[0].start().align_offset(HUGE_PAGE_BYTES), 0);
        assert_eq!(stretches[0].region().span(), (stretches[0].start(), 4 << 20));
    }
}
