//! A PCI function behind the kernel's VFIO: container, group and device, its spaces and status page,
//! interrupts, and memory laid open to it. VFIO resets the function (by a function level reset, where it has
//! one) whenever it is opened and closed.

mod iova;
mod refusal;
mod sysfs;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use circbuf_abi::pci::{self, MSIX_BAR, REGISTER_BAR, STATUS_BAR};
use circbuf_abi::registers::PAGE_BYTES;
use memmap2::{MmapOptions, MmapRaw};
use nix::errno::Errno;
use nix::sys::eventfd::EventFd;
use nix::sys::uio::{pread, pwrite};
use vfio_bindings::bindings::vfio::{
    VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_MSIX_IRQ_INDEX, VFIO_REGION_INFO_FLAG_MMAP,
};
use vfio_ioctls::{VfioContainer, VfioDevice};
use vmm_sys_util::eventfd;

use self::sysfs::{Bound, SYSFS};
use super::address::PciAddress;
use super::memory::DmaMemory;
use super::transport::Space;
use super::vfio_error::{DmaError, GroupError, VfioError};
use crate::mapping::Mapping;

/// An open function.
pub(super) struct Vfio {
    function: Bound,
    // Before its container, which it is a part of.
    device: VfioDevice,
    container: Arc<VfioContainer>,
    /// The ring, mapped for writing because VFIO asks for that. Nothing is ever loaded or stored through it.
    dma: Mutex<Option<MmapRaw>>,
}

impl std::fmt::Debug for Vfio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vfio").field("function", &self.function).finish_non_exhaustive()
    }
}

impl Vfio {
    /// Opens the function at `address`.
    pub(super) fn open(address: PciAddress) -> Result<Vfio, VfioError> {
        let function = Bound::find(Path::new(SYSFS), address)?;
        let refused = |error| refused(&function, error);
        let container = Arc::new(VfioContainer::new(None).map_err(refused)?);
        let device =
            VfioDevice::new(&function.folder(), container.clone(), false).map_err(refused)?;
        let vfio = Vfio { function, device, container, dma: Mutex::default() };
        match vfio.strange() {
            None => Ok(vfio),
            Some(how) => Err(VfioError::Built { address, how }),
        }
    }

    /// What is not as the datasheet says, as far as VFIO can tell.
    fn strange(&self) -> Option<String> {
        let bytes = |bar: usize| self.device.get_region_size(bar as u32);
        let is_small = |&&bar: &&usize| bytes(bar) < pci::BAR_BYTES;
        if let Some(&bar) = [REGISTER_BAR, STATUS_BAR, MSIX_BAR].iter().find(is_small) {
            return Some(format!("its BAR {bar} has {} bytes", bytes(bar)));
        }
        if self.device.get_region_flags(STATUS_BAR as u32) & VFIO_REGION_INFO_FLAG_MMAP == 0 {
            return Some(format!("its BAR {STATUS_BAR} cannot be mapped"));
        }
        let vectors = self.device.get_irq_info(VFIO_PCI_MSIX_IRQ_INDEX).map_or(0, |irq| irq.count);
        let is_short = (vectors as usize) < pci::VECTORS;
        is_short.then(|| format!("it has {vectors} MSI-X vectors of {}", pci::VECTORS))
    }

