//! What stands between the driver and a PCI function.

use std::io;

use nix::sys::eventfd::EventFd;

use super::memory::DmaMemory;
use super::vfio::Vfio;
use super::vfio_user::VfioUser;
use crate::mapping::Mapping;

/// The lowest address at which a device is to see the ring: above all that is special below 4 GiB
/// (interrupts, other devices), and within the reach of every IOMMU.
pub(super) const RING_IOVA: u64 = 1 << 32;

/// A space of the function that is read and written by calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    /// Configuration space.
    Config,
    /// The register BAR.
    Registers,
}

/// A way to a PCI function. Errors are those of the access; the device itself answers by what it
/// lets be read.
#[derive(Debug)]
pub(super) enum Transport {
    /// A server at the other end of a socket.
    VfioUser(VfioUser),
    /// The kernel's VFIO.
    Vfio(Box<Vfio>),
}

impl Transport {
    pub(super) fn read(&self, space: Space, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        match self {
            Transport::VfioUser(server) => server.read(space, offset, bytes),
            Transport::Vfio(kernel) => kernel.read(space, offset, bytes),
        }
    }

    pub(super) fn write(&self, space: Space, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match self {
            Transport::VfioUser(server) => server.write(space, offset, bytes),
            Transport::Vfio(kernel) => kernel.write(space, offset, bytes),
        }
    }

    /// Writes without an answer, as a bus posts it: what is wrong shows at the next access.
    pub(super) fn post(&self, space: Space, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match self {
            Transport::VfioUser(server) => server.post(space, offset, bytes),
            Transport::Vfio(kernel) => kernel.write(space, offset, bytes),
        }
    }

    /// Where the device is to see a ring of so many bytes.
    pub(super) fn ring_iova(&self, bytes: u64) -> io::Result<u64> {
        match self {
            Transport::VfioUser(_) => Ok(RING_IOVA),
            Transport::Vfio(kernel) => kernel.ring_iova(bytes),
        }
    }

    /// Lets the device write `memory` at `iova`.
    pub(super) fn map_dma(&self, iova: u64, memory: &DmaMemory) -> io::Result<()> {
        match self {
            Transport::VfioUser(server) => server.map_dma(iova, memory),
            Transport::Vfio(kernel) => kernel.map_dma(iova, memory),
        }
    }

    /// Takes away what was mapped. When it returns, the device writes there no more.
    pub(super) fn unmap_dma(&self, iova: u64, bytes: u64) -> io::Result<()> {
        match self {
            Transport::VfioUser(server) => server.unmap_dma(iova, bytes),
            Transport::Vfio(kernel) => kernel.unmap_dma(iova, bytes),
        }
    }

    /// Maps the status page.
    pub(super) fn status_page(&self) -> io::Result<Mapping> {
        match self {
            Transport::VfioUser(server) => server.status_page(),
            Transport::Vfio(kernel) => kernel.status_page(),
        }
    }

    /// Lets the MSI-X vectors from 0 on signal these events, one each.
    pub(super) fn set_interrupts(&self, events: &[&EventFd]) -> io::Result<()> {
        match self {
            Transport::VfioUser(server) => server.set_interrupts(events),
            Transport::Vfio(kernel) => kernel.set_interrupts(events),
        }
    }
}
