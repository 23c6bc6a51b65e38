//! The host's memory, as far as it was mapped for DMA.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use circbuf_abi::pci::RING_ALIGN;
use memmap2::MmapOptions;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};

use super::latch::ErrorLatch;
use crate::dma::SharedMemory;

/// Mappings that a host may have at a time: four rings of 64 MiB in pages of 4 KiB are a quarter.
const EXTENTS_MAX: usize = 1 << 18;

/// A mapping for DMA that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// Its addresses are impossible.
    #[error("a DMA mapping of {bytes} bytes at {iova:#x} ends beyond the addresses, or is empty")]
    Range {
        /// Its first address.
        iova: u64,
        /// Its size.
        bytes: u64,
    },
    /// Something is mapped there.
    #[error("a DMA mapping of {bytes} bytes at {iova:#x} overlaps the one at {other:#x}")]
    Overlap {
        /// Its first address.
        iova: u64,
        /// Its size.
        bytes: u64,
        /// First address of the other one.
        other: u64,
    },
    /// There are too many.
    #[error("more than {EXTENTS_MAX} DMA mappings")]
    TooMany,
    /// Its memory cannot be looked at.
    #[error("the memory of a DMA mapping at {iova:#x} cannot be used: {source}")]
    Memory {
        /// Its first address.
        iova: u64,
        /// Why.
        source: io::Error,
    },
}

/// The host's memory by addresses of the bus, as behind an IOMMU.
#[derive(Debug, Default)]
pub(super) struct HostMemory {
    /// Locked while it is written: who takes memory away waits for the store that is under way.
    map: Mutex<Map>,
}

#[derive(Debug, Default)]
struct Map {
    /// By their first addresses; they do not overlap.
    extents: BTreeMap<u64, Extent>,
    /// One for each file and way it was opened: a guest's memory comes in thousands of pieces of one
    /// file.
    files: HashMap<(u64, u64, i32), Weak<HostFile>>,
}

/// A mapping for DMA.
#[derive(Debug)]
struct Extent {
    bytes: u64,
    /// Where it begins in the file.
    offset: u64,
    /// None if there is nothing that a device could write.
    file: Option<Arc<HostFile>>,
}

/// A file that is memory of the host.
#[derive(Debug)]
enum HostFile {
    /// Its size is sealed: it is mapped, as a whole.
    Mapped(SharedMemory),
    /// It may shrink at any time, and is written by system calls.
    Unsealed(File),
}

impl HostMemory {
    /// Maps `bytes` of `file` from `offset` on at `iova`. Without a file, or one that can be written,
    /// DMA to it fails.
    pub(super) fn map(
        &self,
        iova: u64,
        bytes: u64,
        (file, offset): (Option<File>, u64),
    ) -> Result<(), MapError> {
        let mut map = self.open();
        if bytes == 0 || iova.checked_add(bytes).is_none() {
            return Err(MapError::Range { iova, bytes });
        }
        if let Some((&other, _)) = map.overlapping(iova, bytes).next() {
            return Err(MapError::Overlap { iova, bytes, other });
        }
        if map.extents.len() >= EXTENTS_MAX {
            return Err(MapError::TooMany);
        }
        let file = file.map(|file| map.file(file)).transpose();
        let file = file.map_err(|source| MapError::Memory { iova, source })?;
        let is_whole = |number: u64| number.is_multiple_of(RING_ALIGN);
        let is_usable = |file: &Arc<HostFile>| {
            is_whole(iova) && is_whole(bytes) && is_whole(offset) && file.holds(offset, bytes)
        };
        let file = file.filter(is_usable);
        map.extents.insert(iova, Extent { bytes, offset, file });
        Ok(())
    }

    /// Takes away every mapping that has an address from `iova` on. When it returns, nothing is
    /// written there any more.
    pub(super) fn unmap(&self, iova: u64, bytes: u64) {
        let mut map = self.open();
        let gone: Vec<u64> = map.overlapping(iova, bytes).map(|(&iova, _)| iova).collect();
        for iova in gone {
            map.extents.remove(&iova);
        }
        map.files.retain(|_, file| file.strong_count() > 0);
    }

    pub(super) fn unmap_all(&self) {
        *self.open() = Map::default();
    }

    /// Number of mappings.
    pub(super) fn extents(&self) -> usize {
        self.open().extents.len()
    }

    /// Takes the pages of a range now, as far as they are there.
    fn populate(&self, iova: u64, bytes: u64) {
        for (&first, extent) in self.open().overlapping(iova, bytes) {
            if let Some(HostFile::Mapped(memory)) = extent.file.as_deref() {
                let skipped = iova.saturating_sub(first);
                let end = extent.bytes.min(iova + bytes - first);
                memory.populate(extent.offset + skipped, end - skipped);
            }
        }
    }

