//! The ring's memory where a device writes it by DMA: the driver's own.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// A memfd whose size is sealed, so that whoever maps it can rely on it.
#[derive(Debug)]
pub(super) struct DmaMemory {
    file: File,
    bytes: u64,
}

impl DmaMemory {
    /// Takes `bytes` of memory, a multiple of the page size.
    pub(super) fn take(bytes: u64) -> io::Result<DmaMemory> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = File::from(memfd_create("circbuf-dma", flags)?);
        file.set_len(bytes)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(DmaMemory { file, bytes })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl AsFd for DmaMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
