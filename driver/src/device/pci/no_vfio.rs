//! The kernel's VFIO on machines where this driver does not know it: there is none.

use std::io;

use nix::sys::eventfd::EventFd;

use super::address::PciAddress;
use super::memory::DmaMemory;
use super::transport::Space;
use super::vfio_error::VfioError;
use crate::mapping::Mapping;

/// Never there.
#[derive(Debug)]
pub(super) enum Vfio {}

impl Vfio {
    pub(super) fn open(address: PciAddress) -> Result<Vfio, VfioError> {
        Err(VfioError::Unsupported { address })
    }

    pub(super) fn read(&self, _: Space, _: u64, _: &mut [u8]) -> io::Result<()> {
        match *self {}
    }

    pub(super) fn write(&self, _: Space, _: u64, _: &[u8]) -> io::Result<()> {
        match *self {}
    }

    pub(super) fn status_page(&self) -> io::Result<Mapping> {
        match *self {}
    }

    pub(super) fn ring_iova(&self, _: u64) -> io::Result<u64> {
        match *self {}
    }

    pub(super) fn map_dma(&self, _: u64, _: &DmaMemory) -> io::Result<()> {
        match *self {}
    }

    pub(super) fn unmap_dma(&self, _: u64, _: u64) -> io::Result<()> {
        match *self {}
    }

    pub(super) fn set_interrupts(&self, _: &[&EventFd]) -> io::Result<()> {
        match *self {}
    }
}
