//! What the camera's side and the host's side of the function tell each other: errors and interrupts.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use circbuf_abi::pci::bar0::ERROR_DMA;
use circbuf_abi::pci::{VECTOR_ERROR, VECTORS};

/// The MSI-X vectors: an eventfd of the host's for each that is wanted.
#[derive(Debug, Default)]
pub(crate) struct Vectors {
    events: Mutex<[Option<File>; VECTORS]>,
}

impl Vectors {
    /// Signals a vector. One that nobody listens to is lost, as on a bus.
    pub(crate) fn signal(&self, vector: usize) {
        if let Some(Err(error)) =
            self.open()[vector].as_mut().map(|event| event.write(&1_u64.to_ne_bytes()))
        {
            log::debug!("vector {vector} was not signalled: {error}");
        }
    }

    /// Has vector `vector` signal an event, or nothing. False if it is no event: a write to anything
    /// else might wait.
    pub(super) fn set(&self, vector: usize, event: Option<File>) -> bool {
        let is_event = event.as_ref().is_none_or(is_eventfd);
        self.open()[vector] = event.filter(|_| is_event);
        is_event
    }

    fn open(&self) -> MutexGuard<'_, [Option<File>; VECTORS]> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_eventfd(file: &File) -> bool {
    let target = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    target.is_ok_and(|target| target.as_os_str().as_encoded_bytes() == b"anon_inode:[eventfd]")
}

/// The error register.
#[derive(Debug)]
pub(super) struct ErrorLatch {
    bits: AtomicU32,
    fault_iova: AtomicU64,
    vectors: Arc<Vectors>,
}

impl ErrorLatch {
    pub(super) fn new(vectors: Arc<Vectors>) -> Self {
        Self { bits: AtomicU32::new(0), fault_iova: AtomicU64::new(0), vectors }
    }

    /// Sets bits, and signals those that were clear.
    pub(super) fn raise(&self, bits: u32) {
        let before = self.bits.fetch_or(bits, Ordering::AcqRel);
        if before & bits != bits {
            log::debug!("error bits {bits:#x} were set");
            self.vectors.signal(VECTOR_ERROR);
        }
    }

    /// Sets the bit that tells of a failed DMA, with its address if it is the first one.
    pub(super) fn raise_dma(&self, iova: u64) {
        if self.bits() & ERROR_DMA == 0 {
            self.fault_iova.store(iova, Ordering::Release);
        }
        self.raise(ERROR_DMA);
    }

    pub(super) fn clear(&self, bits: u32) {
        self.bits.fetch_and(!bits, Ordering::AcqRel);
        if bits & ERROR_DMA != 0 {
            self.fault_iova.store(0, Ordering::Release);
        }
    }

    pub(super) fn bits(&self) -> u32 {
        self.bits.load(Ordering::Acquire)
    }

    pub(super) fn fault_iova(&self) -> u64 {
        self.fault_iova.load(Ordering::Acquire)
    }
}