    /// The device's file. The crate's own reads and writes tell no errors.
    fn file(&self) -> BorrowedFd<'_> {
        // SAFETY: the device keeps the file open as long as it lives, and it is borrowed as long.
        unsafe { BorrowedFd::borrow_raw(self.device.as_raw_fd()) }
    }

    /// Where in that file a byte of a region stands.
    fn offset(&self, region: u32, offset: u64) -> i64 {
        (self.device.get_region_offset(region) + offset) as i64
    }

    fn place(&self, space: Space, offset: u64) -> i64 {
        match space {
            Space::Config => self.offset(VFIO_PCI_CONFIG_REGION_INDEX, offset),
            Space::Registers => self.offset(REGISTER_BAR as u32, offset),
        }
    }

    pub(super) fn read(&self, space: Space, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        // One access to the bus: the rest of a register cannot be asked for again.
        match pread(self.file(), bytes, self.place(space, offset)).map_err(access)? {
            read if read == bytes.len() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    pub(super) fn write(&self, space: Space, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match pwrite(self.file(), bytes, self.place(space, offset)).map_err(access)? {
            written if written == bytes.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// Maps the status page.
    pub(super) fn status_page(&self) -> io::Result<Mapping> {
        Mapping::at(&self.file(), self.offset(STATUS_BAR as u32, 0) as u64, PAGE_BYTES)
    }

    /// Where the device is to see `bytes` of the ring: clear of what the IOMMU keeps for itself.
    pub(super) fn ring_iova(&self, bytes: u64) -> io::Result<u64> {
        // A kernel that does not tell what is reserved says no when it is mapped.
        let reserved = self.function.reserved().unwrap_or_default();
        let full = || DmaError::NoRoom { bytes, reserved: self.reserved() };
        iova::choose(&reserved, bytes).ok_or_else(|| io::Error::other(full()))
    }

    fn reserved(&self) -> Vec<String> {
        let reserved = self.function.reserved().unwrap_or_default();
        reserved.iter().map(ToString::to_string).collect()
    }

    /// Lets the device write `memory` at `iova`.
    pub(super) fn map_dma(&self, iova: u64, memory: &DmaMemory) -> io::Result<()> {
        let bytes = memory.bytes();
        let length = usize::try_from(bytes).map_err(io::Error::other)?;
        let ring = MmapOptions::new().len(length).map_raw(memory.as_fd().as_raw_fd())?;
        // SAFETY: it stays mapped until the IOMMU has forgotten it, or the container is gone; nobody
        // loads or stores through it, and the ring's other mappings are read by atomic words alone.
        let mapped = unsafe { self.container.vfio_dma_map(iova, length, ring.as_mut_ptr()) };
        mapped.map_err(|error| match error {
            vfio_ioctls::VfioError::IommuDmaMap(error) => {
                let errno = Errno::from_raw(error.errno());
                io::Error::other(refusal::of_map(errno, iova, bytes, self.reserved()))
            }
            error => io::Error::other(error),
        })?;
        *self.dma.lock().unwrap_or_else(PoisonError::into_inner) = Some(ring);
        Ok(())
    }

    /// Takes away what was mapped. When it returns, the device writes there no more.
    pub(super) fn unmap_dma(&self, iova: u64, bytes: u64) -> io::Result<()> {
        let length = usize::try_from(bytes).map_err(io::Error::other)?;
        self.container.vfio_dma_unmap(iova, length).map_err(io::Error::other)?;
        *self.dma.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    /// Lets the MSI-X vectors from 0 on signal these events, one each.
    pub(super) fn set_interrupts(&self, events: &[&EventFd]) -> io::Result<()> {
        let events: Vec<_> = events.iter().map(|event| twin(event)).collect::<io::Result<_>>()?;
        let enabled = self.device.enable_msix(events.iter().collect());
        enabled.map_err(|error| io::Error::other(format!("{error}; see dmesg")))
    }
}

/// The same event as the crate wants it.
fn twin(event: &EventFd) -> io::Result<eventfd::EventFd> {
    let event = event.as_fd().try_clone_to_owned()?;
    // SAFETY: it is an eventfd, and nobody else owns this descriptor of it any more.
    Ok(unsafe { eventfd::EventFd::from_raw_fd(event.into_raw_fd()) })
}

/// What it means that the device does not answer.
fn access(error: Errno) -> io::Error {
    match error {
        Errno::EIO => io::Error::other(
            "input/output error: its memory decoding is off, or the device has left the bus",
        ),
        error => error.into(),
    }
}

/// What the crate's error means for whoever set the machine up.
fn refused(function: &Bound, error: vfio_ioctls::VfioError) -> GroupError {
    use vfio_ioctls::VfioError;
    let (dev, group) = (Path::new("/dev/vfio"), function.group);
    match error {
        VfioError::OpenContainer(error) => refusal::of_node(&dev.join("vfio"), error),
        VfioError::OpenGroup(error, _) => refusal::of_node(&dev.join(group.to_string()), error),
        VfioError::GroupViable => {
            GroupError::NotViable { group, held: function.held_by_the_kernel() }
        }
        // Of all that is asked for here, it is the one thing that the kernel does not permit.
        VfioError::ContainerSetIOMMU(error) if error.errno() == Errno::EPERM as i32 => {
            GroupError::NoRemapping
        }
        error => GroupError::Refused { what: function.address.to_string(), source: error.into() },
    }
}
