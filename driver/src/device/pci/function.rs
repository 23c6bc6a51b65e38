//! Brings a PCI function up, looks whether it is well, and stops it at the end.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use circbuf_abi::pci::bar0::{
    self as reg, CONTROL_CREDIT, CONTROL_ENABLE, CONTROL_RESET, CONTROL_RUN,
};
use circbuf_abi::pci::{self, RING_ALIGN, config};
use circbuf_abi::ring::SLOTS_MIN;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use std::os::fd::AsFd;

use super::memory::{DmaMemory, Pages};
use super::transport::{Space, Transport};
use super::{DeviceErrors, PciError, PciOptions, PciPlace};
use crate::mapping::Mapping;

/// Bits of the command register that DMA needs.
const COMMAND: u16 = config::COMMAND_MEMORY | config::COMMAND_BUS_MASTER;

/// What a register reads as where there is no device.
const NOBODY: u32 = u32::MAX;

/// A PCI function that writes frames. Dropping it stops the device before its memory goes.
#[derive(Debug)]
pub(in crate::device) struct Function {
    name: String,
    transport: Transport,
    ring: DmaMemory,
    /// Where the device sees the ring.
    iova: u64,
    frames: EventFd,
    /// What the device was told of the ring that is free, where it waits for that.
    credit: Option<AtomicU64>,
}

/// A function that has a ring, and what it tells of itself.
#[derive(Debug)]
pub(in crate::device) struct Enabled {
    pub(in crate::device) function: Function,
    pub(in crate::device) ring: Mapping,
    pub(in crate::device) status_page: Mapping,
}

impl Function {
    /// Connects to the function and hands it a ring.
    pub(in crate::device) fn open(
        place: &PciPlace,
        options: PciOptions,
    ) -> Result<Enabled, PciError> {
        let (name, transport) = (place.to_string(), place.connect()?);
        let bus = Bus { name: &name, transport: &transport };
        bus.identify()?;
        bus.enable()?;
        bus.write_u32(reg::CONTROL, CONTROL_RESET)?;
        let pages =
            Pages::find(options.huge_pages).map_err(bus.cannot("take memory for the ring"))?;
        let ring_bytes = bus.ring_bytes(options.ring_bytes, pages.bytes())?;
        let ring = pages.take(ring_bytes).map_err(bus.cannot("take memory for the ring"))?;
        // Mapped, and so in memory, before the device gets it.
        let memory = ring.map().map_err(bus.cannot("map the ring's memory"))?;
        let iova = transport.ring_iova(ring_bytes).map_err(bus.cannot("find room for the ring"))?;
        let frames = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|errno| bus.cannot("make an eventfd")(errno.into()))?;
        // From here on, whatever fails stops the device.
        let mut function = Function { name, transport, ring, iova, frames, credit: None };
        let status_page = function.enable(ring_bytes, options.credit)?;
        Ok(Enabled { function, ring: memory, status_page })
    }

    fn enable(&mut self, ring_bytes: u64, credit: bool) -> Result<Mapping, PciError> {
        let (bus, transport) = (self.bus(), &self.transport);
        transport.map_dma(self.iova, &self.ring).map_err(bus.cannot("map the ring for DMA"))?;
        transport.set_interrupts(&[&self.frames]).map_err(bus.cannot("set up its interrupt"))?;
        let has_credit = bus.hand_over(self.iova, ring_bytes, credit)?;
        let page = transport.status_page().map_err(bus.cannot("map its status page"))?;
        self.credit = has_credit.then(AtomicU64::default);
        Ok(page)
    }

    /// Has the device write frames.
    pub(in crate::device) fn start(&self) -> Result<(), PciError> {
        let bus = self.bus();
        let credit = if self.credit.is_some() { CONTROL_CREDIT } else { 0 };
        bus.write_u32(reg::CONTROL, CONTROL_ENABLE | CONTROL_RUN | credit)?;
        // A camera with few pictures may have ended already.
        bus.expect(reg::STATUS_RUNNING | reg::STATUS_ENDED)
    }

    /// Whether the device is there and has nothing to complain of.
    pub(in crate::device) fn check(&self) -> Result<(), PciError> {
        let bus = self.bus();
        let gone = |how| PciError::Gone { device: self.name.clone(), how };
        let magic = bus.load_u32(reg::MAGIC).map_err(|error| gone(error.to_string()))?;
        if magic != reg::MAGIC_VALUE {
            return Err(gone(format!("its magic register reads {magic:#010x}")));
        }
        match bus.errors()? {
            DeviceErrors { bits: 0, .. } => Ok(()),
            errors => Err(PciError::Stopped { device: self.name.clone(), errors }),
        }
    }

    /// Tells a device that waits for it that the ring is free below `cursor`: when that is an eighth
    /// of the ring more, or at once if nothing else is to do.
    pub(in crate::device) fn release(&self, cursor: u64, is_idle: bool) {
        let Some(told) = &self.credit else { return };
        let before = told.load(Ordering::Relaxed);
        let is_due = cursor < before || cursor - before >= self.ring.bytes() / 8;
        if cursor == before || !(is_due || is_idle) {
            return;
        }
        told.store(cursor, Ordering::Relaxed);
        if self.transport.post(Space::Registers, reg::CREDIT, &cursor.to_le_bytes()).is_err() {
            log::debug!("{}: it was not told how far the ring is read", self.name);
        }
    }

    /// Sleeps so long at most: a frame that is complete ends it.
    pub(in crate::device) fn sleep(&self, most: Duration) {
        let mut events = [PollFd::new(self.frames.as_fd(), PollFlags::POLLIN)];
        if ppoll(&mut events, Some(TimeSpec::from_duration(most)), None)
            .is_ok_and(|ready| ready > 0)
        {
            // How often it was signalled means nothing: signals coalesce.
            let _frames = self.frames.read();
        }
    }

    fn bus(&self) -> Bus<'_> {
        Bus { name: &self.name, transport: &self.transport }
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        let stopped = self.bus().write_u32(reg::CONTROL, 0).and_then(|()| {
            let unmapped = self.transport.unmap_dma(self.iova, self.ring.bytes());
            unmapped.map_err(self.bus().cannot("take its ring away"))
        });
        if let Err(error) = stopped {
            log::debug!("{error}");
        }
    }
}

