//! The ring's memory where a device writes it by DMA: the driver's own.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use circbuf_abi::pci::RING_ALIGN;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::mapping::Mapping;

/// Where Linux tells of its huge pages, a folder for each size.
const HUGE_PAGES: &str = "/sys/kernel/mm/hugepages";

/// A memfd without a size: which pages it will have is known.
#[derive(Debug)]
pub(super) struct Pages {
    file: File,
    /// Size of a page; of a huge one, the system's usual one.
    bytes: u64,
    is_huge: bool,
}

impl Pages {
    /// The usual pages, or huge ones.
    pub(super) fn find(is_huge: bool) -> io::Result<Pages> {
        let mut flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        flags.set(MFdFlags::MFD_HUGETLB, is_huge);
        let file = memfd_create("circbuf-dma", flags).map_err(|errno| match is_huge {
            true => {
                io::Error::other(format!("this kernel has no huge pages ({errno}); do without"))
            }
            false => errno.into(),
        });
        let file = File::from(file?);
        let bytes = if is_huge { file.metadata()?.blksize() } else { RING_ALIGN };
        Ok(Pages { file, bytes, is_huge })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes `bytes` of memory, a multiple of the page size.
    pub(super) fn take(self, bytes: u64) -> io::Result<DmaMemory> {
        self.file.set_len(bytes)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&self.file, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(DmaMemory { pages: self, bytes })
    }
}

/// A memfd whose size is sealed, so that whoever maps it can rely on it.
#[derive(Debug)]
pub(super) struct DmaMemory {
    pages: Pages,
    bytes: u64,
}

impl DmaMemory {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Maps it for reading, which has it all in memory.
    pub(super) fn map(&self) -> io::Result<Mapping> {
        let (bytes, page_bytes) = (self.bytes as usize, self.pages.bytes as usize);
        Mapping::ring_of_pages(self, bytes, page_bytes).map_err(|error| match error.kind() {
            io::ErrorKind::OutOfMemory if self.pages.is_huge => self.none_free(),
            _ => error,
        })
    }

    /// Huge pages are set aside by whoever administers the system, or are not there.
    fn none_free(&self) -> io::Error {
        let Pages { bytes: page_bytes, .. } = self.pages;
        let folder = Path::new(HUGE_PAGES).join(format!("hugepages-{}kB", page_bytes >> 10));
        let number = |name: &str| -> u64 {
            let text = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
            text.trim().parse().unwrap_or_default()
        };
        let (all, wanted) = (number("nr_hugepages"), self.bytes / page_bytes);
        let free = number("free_hugepages").saturating_sub(number("resv_hugepages"));
        io::Error::other(format!(
            "it takes {wanted} huge pages of {} MiB, and of {all} that are set aside {free} are free; sysctl \
             vm.nr_hugepages={} sets enough aside, or do without",
            page_bytes >> 20,
            (all + wanted).saturating_sub(free)
        ))
    }
}

impl AsFd for DmaMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pages.file.as_fd()
    }
}
