//! Where a ring comes from: memory of this process's own camera, a file, or a character device.

mod file;
mod node;
pub mod pci;

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use circbuf_abi::registers::PAGE_BYTES;
use circbuf_abi::ring::{GAP_BYTES, PAYLOAD_BYTES_MAX, RING_BYTES_ALIGN, SLOTS_MIN};

use crate::mapped_ring::MappedRing;
use crate::mapping::Mapping;
use crate::pointer::{FramePointer, PointerError, Sighting};
use crate::record::record_bytes;
use crate::registers::{Reach, Registers, RegistersError};
use crate::ring::{FrameHeader, Geometry, slot};
use file::RingFile;
pub use file::registers_path;
pub(crate) use node::Node;
use pci::{Function, PciError, PciOptions, PciPlace};

/// A ring that can be tailed, with its register page or its write pointer where it has one.
#[derive(Debug)]
pub struct Device {
    ring: MappedRing,
    registers: Option<Registers>,
    pointer: Option<FramePointer>,
    node: Option<Arc<Node>>,
    /// The largest slot that is to be believed in, in bytes.
    max_slot_bytes: u64,
    file: Option<RingFile>,
    pci: Option<Function>,
}

/// What to do about a ring that cannot be opened, where it is not plain.
fn mend(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::NotFound => "; start its camera, or name another ring",
        io::ErrorKind::PermissionDenied => "; it has to be readable for you, and so has its .regs",
        _ => "",
    }
}

/// Why a device cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Opening, sizing or mapping failed.
    #[error("{}: cannot {action}: {source}{}", path.display(), mend(source))]
    Io {
        /// The ring or its register page.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// Neither a file nor a character device.
    #[error("{}: is a {kind}; a ring is a regular file or a character device", path.display())]
    Kind {
        /// The path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// The size is not that of a ring.
    #[error(
        "{}: {bytes} bytes are no ring: it takes a multiple of {RING_BYTES_ALIGN} bytes, at least \
         {RING_BYTES_ALIGN} (was the file cut short?)", path.display()
    )]
    Size {
        /// The path.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The register page beside the ring is not believed.
    #[error("{}: register page refused: {source}", path.display())]
    Registers {
        /// The register page.
        path: PathBuf,
        /// Why.
        source: RegistersError,
    },
    /// The write pointer is none.
    #[error("{}: {source}", path.display())]
    Pointer {
        /// The node.
        path: PathBuf,
        /// What is wrong with it.
        source: PointerError,
    },
    /// A PCI function cannot be brought up.
    #[error(transparent)]
    Pci(#[from] PciError),
    /// The largest frame that was asked for does not fit.
    #[error(
        "frames of up to {max_frame_bytes} bytes need slots of {slot_bytes}; a ring of \
         {ring_bytes} bytes has to hold {SLOTS_MIN} of them"
    )]
    MaxFrame {
        /// As asked for.
        max_frame_bytes: u32,
        /// The slot that follows from it.
        slot_bytes: u64,
        /// The ring.
        ring_bytes: u64,
    },
}

impl OpenError {
    /// Whether the device does not exist (yet).
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        use std::io::ErrorKind::{ConnectionRefused, NotFound};
        match self {
            OpenError::Io { source, .. } => source.kind() == NotFound,
            OpenError::Pci(PciError::Connect { source, .. }) => {
                matches!(source.kind(), NotFound | ConnectionRefused)
            }
            _ => false,
        }
    }
}