/// Typed access to the function's spaces.
struct Bus<'a> {
    name: &'a str,
    transport: &'a Transport,
}

impl Bus<'_> {
    /// Looks whether the function is a camera that this driver knows.
    fn identify(&self) -> Result<(), PciError> {
        let ids = [config::VENDOR, config::DEVICE].map(|field| self.read_config(field as u64));
        let [vendor, device] = ids;
        let (vendor, device) = (vendor?, device?);
        if (vendor, device) != (pci::VENDOR_ID, pci::DEVICE_ID) {
            return Err(self.stranger(format!("it is the PCI device {vendor:04x}:{device:04x}")));
        }
        let magic = self.read_u32(reg::MAGIC)?;
        if magic == NOBODY {
            // Memory decoding may still be off; it is set next, and looked at again.
            return Ok(());
        }
        self.check_magic(magic)
    }

    /// Sets memory decoding and bus mastering, without which DMA vanishes without a trace.
    fn enable(&self) -> Result<(), PciError> {
        let command = self.read_config(config::COMMAND as u64)?;
        let wanted = (command | COMMAND).to_le_bytes();
        self.transport
            .write(Space::Config, config::COMMAND as u64, &wanted)
            .map_err(self.cannot("write its command register"))?;
        let command = self.read_config(config::COMMAND as u64)?;
        if command & COMMAND != COMMAND {
            return Err(PciError::Command { device: self.name.to_owned(), command });
        }
        self.check_magic(self.read_u32(reg::MAGIC)?)
    }

    fn check_magic(&self, magic: u32) -> Result<(), PciError> {
        if magic != reg::MAGIC_VALUE {
            return Err(self.stranger(format!("its magic register reads {magic:#010x}")));
        }
        match self.read_u32(reg::VERSION)? {
            reg::VERSION_VALUE => Ok(()),
            version => Err(self.stranger(format!(
                "its registers are of version {version}, this driver knows {}",
                reg::VERSION_VALUE
            ))),
        }
    }

    /// The size that the ring is to have, in pages of so many bytes.
    fn ring_bytes(&self, asked: Option<u64>, page_bytes: u64) -> Result<u64, PciError> {
        let max_slot_bytes = self.read_u64(reg::MAX_SLOT_BYTES)?;
        let ring_bytes = match asked {
            Some(bytes) => bytes,
            None => {
                let proposed = self.read_u64(reg::RING_BYTES)?;
                // A size that is none is refused as it is told.
                let is_huge = page_bytes > RING_ALIGN;
                let rounded = proposed.checked_next_multiple_of(page_bytes).filter(|_| is_huge);
                rounded.unwrap_or(proposed)
            }
        };
        let holds_slots =
            max_slot_bytes.checked_mul(SLOTS_MIN).is_some_and(|least| ring_bytes >= least);
        let is_possible =
            ring_bytes > 0 && usize::try_from(ring_bytes).is_ok_and(|bytes| bytes < usize::MAX / 4);
        if !holds_slots || !is_possible || !ring_bytes.is_multiple_of(page_bytes) {
            let device = self.name.to_owned();
            return Err(PciError::Ring { device, ring_bytes, page_bytes, max_slot_bytes });
        }
        Ok(ring_bytes)
    }

    /// Has the device take the ring. Tells whether it waits for the driver.
    fn hand_over(&self, iova: u64, ring_bytes: u64, credit: bool) -> Result<bool, PciError> {
        let has_credit = credit && self.read_u32(reg::FEATURES)? & reg::FEATURE_CREDIT != 0;
        self.write_u64(reg::RING_IOVA, iova)?;
        self.write_u64(reg::RING_BYTES, ring_bytes)?;
        let control = if has_credit { CONTROL_ENABLE | CONTROL_CREDIT } else { CONTROL_ENABLE };
        self.write_u32(reg::CONTROL, control)?;
        self.expect(reg::STATUS_ENABLED)?;
        Ok(has_credit)
    }

    /// Looks whether one of these bits of its status is set, and no error.
    fn expect(&self, status: u32) -> Result<(), PciError> {
        let is_so = self.read_u32(reg::STATUS)? & status != 0;
        match self.errors()? {
            DeviceErrors { bits: 0, .. } if is_so => Ok(()),
            errors => Err(PciError::Stopped { device: self.name.to_owned(), errors }),
        }
    }

    fn errors(&self) -> Result<DeviceErrors, PciError> {
        let bits = self.read_u32(reg::ERRORS)?;
        let fault_iova =
            if bits & reg::ERROR_DMA != 0 { self.read_u64(reg::FAULT_IOVA)? } else { 0 };
        Ok(DeviceErrors { bits, fault_iova })
    }

    fn read_config(&self, offset: u64) -> Result<u16, PciError> {
        let mut bytes = [0; 2];
        self.transport
            .read(Space::Config, offset, &mut bytes)
            .map_err(self.cannot("read its configuration space"))?;
        Ok(u16::from_le_bytes(bytes))
    }

    fn read_u32(&self, offset: u64) -> Result<u32, PciError> {
        self.load_u32(offset).map_err(self.cannot("read its registers"))
    }

    fn load_u32(&self, offset: u64) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.transport.read(Space::Registers, offset, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// By its halves: not every bus carries 8 bytes in one piece.
    fn read_u64(&self, offset: u64) -> Result<u64, PciError> {
        let low = self.read_u32(offset)?;
        Ok(u64::from(low) | u64::from(self.read_u32(offset + 4)?) << 32)
    }

    fn write_u32(&self, offset: u64, value: u32) -> Result<(), PciError> {
        self.transport
            .write(Space::Registers, offset, &value.to_le_bytes())
            .map_err(self.cannot("write its registers"))
    }

    fn write_u64(&self, offset: u64, value: u64) -> Result<(), PciError> {
        self.write_u32(offset, value as u32)?;
        self.write_u32(offset + 4, (value >> 32) as u32)
    }

    fn stranger(&self, what: String) -> PciError {
        PciError::Identity { device: self.name.to_owned(), what }
    }

    fn cannot(&self, action: &'static str) -> impl Fn(io::Error) -> PciError {
        let device = self.name.to_owned();
        move |source| PciError::Access { device: device.clone(), action, source }
    }
}
