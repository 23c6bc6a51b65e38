//! What an io_uring knows beforehand: the file that is being written, and the mappings that slabs are
//! cut from. A write that names them spares the kernel looking up the file and pinning the pages.
//!
//! Everything works without: where the system refuses, or more than it allows is to be pinned, writes
//! name what they are about themselves.

use std::os::fd::AsRawFd;
use std::sync::{Arc, Weak};

use io_uring::Submitter;

use crate::archive::store::DiskFile;
use crate::slab::Region;

/// Most mappings; with huge pages they are 2 GiB.
const BUFFERS_MAX: u32 = 1024;

/// The tables of registered files and buffers, as far as they are used.
#[derive(Debug)]
pub(super) struct Registered {
    /// The file in the only slot; none if the system has no such table.
    file: Option<Weak<DiskFile>>,
    /// The mapping in each slot. A mapping that is gone keeps its slot, and its memory stays pinned,
    /// until the next one comes; `Weak` keeps another from being taken for it.
    buffers: Vec<Weak<Region>>,
    /// No more buffers are allowed.
    refused: bool,
}

impl Registered {
    /// The empty tables of a ring.
    pub(super) fn new(submitter: &Submitter<'_>) -> Registered {
        let file = submitter.register_files_sparse(1).is_ok().then(Weak::new);
        let refused = submitter.register_buffers_sparse(BUFFERS_MAX).is_err();
        Registered { file, buffers: Vec::new(), refused }
    }

    /// Whether the file is registered, as number 0. Another one takes its place only if `may_change`:
    /// what is queued is looked up when it is submitted.
    pub(super) fn has_file(
        &mut self,
        file: &Arc<DiskFile>,
        may_change: bool,
        submitter: &Submitter<'_>,
    ) -> bool {
        let Some(known) = &mut self.file else { return false };
        if known.as_ptr() == Arc::as_ptr(file) {
            return true;
        }
        let changed = may_change && submitter.register_files_update(0, &[file.as_raw_fd()]).is_ok();
        if changed {
            *known = Arc::downgrade(file);
        }
        changed
    }

    /// The number of the buffer that the mapping is, if it can be one. One with holes is not: its
    /// pages would be pinned, holes included; it is given up if it `may_change`, as a file.
    pub(super) fn buffer(
        &mut self,
        region: &Arc<Region>,
        may_change: bool,
        submitter: &Submitter<'_>,
    ) -> Option<u16> {
        let known = self.buffers.iter().position(|known| known.as_ptr() == Arc::as_ptr(region));
        let slot = match known {
            Some(slot) if region.has_holes() && may_change => {
                self.empty(slot, submitter);
                None
            }
            None if !region.has_holes() => self.register(region, submitter),
            known => known,
        };
        slot.map(|slot| slot as u16)
    }

    fn register(&mut self, region: &Arc<Region>, submitter: &Submitter<'_>) -> Option<usize> {
        if self.refused {
            return None;
        }
        self.forget_unmapped(submitter);
        let free = self.buffers.iter().position(is_empty);
        let slot = free.unwrap_or(self.buffers.len());
        let (base, bytes) = region.span();
        if slot >= BUFFERS_MAX as usize || !update(slot, base, bytes, submitter) {
            log::info!(
                "{slot} buffers are registered with io_uring and no more; the others work too"
            );
            self.refused = true;
            return None;
        }
        match self.buffers.get_mut(slot) {
            Some(empty) => *empty = Arc::downgrade(region),
            None => self.buffers.push(Arc::downgrade(region)),
        }
        Some(slot)
    }

    /// Empties the slots of mappings that are gone.
    fn forget_unmapped(&mut self, submitter: &Submitter<'_>) {
        for slot in 0..self.buffers.len() {
            if self.buffers[slot].strong_count() == 0 && !is_empty(&self.buffers[slot]) {
                self.empty(slot, submitter);
            }
        }
    }

    fn empty(&mut self, slot: usize, submitter: &Submitter<'_>) {
        if update(slot, std::ptr::null_mut(), 0, submitter) {
            self.buffers[slot] = Weak::new();
        }
    }
}

fn is_empty(slot: &Weak<Region>) -> bool {
    slot.ptr_eq(&Weak::new())
}

fn update(slot: usize, base: *mut u8, bytes: usize, submitter: &Submitter<'_>) -> bool {
    let buffer = libc::iovec { iov_base: base.cast(), iov_len: bytes };
    // SAFETY: the kernel pins the pages of a mapping that exists now, and keeps them whatever becomes
    // of it; a write names the slot only together with the mapping, which its slab keeps.
    unsafe { submitter.register_buffers_update(slot as u32, &[buffer], None) }.is_ok()
}

#[cfg(test)]
mod tests {
    use io_uring::IoUring;

    use super::*;
    use crate::slab::{Slab, SlabPool};

    fn slab(pool: &SlabPool) -> Slab {
        pool.take(1).unwrap()
    }

    #[test]
    fn mappings_keep_their_numbers_and_those_that_are_gone_make_room() {
        // Where containers forbid io_uring, there is nothing to be tested.
        let Ok(ring) = IoUring::new(1) else { return };
        let mut registered = Registered::new(&ring.submitter());
        if registered.refused {
            return;
        }
        let mut number = |slab: &Slab| registered.buffer(slab.region(), true, &ring.submitter());
        let pool = SlabPool::new(1 << 20);
        let (a, b) = (slab(&pool), slab(&pool));
        assert_eq!((number(&a), number(&b), number(&a)), (Some(0), Some(1), Some(0)));
        drop(b);
        assert_eq!(number(&slab(&pool)), Some(1), "the slab is used again");
        // A pool that is gone takes its free slabs along, and the next mapping may get their address.
        drop(pool);
        let other = SlabPool::new(1 << 20);
        let (c, d) = (slab(&other), slab(&other));
        assert_eq!((number(&c), number(&d), number(&a)), (Some(1), Some(2), Some(0)));
    }

    #[test]
    fn a_file_takes_the_place_of_another_only_when_it_may() {
        let Ok(ring) = IoUring::new(1) else { return };
        let mut registered = Registered::new(&ring.submitter());
        let file = || Arc::new(DiskFile::from(tempfile::tempfile().unwrap()));
        let (a, b) = (file(), file());
        let mut has = |file, may_change| registered.has_file(file, may_change, &ring.submitter());
        assert!(!has(&a, false) && has(&a, true) && has(&a, false));
        assert!(!has(&b, false) && has(&a, false) && has(&b, true));
    }
}