    /// Stores whole words from `iova` on, in address order. The error is the first address that could
    /// not be written.
    fn store(&self, mut iova: u64, mut bytes: &[u8]) -> Result<(), u64> {
        let map = self.open();
        while !bytes.is_empty() {
            let (first, extent) = map.extents.range(..=iova).next_back().ok_or(iova)?;
            let inside = iova - first;
            let left = extent.bytes.saturating_sub(inside).min(bytes.len() as u64);
            let file = extent.file.as_deref().filter(|_| left > 0).ok_or(iova)?;
            let (now, later) = bytes.split_at(left as usize);
            file.store(extent.offset + inside, now).map_err(|error| {
                log::debug!("the host's memory at {iova:#x} was not written: {error}");
                iova
            })?;
            (iova, bytes) = (iova + left, later);
        }
        Ok(())
    }

    fn open(&self) -> MutexGuard<'_, Map> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Map {
    /// The mappings that have an address in this range.
    fn overlapping(&self, iova: u64, bytes: u64) -> impl Iterator<Item = (&u64, &Extent)> {
        let end = iova.saturating_add(bytes);
        let before = self.extents.range(..iova).next_back();
        let before = before.filter(|(first, extent)| *first + extent.bytes > iova);
        before.into_iter().chain(self.extents.range(iova..end))
    }

    fn file(&mut self, file: File) -> io::Result<Arc<HostFile>> {
        let metadata = file.metadata()?;
        let opened = fcntl(&file, FcntlArg::F_GETFL)? & OFlag::O_ACCMODE.bits();
        let key = (metadata.dev(), metadata.ino(), opened);
        if let Some(known) = self.files.get(&key).and_then(Weak::upgrade)
            && known.holds(0, metadata.len())
        {
            return Ok(known);
        }
        let file = Arc::new(HostFile::of(file, metadata.len()));
        self.files.insert(key, Arc::downgrade(&file));
        Ok(file)
    }
}

impl HostFile {
    fn of(file: File, bytes: u64) -> Self {
        let seals = fcntl(&file, FcntlArg::F_GET_SEALS).unwrap_or_default();
        let stays = SealFlag::from_bits_truncate(seals).contains(SealFlag::F_SEAL_SHRINK);
        let whole = bytes > 0 && bytes.is_multiple_of(RING_ALIGN) && usize::try_from(bytes).is_ok();
        if stays && whole {
            match MmapOptions::new().len(bytes as usize).map_raw(&file) {
                Ok(map) => return Self::Mapped(SharedMemory::new(map)),
                Err(error) => log::debug!("memory of the host cannot be mapped: {error}"),
            }
        }
        Self::Unsealed(file)
    }

    /// Whether this range can be written, as far as that can be known beforehand.
    fn holds(&self, offset: u64, bytes: u64) -> bool {
        let end = offset.checked_add(bytes);
        match self {
            Self::Mapped(memory) => end.is_some_and(|end| end <= memory.bytes()),
            Self::Unsealed(_) => end.is_some_and(|end| i64::try_from(end).is_ok()),
        }
    }

    fn store(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Mapped(memory) => memory.store(offset, bytes),
            Self::Unsealed(file) => file.write_all_at(bytes, offset)?,
        }
        Ok(())
    }
}

/// A ring in the host's memory. What is stored after it was lost goes nowhere.
#[derive(Debug)]
pub(crate) struct HostRing {
    memory: Arc<HostMemory>,
    iova: u64,
    bytes: u64,
    errors: Arc<ErrorLatch>,
    is_lost: AtomicBool,
    /// Stops the camera.
    stop: Arc<AtomicBool>,
}

impl HostRing {
    pub(super) fn new(
        memory: Arc<HostMemory>,
        (iova, bytes): (u64, u64),
        errors: Arc<ErrorLatch>,
        stop: Arc<AtomicBool>,
    ) -> Self {
        memory.populate(iova, bytes);
        Self { memory, iova, bytes, errors, is_lost: AtomicBool::new(false), stop }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Acquire)
    }

    /// Stores whole words at an offset of the ring.
    pub(crate) fn store(&self, offset: u64, bytes: &[u8]) {
        if self.is_lost() {
            return;
        }
        if let Err(iova) = self.memory.store(self.iova + offset, bytes) {
            self.errors.raise_dma(iova);
            self.lose();
        }
    }

    /// Ends all DMA into it, and the camera.
    pub(super) fn lose(&self) {
        self.is_lost.store(true, Ordering::Release);
        self.stop.store(true, Ordering::Relaxed);
    }
}