/// Why a device that was open cannot be used any more.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The file is shorter than the mapping.
    #[error("{}: the ring was truncated while in use; start again on a whole one", path.display())]
    Truncated {
        /// The ring.
        path: PathBuf,
    },
    /// Another file stands at the path, or none.
    #[error("{}: the ring was {how} while in use; start again to read the new one", path.display())]
    Replaced {
        /// The ring.
        path: PathBuf,
        /// "replaced" or "removed".
        how: &'static str,
    },
    /// The register page tells something impossible.
    #[error("the register page is not to be believed any more: {0}")]
    Registers(#[from] RegistersError),
    /// The write pointer cannot be read, or is none.
    #[error("the camera's node cannot be followed any more: {0}")]
    Pointer(#[from] PointerError),
    /// A PCI function has stopped or is gone.
    #[error(transparent)]
    Pci(#[from] PciError),
}

impl DeviceError {
    /// Whether what was complete can be read all the same: a PCI function writes into the driver's own
    /// memory, and its status page stays mapped.
    pub(crate) fn leaves_ring(&self) -> bool {
        matches!(self, DeviceError::Pci(_))
    }
}

impl Device {
    /// The device behind a path: a ring file with its register page beside it if there is one, or
    /// a camera's node with its write pointer. `max_frame_bytes` is the largest payload to be believed in
    /// where no register page tells it; without it the largest slot is a quarter of the ring, which on
    /// a node leaves half of the ring to read from (see [`crate::pointer`]).
    ///
    /// # What a node's mapping needs
    /// The kernel maps the ring cached, and on a 393 the FPGA's port into memory is not coherent: a line
    /// that the processor has in its cache stays as it was when the FPGA overwrites it. The kernel's
    /// handler invalidates the first 32 KiB of each frame and 32 bytes in front of the write pointer, and
    /// no more. So the check after the copy (point 3 of the [law](crate::validate)) may see what was, and it
    /// is the pointer (point 4) that tells whether a frame was overwritten; that a frame's own bytes are
    /// fresh is the kernel's part: a kernel that maps the ring uncached, or coherent, does it. Firmware 7.1
    /// of the 353 had such a fault, too. This driver has been run on neither camera.
    ///
    /// # Errors
    /// If it cannot be opened or mapped, or is no ring.
    pub fn open(path: &Path, max_frame_bytes: Option<u32>) -> Result<Device, OpenError> {
        let file = RingFile::open(path)?;
        let registers_path = file.registers_path();
        let registers = file::open_registers(&registers_path)?;
        let mut device = Device::map(path, &file.file, registers.as_ref(), max_frame_bytes)?;
        if let (None, Some(node)) = (&device.registers, file.node(path)?) {
            let node = Arc::new(node);
            device.node = Some(Arc::clone(&node));
            device.follow_pointer(path, move || node.look())?;
        }
        device.file = Some(file);
        Ok(device)
    }

    /// A stamped ring behind a descriptor, and a pointer that moves at the ends of frames and wraps, read
    /// by `look`. `max_frame_bytes` as in [`Device::open`].
    ///
    /// # Errors
    /// If the ring cannot be mapped, is none, or if the pointer is none.
    pub fn with_pointer(
        ring: impl AsFd,
        max_frame_bytes: Option<u32>,
        look: impl FnMut() -> io::Result<Sighting> + Send + 'static,
    ) -> Result<Device, OpenError> {
        let path = Path::new("pointer:");
        let mut device = Device::map(path, &ring, None::<&std::fs::File>, max_frame_bytes)?;
        device.follow_pointer(path, look)?;
        Ok(device)
    }

    /// Believes in a bus of so many bytes a second, where the device has a pointer: see
    /// [`FramePointer::set_bus_rate`].
    #[must_use]
    pub fn with_bus_rate(mut self, bytes_per_s: u64) -> Device {
        if let Some(pointer) = &mut self.pointer {
            pointer.set_bus_rate(bytes_per_s);
        }
        self
    }

    fn follow_pointer(
        &mut self,
        path: &Path,
        look: impl FnMut() -> io::Result<Sighting> + Send + 'static,
    ) -> Result<(), OpenError> {
        let pointer = FramePointer::new(self.ring.bytes(), self.max_slot_bytes, look)
            .map_err(|source| OpenError::Pointer { path: path.to_owned(), source })?;
        self.pointer = Some(pointer);
        Ok(())
    }

    /// The device behind two descriptors, of a memfd for example: the same as a file, but that
    /// nobody can replace it.
    ///
    /// # Errors
    /// If they cannot be mapped, or are no ring and register page.
    pub fn from_fds(ring: impl AsFd, registers: Option<impl AsFd>) -> Result<Device, OpenError> {
        Device::map(Path::new("emu:"), &ring, registers.as_ref(), None)
    }

    /// Brings a PCI function up and gives it a ring, which is empty until it is [started](Self::start).
    /// Dropping the device stops the function.
    ///
    /// # Errors
    /// If there is no such function, it is no camera, or it does not take the ring.
    pub fn open_pci(place: &PciPlace, options: PciOptions) -> Result<Device, OpenError> {
        let enabled = Function::open(place, options)?;
        let ring = MappedRing::new(enabled.ring);
        let registers = Registers::new(enabled.status_page, ring.bytes()).map_err(|source| {
            OpenError::Registers { path: PathBuf::from(place.to_string()), source }
        })?;
        Ok(Device {
            ring,
            max_slot_bytes: registers.max_slot_bytes(),
            registers: Some(registers),
            pointer: None,
            node: None,
            file: None,
            pci: Some(enabled.function),
        })
    }

    /// Has a PCI function write frames, once there is a tail that follows it; a
    /// [`Pipeline`](crate::pipeline::Pipeline) does this itself. Other devices run by themselves.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(&self) -> Result<(), DeviceError> {
        self.pci.as_ref().map_or(Ok(()), Function::start).map_err(DeviceError::from)
    }

    fn map(
        path: &Path,
        ring: &impl AsFd,
        registers: Option<&impl AsFd>,
        max_frame_bytes: Option<u32>,
    ) -> Result<Device, OpenError> {
        let bytes = file::size(path, ring)?;
        if bytes == 0 || !bytes.is_multiple_of(RING_BYTES_ALIGN) || usize::try_from(bytes).is_err()
        {
            return Err(OpenError::Size { path: path.to_owned(), bytes });
        }
        let memory =
            Mapping::ring(ring, bytes as usize).map_err(|error| cannot_map(path, error))?;
        let registers = registers
            .map(|page| {
                let path = file::registers_path(path);
                let size = file::size(&path, page)?;
                if size < PAGE_BYTES as u64 {
                    let source = RegistersError::Cut { bytes: size };
                    return Err(OpenError::Registers { path, source });
                }
                let memory =
                    Mapping::of(page, PAGE_BYTES).map_err(|error| cannot_map(&path, error))?;
                Registers::new(memory, bytes)
                    .map_err(|source| OpenError::Registers { path, source })
            })
            .transpose()?;
        let max_slot_bytes = match &registers {
            Some(registers) => registers.max_slot_bytes(),
            None => largest_slot(bytes, max_frame_bytes)?,
        };
        let ring = MappedRing::new(memory);
        Ok(Device {
            ring,
            registers,
            pointer: None,
            node: None,
            max_slot_bytes,
            file: None,
            pci: None,
        })
    }

    /// The ring's memory.
    #[must_use]
    pub fn ring(&self) -> &MappedRing {
        &self.ring
    }

    /// The register page, where there is one.
    #[must_use]
    pub fn registers(&self) -> Option<&Registers> {
        self.registers.as_ref()
    }

    /// The write pointer, where the device has that and no register page.
    #[must_use]
    pub fn pointer(&self) -> Option<&FramePointer> {
        self.pointer.as_ref()
    }

    /// The camera's node, if it is one.
    pub(crate) fn node(&self) -> Option<&Node> {
        self.node.as_deref()
    }

    /// How far the writer may have come, where the device tells it: see [`Registers::reach`] and
    /// [`FramePointer::reach`].
    #[must_use]
    pub fn reach(&self) -> Option<Reach> {
        match (&self.registers, &self.pointer) {
            (Some(registers), _) => Some(registers.reach()),
            (None, Some(pointer)) => Some(pointer.reach()),
            (None, None) => None,
        }
    }

    /// Whether the device says that an interrupt handler stamps frame headers. The kernel that has a
    /// node also has the handler.
    pub(crate) fn is_stamped(&self) -> bool {
        match &self.registers {
            Some(registers) => registers.is_stamped(),
            None => self.pointer.is_some(),
        }
    }

    /// Size, quality and colour mode of the pictures, by the register page or the newest frame's header;
    /// zeros if unknown. Each frame's own header tells its own.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        let newest = |pointer: &FramePointer| {
            let end = pointer.seen().cursor;
            let length = self.ring.trailer(end - GAP_BYTES as u64).length;
            end.checked_sub(slot(length)).map(|start| self.ring.header(start))
        };
        match (&self.registers, &self.pointer) {
            (Some(registers), _) => registers.geometry(),
            (None, Some(pointer)) => newest(pointer)
                .filter(FrameHeader::is_stamped)
                .map_or_else(Geometry::default, |header| header.geometry()),
            (None, None) => Geometry::default(),
        }
    }

    /// The largest distance from one frame's start to the next, in bytes.
    #[must_use]
    pub fn max_slot_bytes(&self) -> u64 {
        self.max_slot_bytes
    }

    /// Bytes of the record of the largest frame.
    #[must_use]
    pub fn record_bytes_max(&self) -> usize {
        // A record's body is a slot: the gap in front takes the place of the one behind.
        record_bytes(self.max_slot_bytes.min(slot(PAYLOAD_BYTES_MAX)) as usize)
    }

    /// Whether the camera has said that it will not write again.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.registers.as_ref().is_some_and(Registers::has_ended)
    }

    /// Whether the register page was made for another ring file. For a moment that is so while a
    /// camera puts a new ring in the place of an old one: open the device again. If it stays so, ring
    /// and page are copies.
    #[must_use]
    pub fn has_foreign_page(&self) -> bool {
        match (&self.file, &self.registers) {
            (Some(file), Some(registers)) => !registers.belongs_to(file.device, file.inode),
            _ => false,
        }
    }

    /// Whether both were opened by paths, and are one file or character device under whatever names.
    #[must_use]
    pub fn is_same_file(&self, other: &Device) -> bool {
        match (&self.file, &other.file) {
            (Some(file), Some(other)) => file.is_same(other),
            _ => false,
        }
    }

    /// Whether the process that wrote the ring is gone without having said so: nobody holds the
    /// lock that an emulator keeps on its ring file. Always false where there is no such lock.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.registers.is_some() && self.file.as_ref().is_some_and(RingFile::is_unlocked)
    }

    /// Whether ring or register page have lost memory: what is read there may be zeros that nobody
    /// wrote.
    pub(crate) fn is_truncated(&self) -> bool {
        self.ring.is_truncated() || self.registers.as_ref().is_some_and(Registers::is_truncated)
    }

    /// Tells a device that waits for its driver, as no camera does, that the ring is free below
    /// `cursor`; now and then, or at once if there `is_nothing` else to do.
    pub(crate) fn release(&self, cursor: u64, is_nothing: bool) {
        if let Some(function) = &self.pci {
            function.release(cursor, is_nothing);
        }
    }

    /// Sleeps so long at most. A device that has an interrupt ends it with the next frame.
    pub(crate) fn sleep(&self, most: Duration) {
        match &self.pci {
            Some(function) => function.sleep(most),
            None => std::thread::sleep(most),
        }
    }

    /// Whether the device is still the one that was opened, and is well.
    ///
    /// # Errors
    /// If its file was truncated, replaced or removed, or a PCI function has stopped or is gone.
    pub fn check(&self) -> Result<(), DeviceError> {
        // Whatever becomes of a device that has ended, what it wrote is in memory of ours.
        if let Some(function) = self.pci.as_ref().filter(|_| !self.has_ended()) {
            function.check()?;
        }
        match &self.file {
            Some(file) if self.is_truncated() => {
                Err(DeviceError::Truncated { path: file.path.clone() })
            }
            Some(file) => file.check(self.ring.bytes()),
            None => Ok(()),
        }
    }
}

fn cannot_map(path: &Path, source: std::io::Error) -> OpenError {
    OpenError::Io { path: path.to_owned(), action: "map it for reading", source }
}

fn largest_slot(ring_bytes: u64, max_frame_bytes: Option<u32>) -> Result<u64, OpenError> {
    let quarter = ring_bytes / SLOTS_MIN;
    let Some(max_frame_bytes) = max_frame_bytes else { return Ok(quarter) };
    let slot_bytes = crate::ring::slot(max_frame_bytes);
    if slot_bytes > quarter {
        return Err(OpenError::MaxFrame { max_frame_bytes, slot_bytes, ring_bytes });
    }
    Ok(slot_bytes)
}
