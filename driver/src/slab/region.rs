//! Mapped memory that is cut into stretches, one for each slab.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use memmap2::{Advice, MmapMut, MmapOptions, MmapRaw, UncheckedAdvice};

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
    /// A stretch was given up.
    has_holes: AtomicBool,
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
        let has_holes = AtomicBool::new(false);
        let region = Arc::new(Region { map: map.into(), at, bytes, has_holes });
        assert!(at + bytes <= region.map.len() && bytes.is_multiple_of(stretch_bytes));
        let stretch =
            |start| Stretch { region: Arc::clone(&region), at: at + start, bytes: stretch_bytes };
        Ok((0..bytes).step_by(stretch_bytes).map(stretch).collect())
    }

    /// Where the stretches lie, and how many bytes they are.
    pub(crate) fn span(&self) -> (*mut u8, usize) {
        (self.map.as_mut_ptr().wrapping_add(self.at), self.bytes)
    }

    /// Whether some of its memory was given back to the system, and should not be touched again.
    pub(crate) fn has_holes(&self) -> bool {
        self.has_holes.load(Ordering::Relaxed)
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

impl Drop for Stretch {
    /// Gives the memory back to the system, whatever becomes of the rest of the region.
    fn drop(&mut self) {
        let advice = UncheckedAdvice::DontNeed;
        self.region.has_holes.store(true, Ordering::Relaxed);
        // SAFETY: nobody else has these bytes, and this stretch is used no more.
        let given = unsafe { self.region.map.unchecked_advise_range(advice, self.at, self.bytes) };
        if let Err(error) = given {
            log::debug!("memory stays until the region goes: {error}");
        }
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
    fn what_is_given_up_is_no_longer_in_memory_and_the_rest_is_untouched() {
        let mut stretches = Region::map(4 << 20, 1 << 20).unwrap();
        stretches.iter_mut().for_each(|stretch| stretch.fill(9));
        let given_up = stretches.remove(1);
        let (region, at) = (Arc::clone(given_up.region()), given_up.at);
        assert!(!region.has_holes());
        drop(given_up);
        assert!(region.has_holes());
        assert!(stretches.iter().all(|stretch| stretch.iter().all(|byte| *byte == 9)));
        // Nobody has the hole any more; what the system puts there now is empty.
        let hole = Stretch { region, at, bytes: 1 << 20 };
        assert!(hole.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn what_may_lie_in_huge_pages_begins_with_one() {
        let stretches = Region::map(4 << 20, 1 << 20).unwrap();
        assert_eq!(stretches[0].start().align_offset(HUGE_PAGE_BYTES), 0);
        assert_eq!(stretches[0].region().span(), (stretches[0].start(), 4 << 20));
    }
}
