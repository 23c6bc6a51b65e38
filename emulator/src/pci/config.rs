//! Configuration space: bytes, and which of their bits can be written.

use circbuf_abi::pci::config::{
    BAR, BYTES, CAPABILITIES, COMMAND, COMMAND_BUS_MASTER, COMMAND_MEMORY, DEVICE,
    DEVICE_CAPABILITIES_FLR, DEVICE_CONTROL_FLR, EXPRESS, EXPRESS_DEVICE_CAPABILITIES,
    EXPRESS_DEVICE_CONTROL, INTERRUPT_LINE, MSIX, MSIX_CONTROL, REVISION, STATUS, SUBSYSTEM,
    SUBSYSTEM_VENDOR, VENDOR,
};
use circbuf_abi::pci::{
    self as pci, BAR_BYTES, CLASS, DEVICE_ID, MSIX_BAR, MSIX_PBA, MSIX_TABLE, REGISTER_BAR,
    STATUS_BAR, SUBSYSTEM_ID, SUBSYSTEM_VENDOR_ID, VECTORS, VENDOR_ID,
};

/// Capability ids.
const CAPABILITY_MSIX: u8 = 0x11;
const CAPABILITY_EXPRESS: u8 = 0x10;

/// Status: there is a list of capabilities.
const STATUS_CAPABILITIES: u16 = 1 << 4;
/// Command: INTx is disabled, which it always is.
const COMMAND_INTX_DISABLE: u16 = 1 << 10;
/// Express capabilities: version 2, an endpoint.
const EXPRESS_VERSION_2: u16 = 2;
/// Device capabilities: errors are reported by role, as every device does since PCI Express 1.1.
const ROLE_BASED_ERRORS: u32 = 1 << 15;
/// Device control after a reset: relaxed ordering and no snoop allowed, reads of 512 bytes.
const DEVICE_CONTROL_RESET: u16 = 0x2810;
/// Link capabilities and status: 2.5 GT/s over one lane.
const LINK: u16 = 0x0011;
/// Message control: enable, mask all.
const MSIX_CONTROL_WRITABLE: u16 = 0xC000;

/// What a write to configuration space does besides changing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Effect {
    /// A function level reset was asked for.
    pub(super) resets: bool,
    /// Bus mastering was switched off.
    pub(super) revokes_dma: bool,
}

/// Configuration space of the function.
#[derive(Debug)]
pub(super) struct ConfigSpace {
    bytes: Box<[u8; BYTES]>,
    writable: Box<[u8; BYTES]>,
}

impl ConfigSpace {
    /// As after a reset.
    pub(super) fn new() -> Self {
        let mut space = Self { bytes: Box::new([0; BYTES]), writable: Box::new([0; BYTES]) };
        space.put(VENDOR, &VENDOR_ID.to_le_bytes());
        space.put(DEVICE, &DEVICE_ID.to_le_bytes());
        space.put(STATUS, &STATUS_CAPABILITIES.to_le_bytes());
        space.put(REVISION, &(CLASS << 8 | u32::from(pci::REVISION)).to_le_bytes());
        space.put(SUBSYSTEM_VENDOR, &SUBSYSTEM_VENDOR_ID.to_le_bytes());
        space.put(SUBSYSTEM, &SUBSYSTEM_ID.to_le_bytes());
        space.put(CAPABILITIES, &[EXPRESS as u8]);
        let command = COMMAND_MEMORY | COMMAND_BUS_MASTER | COMMAND_INTX_DISABLE;
        space.allow(COMMAND, &command.to_le_bytes());
        space.allow(INTERRUPT_LINE, &[0xFF]);
        // Whoever writes ones reads the size from the bits that stay zero.
        let address = !(BAR_BYTES as u32 - 1);
        for bar in [REGISTER_BAR, STATUS_BAR, MSIX_BAR] {
            space.allow(BAR + 4 * bar, &address.to_le_bytes());
        }
        space.add_express();
        space.add_msix();
        space
    }

    fn add_express(&mut self) {
        self.put(EXPRESS, &[CAPABILITY_EXPRESS, MSIX as u8]);
        self.put(EXPRESS + 2, &EXPRESS_VERSION_2.to_le_bytes());
        let capabilities = DEVICE_CAPABILITIES_FLR | ROLE_BASED_ERRORS;
        self.put(EXPRESS_DEVICE_CAPABILITIES, &capabilities.to_le_bytes());
        self.put(EXPRESS_DEVICE_CONTROL, &DEVICE_CONTROL_RESET.to_le_bytes());
        self.allow(EXPRESS_DEVICE_CONTROL, &(!DEVICE_CONTROL_FLR).to_le_bytes());
        self.put(EXPRESS + 0x0C, &LINK.to_le_bytes());
        self.put(EXPRESS + 0x12, &LINK.to_le_bytes());
    }

    fn add_msix(&mut self) {
        let place = |offset: u32| offset | MSIX_BAR as u32;
        self.put(MSIX, &[CAPABILITY_MSIX, 0]);
        self.put(MSIX_CONTROL, &(VECTORS as u16 - 1).to_le_bytes());
        self.put(MSIX + 4, &place(MSIX_TABLE).to_le_bytes());
        self.put(MSIX + 8, &place(MSIX_PBA).to_le_bytes());
        self.allow(MSIX_CONTROL, &MSIX_CONTROL_WRITABLE.to_le_bytes());
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..][..bytes.len()].copy_from_slice(bytes);
    }

    fn allow(&mut self, at: usize, bits: &[u8]) {
        self.writable[at..][..bits.len()].copy_from_slice(bits);
    }

    /// Reads what is there; beyond the end there is nothing, which reads as ones.
    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) {
        bytes.fill(0xFF);
        let at = usize::try_from(offset).unwrap_or(BYTES).min(BYTES);
        let there = &self.bytes[at..][..bytes.len().min(BYTES - at)];
        bytes[..there.len()].copy_from_slice(there);
    }

    /// Writes the bits that can be written.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Effect {
        let was_master = self.is_bus_master();
        let mut resets = false;
        let at = usize::try_from(offset).unwrap_or(BYTES).min(BYTES);
        for (at, byte) in (at..BYTES).zip(bytes) {
            let mask = self.writable[at];
            self.bytes[at] = self.bytes[at] & !mask | byte & mask;
            let flr = (DEVICE_CONTROL_FLR >> 8) as u8;
            resets |= at == EXPRESS_DEVICE_CONTROL + 1 && byte & flr != 0;
        }
        Effect { resets, revokes_dma: was_master && !self.is_bus_master() }
    }

    pub(super) fn is_bus_master(&self) -> bool {
        self.command() & COMMAND_BUS_MASTER != 0
    }

    pub(super) fn decodes_memory(&self) -> bool {
        self.command() & COMMAND_MEMORY != 0
    }

    fn command(&self) -> u16 {
        u16::from_le_bytes([self.bytes[COMMAND], self.bytes[COMMAND + 1]])
    }
}
