//! The function itself: what becomes of each access, and the camera behind it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use circbuf_abi::pci::bar0::{ERROR_ACCESS, ERROR_BUS_MASTER, ERROR_CONFIG, ERRORS_FATAL};
use circbuf_abi::pci::{BAR_BYTES, RING_ALIGN, VECTORS};
use circbuf_abi::registers::PAGE_BYTES;
use memmap2::MmapOptions;

use super::config::{ConfigSpace, Effect};
use super::engine::Engine;
use super::host::{HostMemory, HostRing, MapError};
use super::latch::{ErrorLatch, Vectors};
use super::registers::{Facts, Now, Registers, Request};
use crate::camera::{Camera, CameraError, Options};
use crate::dma::{RegisterPage, RegisterView};
use crate::model::check_ring_bytes;
use crate::report::{Emitted, Report};
use crate::ring_file::{RingFileError, sealed_memfd};
use crate::source::Source;

/// A function that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum FunctionError {
    /// The camera behind it cannot be made.
    #[error(transparent)]
    Camera(#[from] CameraError),
    /// There is no memory for the status page.
    #[error(transparent)]
    Page(#[from] RingFileError),
    /// The status page cannot be mapped.
    #[error("the status page cannot be mapped: {0}")]
    Map(io::Error),
}

/// A camera as a PCI function. It is used by one host at a time; whatever that does, the function
/// answers by its registers, as the datasheet ([`circbuf_abi::pci`]) says.
#[derive(Debug)]
pub struct Function {
    config: ConfigSpace,
    registers: Registers,
    errors: Arc<ErrorLatch>,
    vectors: Arc<Vectors>,
    memory: Arc<HostMemory>,
    credit: Arc<AtomicU64>,
    page: File,
    /// The same page, to be read by calls.
    status: RegisterView,
    emitted: Arc<Emitted>,
    engine: Engine,
}

impl Function {
    /// A function that has just got power. `ring_bytes` is the size of ring that it proposes. There is
    /// no interrupt handler, whatever the options say, and the credit is a register.
    ///
    /// # Errors
    /// As [`Camera::new`], but for the ring, or there is no memory.
    pub fn new(source: Source, options: Options, ring_bytes: u64) -> Result<Self, FunctionError> {
        let options = Options { bare: true, credit: None, ..options };
        let (geometry, frame_period_ns) = (source.geometry(), options.pace.frame_period_ns());
        let page = sealed_memfd("circbuf.pci", PAGE_BYTES as u64)?;
        let map = MmapOptions::new().populate().map_raw(&page).map_err(FunctionError::Map)?;
        let (vectors, memory) = (Arc::new(Vectors::default()), Arc::default());
        let errors = Arc::new(ErrorLatch::new(Arc::clone(&vectors)));
        let (host, latch) = (Arc::clone(&memory), Arc::clone(&errors));
        let nowhere = Arc::new(HostRing::new(host, (0, ring_bytes), latch, Arc::default()));
        let camera = Camera::of_function(
            RegisterPage::new(map),
            Arc::clone(&vectors),
            nowhere,
            (source, options),
        )?;
        let max_slot_bytes = camera.max_slot_bytes();
        let facts = Facts { ring_bytes, max_slot_bytes, geometry, frame_period_ns };
        Ok(Self {
            config: ConfigSpace::new(),
            registers: Registers::new(facts),
            vectors,
            memory,
            credit: Arc::default(),
            status: RegisterView::new(
                MmapOptions::new().map_raw_read_only(&page).map_err(FunctionError::Map)?,
            ),
            page: read_only(&page).map_err(FunctionError::Map)?,
            emitted: camera.emitted(),
            engine: Engine::new(camera, Arc::clone(&errors)),
            errors,
        })
    }

    /// Reads configuration space.
    pub fn read_config(&self, offset: u64, bytes: &mut [u8]) {
        self.config.read(offset, bytes);
    }

    /// Writes configuration space. A function level reset is done before it returns.
    pub fn write_config(&mut self, offset: u64, bytes: &[u8]) {
        let Effect { resets, revokes_dma } = self.config.write(offset, bytes);
        if resets {
            self.reset();
        } else if revokes_dma && self.engine.has_ring() {
            self.errors.raise(ERROR_BUS_MASTER);
            self.engine.stop(true);
        }
    }

    /// Reads the register BAR. While memory decoding is off nobody answers, which reads as ones.
    pub fn read_registers(&mut self, offset: u64, bytes: &mut [u8]) {
        bytes.fill(0xFF);
        if !self.config.decodes_memory() {
            return;
        }
        self.engine.settle();
        let now = Now {
            has_ring: self.engine.has_ring(),
            is_running: self.engine.is_running(),
            has_ended: self.has_ended(),
            errors: self.errors.bits(),
            fault_iova: self.errors.fault_iova(),
            frames: self.emitted.frames(),
        };
        if !self.registers.read(offset, bytes, &now) {
            self.errors.raise(ERROR_ACCESS);
        }
    }

    /// Writes the register BAR; what that asks for is done when it returns.
    pub fn write_registers(&mut self, offset: u64, bytes: &[u8]) {
        if !self.config.decodes_memory() {
            return;
        }
        self.engine.settle();
        for request in self.registers.write(offset, bytes, self.engine.has_ring()) {
            match request {
                Request::Nothing => {}
                Request::Enable => self.enable(),
                Request::Start => self.start(),
                Request::Stop => self.engine.stop(false),
                Request::Reset => self.reset_registers(),
                Request::Credit => self.credit.store(self.registers.credit, Ordering::Release),
                Request::ClearErrors(bits) => self.errors.clear(bits),
                Request::RaiseErrors(bits) => self.errors.raise(bits),
            }
        }
    }

    /// Reads the status page, for who does not map it: aligned words of 8 bytes are whole.
    pub fn read_status_page(&self, offset: u64, bytes: &mut [u8]) {
        match offset.checked_add(bytes.len() as u64) {
            Some(..=BAR_BYTES) => self.status.copy(offset, bytes),
            _ => bytes.fill(0xFF),
        }
    }

    /// The status page, which can be mapped and not be written.
    #[must_use]
    pub fn status_page(&self) -> BorrowedFd<'_> {
        self.page.as_fd()
    }

    /// Maps `bytes` of the host's memory at `iova`: those of a file from an offset on. Without a file
    /// the addresses are taken, and DMA to them fails.
    ///
    /// # Errors
    /// If the addresses are impossible or taken.
    pub fn map_dma(
        &mut self,
        iova: u64,
        bytes: u64,
        memory: (Option<File>, u64),
    ) -> Result<(), MapError> {
        self.memory.map(iova, bytes, memory)
    }

    /// Takes mappings away. When it returns, nothing is written there any more; a camera that comes to
    /// them finds its DMA failed.
    pub fn unmap_dma(&mut self, iova: u64, bytes: u64) {
        self.memory.unmap(iova, bytes);
    }

    /// Takes all mappings away.
    pub fn unmap_all_dma(&mut self) {
        self.memory.unmap_all();
    }

    /// Number of mappings.
    #[must_use]
    pub fn dma_mappings(&self) -> usize {
        self.memory.extents()
    }

    /// Has an MSI-X vector signal an eventfd, or nothing.
    ///
    /// # Errors
    /// There is no such vector, or the file is no eventfd.
    pub fn set_vector(&mut self, vector: usize, event: Option<File>) -> io::Result<()> {
        let is_set = vector < VECTORS && self.vectors.set(vector, event);
        is_set.then_some(()).ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    /// Signals a vector, as a host does to try it.
    ///
    /// # Errors
    /// There is no such vector.
    pub fn trigger(&self, vector: usize) -> io::Result<()> {
        if vector >= VECTORS {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.vectors.signal(vector);
        Ok(())
    }

    /// A function level reset.
    pub fn reset(&mut self) {
        self.reset_registers();
        self.config = ConfigSpace::new();
    }

    /// Whether the camera has ended: it has no more pictures, or had a limit, or was
    /// [told](Self::farewell) to.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.engine.has_ended()
    }

    /// Ends the camera behind its frame, from another thread: its driver is told that nothing will be
    /// written any more, and can read what there is.
    pub fn farewell(&self) -> impl Fn() + Send + use<> {
        self.engine.farewell()
    }

    /// Counters that follow the camera while it runs.
    #[must_use]
    pub fn emitted(&self) -> Arc<Emitted> {
        Arc::clone(&self.emitted)
    }

    /// Takes the power away, and tells what the camera did; nothing if it cannot be stopped, because its
    /// host or its source has it wait.
    #[must_use]
    pub fn finish(self) -> Option<Report> {
        self.engine.finish()
    }

    /// Takes the ring that the registers tell of.
    fn enable(&mut self) {
        self.engine.stop(false);
        if self.has_ended() || self.errors.bits() & ERRORS_FATAL != 0 {
            return;
        }
        if !self.config.is_bus_master() {
            return self.errors.raise(ERROR_BUS_MASTER);
        }
        let Registers { ring_iova, ring_bytes, waits, .. } = self.registers;
        let is_possible = ring_iova.is_multiple_of(RING_ALIGN)
            && ring_iova.checked_add(ring_bytes).is_some()
            && isize::try_from(ring_bytes).is_ok()
            && check_ring_bytes(ring_bytes, self.registers.max_slot_bytes()).is_ok();
        if !is_possible {
            return self.errors.raise(ERROR_CONFIG);
        }
        self.registers.credit = 0;
        self.credit.store(0, Ordering::Release);
        let credit = waits.then(|| Arc::clone(&self.credit));
        self.engine.take_ring(&self.memory, (ring_iova, ring_bytes), credit);
    }

    fn start(&mut self) {
        if !self.engine.has_ring() {
            self.enable();
        }
        self.engine.start();
    }

    fn reset_registers(&mut self) {
        self.engine.reset();
        self.registers.reset();
        self.errors.clear(u32::MAX);
    }
}

/// The same file, opened so that it can only be read.
fn read_only(file: &File) -> io::Result<File> {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
