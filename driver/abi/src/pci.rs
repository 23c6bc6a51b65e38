//! The camera as a PCI function: its datasheet. One definition for the emulator, which is the
//! function, and for the driver, which reaches it through vfio-user or the kernel's VFIO.
//!
//! # Identity
//! Vendor and device are from 1af4:10f0 to 1af4:10ff, which the owner of vendor 1af4 (Red Hat) leaves
//! to experiments for ever (QEMU's list of PCI ids): no product may have them, and no driver of an
//! operating system takes them. An FPGA that is sold needs ids of its own; everything else here can
//! stay, because a driver trusts [`MAGIC`](bar0::MAGIC) and [`VERSION`](bar0::VERSION) and not ids alone.
//!
//! # Regions
//! | BAR | bytes | what |
//! | --- | --- | --- |
//! | 0 | 4096 | registers ([`bar0`]): read and written, not to be mapped |
//! | 2 | 4096 | status page, the one of [`crate::registers`]: mapped and only read |
//! | 4 | 4096 | MSI-X table at [`MSIX_TABLE`] and pending bits at [`MSIX_PBA`] |
//!
//! All are 32-bit memory, not prefetchable. Configuration space has 4096 bytes, with two
//! capabilities: PCI Express at [`config::EXPRESS`], whose function level reset is the device's
//! reset, and MSI-X at [`config::MSIX`] with [`VECTORS`] vectors. There is no INTx, no MSI and no ROM.
//!
//! # Access to the registers
//! Little endian, 4 bytes at a multiple of 4. A register of 64 bits is two of 32, the low half first in
//! memory; it may be accessed with 8 bytes at a multiple of 8, which is the same as the low half and
//! then the high one. Reading the low half latches the high one. Any other access reads as ones, or
//! writes nothing, and sets [`ERROR_ACCESS`](bar0::ERROR_ACCESS); so does a write to a register that is
//! only read. Addresses without a register read as zero and ignore writes.
//!
//! A write takes effect before a read behind it is answered: who writes [`CONTROL`](bar0::CONTROL)
//! and then reads [`STATUS`](bar0::STATUS) and [`ERRORS`](bar0::ERRORS) knows whether it was obeyed. All
//! ones in [`MAGIC`](bar0::MAGIC) mean that there is no device any more.
//!
//! # Access to the status page
//! A read of 8 bytes at a multiple of 8 in BAR 2 is atomic: it returns what stood there at one moment, and
//! never halves of two values. The fields of 64 bits are made for that, and every rule of
//! [`crate::registers`] about their order counts on it. A device completes such a read, which is one
//! request on the bus, from one look at the field; whoever stands between it and the driver (a server of
//! vfio-user, a hypervisor) passes it on whole, or lets the page be mapped. Where a processor loads 4 bytes at a
//! time, two reads are two: the high half is to be read again behind the low one, and counters only
//! grow. Reads of another size or place return bytes that may be of different age.
//!
//! # Running
//! 1. Set memory decoding and bus mastering in the command register, and read them back.
//! 2. Map the ring for DMA: [`RING_BYTES`](bar0::RING_BYTES) bytes from a multiple of 4096 on, in as
//!    many pieces as one likes. Write [`RING_IOVA`](bar0::RING_IOVA) and, if another size is wanted
//!    than the one that stands there, [`RING_BYTES`](bar0::RING_BYTES).
//! 3. Set [`CONTROL_ENABLE`](bar0::CONTROL_ENABLE): the device takes the ring, begins an epoch (the first
//!    one is 0) at its start, and fills in the status page, its magic last. It writes nothing yet, so that
//!    the driver can look at the page first.
//! 4. Set [`CONTROL_RUN`](bar0::CONTROL_RUN) as well, and the device writes frames.
//! 5. Write 0 to [`CONTROL`](bar0::CONTROL): when that is done the device has written its last byte, and
//!    has given the ring back. A frame that was not whole then is never told of.
//!
//! The ring's registers may be written while the device has no ring; a write while it has one changes
//! nothing and sets [`ERROR_CONFIG`](bar0::ERROR_CONFIG).
//!
//! The device stamps no frame headers (there is no interrupt handler on its side), and it never reads
//! memory of the host. Its counters are in its own memory and not in the host's: a read over PCI Express
//! that returns a counter arrives behind every DMA write that was done before it, so that the order of
//! [`crate::registers`] holds on both sides of the bus.
//!
//! # Interrupts
//! Vector [`VECTOR_FRAME`] for each frame that is complete, vector [`VECTOR_ERROR`] when a bit of
//! [`ERRORS`](bar0::ERRORS) is set that was clear. They coalesce: look at the status page, and never count
//! interrupts.
//!
//! # Errors
//! A DMA write that the host's memory does not take, because it is not mapped or not any more, ends
//! DMA at once: the device stops, sets [`ERROR_DMA`](bar0::ERROR_DMA) and tells the address in
//! [`FAULT_IOVA`](bar0::FAULT_IOVA). Bits are cleared by writing ones to them. While one that stopped
//! the device is set ([`ERRORS_FATAL`](bar0::ERRORS_FATAL)), it does not start.
//!
//! # Reset
//! By [`CONTROL_RESET`](bar0::CONTROL_RESET), by a function level reset, or by the bus: DMA ends at once,
//! all registers have their reset values, the status page tells of an idle device. Only the number of
//! frames and of epochs goes on, so that no epoch looks like one before. A function level reset also
//! resets configuration space; mappings for DMA and MSI-X are the host's affair.

/// Vendor id: see [Identity](self#identity).
pub const VENDOR_ID: u16 = 0x1AF4;
/// Device id: see [Identity](self#identity).
pub const DEVICE_ID: u16 = 0x10FC;
/// Subsystem vendor id.
pub const SUBSYSTEM_VENDOR_ID: u16 = VENDOR_ID;
/// Subsystem id.
pub const SUBSYSTEM_ID: u16 = 0xCB0F;
/// Revision.
pub const REVISION: u8 = 1;
/// Class code: multimedia device, other (0x04, 0x80, 0x00).
pub const CLASS: u32 = 0x04_80_00;

/// BAR of the registers.
pub const REGISTER_BAR: usize = 0;
/// BAR of the status page.
pub const STATUS_BAR: usize = 2;
/// BAR of the MSI-X table and its pending bits.
pub const MSIX_BAR: usize = 4;
/// Size of each BAR.
pub const BAR_BYTES: u64 = 4096;

/// The MSI-X table in its BAR: 16 bytes a vector.
pub const MSIX_TABLE: u32 = 0x000;
/// The pending bits in that BAR.
pub const MSIX_PBA: u32 = 0x800;

/// Number of MSI-X vectors.
pub const VECTORS: usize = 2;
/// Vector: a frame is complete.
pub const VECTOR_FRAME: usize = 0;
/// Vector: an error bit was set.
pub const VECTOR_ERROR: usize = 1;

/// The ring's address is a multiple of this, and so is its size.
pub const RING_ALIGN: u64 = 4096;

/// Configuration space: where the fields are that this function has. All others are zero.
pub mod config {
    /// Size of configuration space.
    pub const BYTES: usize = 4096;

    /// u16: vendor id.
    pub const VENDOR: usize = 0x00;
    /// u16: device id.
    pub const DEVICE: usize = 0x02;
    /// u16: command; `COMMAND_*` and interrupt disable (bit 10) can be written.
    pub const COMMAND: usize = 0x04;
    /// u16: status; capability list (bit 4).
    pub const STATUS: usize = 0x06;
    /// u8 revision, then three bytes of class code.
    pub const REVISION: usize = 0x08;
    /// u32 each: base addresses 0 to 5.
    pub const BAR: usize = 0x10;
    /// u16: subsystem vendor id.
    pub const SUBSYSTEM_VENDOR: usize = 0x2C;
    /// u16: subsystem id.
    pub const SUBSYSTEM: usize = 0x2E;
    /// u8: first capability.
    pub const CAPABILITIES: usize = 0x34;
    /// u8: interrupt line, a note of the host's.
    pub const INTERRUPT_LINE: usize = 0x3C;

    /// PCI Express capability, version 2, of an endpoint.
    pub const EXPRESS: usize = 0x40;
    /// u32: device capabilities.
    pub const EXPRESS_DEVICE_CAPABILITIES: usize = EXPRESS + 0x04;
    /// u16: device control.
    pub const EXPRESS_DEVICE_CONTROL: usize = EXPRESS + 0x08;
    /// MSI-X capability.
    pub const MSIX: usize = 0x80;
    /// u16: message control; enable (bit 15) and mask (bit 14) can be written.
    pub const MSIX_CONTROL: usize = MSIX + 0x02;

    /// [`COMMAND`]: memory decoding.
    pub const COMMAND_MEMORY: u16 = 1 << 1;
    /// [`COMMAND`]: bus mastering, without which a function writes nothing into memory.
    pub const COMMAND_BUS_MASTER: u16 = 1 << 2;
    /// [`EXPRESS_DEVICE_CAPABILITIES`]: there is a function level reset.
    pub const DEVICE_CAPABILITIES_FLR: u32 = 1 << 28;
    /// [`EXPRESS_DEVICE_CONTROL`]: does a function level reset; reads as 0.
    pub const DEVICE_CONTROL_FLR: u16 = 1 << 15;
}

/// The registers: offsets in BAR 0, and bits.
pub mod bar0 {
    /// u32, read only: [`MAGIC_VALUE`].
    pub const MAGIC: u64 = 0x00;
    /// u32, read only: [`VERSION_VALUE`].
    pub const VERSION: u64 = 0x04;
    /// u32, read only: bits `FEATURE_*`.
    pub const FEATURES: u64 = 0x08;
    /// u32, read only: number of the channel, from 0.
    pub const CHANNEL: u64 = 0x0C;
    /// u32: bits `CONTROL_*`. Reset value 0.
    pub const CONTROL: u64 = 0x10;
    /// u32, read only: bits `STATUS_*`. Reset value 0.
    pub const STATUS: u64 = 0x14;
    /// u32, a one clears the bit it is written to: bits `ERROR_*`. Reset value 0.
    pub const ERRORS: u64 = 0x18;
    /// u64, read only: the first address that DMA could not write; meaningful while [`ERROR_DMA`] is set.
    /// Reset value 0.
    pub const FAULT_IOVA: u64 = 0x20;
    /// u64: address of the ring for DMA, a multiple of 4096. Reset value 0.
    pub const RING_IOVA: u64 = 0x28;
    /// u64: size of the ring in bytes, a multiple of 4096 that holds four slots of
    /// [`MAX_SLOT_BYTES`]. The reset value is the size that the camera was made for.
    pub const RING_BYTES: u64 = 0x30;
    /// u64: cursor below which the driver has released the ring: see [`CONTROL_CREDIT`]. When the device
    /// takes a ring, it is set to 0. Reset value 0.
    pub const CREDIT: u64 = 0x38;
    /// u64, read only: the largest distance from one frame's start to the next, in bytes.
    pub const MAX_SLOT_BYTES: u64 = 0x40;
    /// u32, read only: width (low half) and height of the pictures in pixels; 0 if they are none.
    pub const GEOMETRY: u64 = 0x48;
    /// u32, read only: the frame header's quality2 (low half), and its colour mode above.
    pub const QUALITY: u64 = 0x4C;
    /// u64, read only: time from one frame to the next in nanoseconds; 0 if it is not fixed.
    pub const FRAME_PERIOD_NS: u64 = 0x50;
    /// u64, read only: number of whole frames since power came; the number of the next frame. No reset
    /// clears it. A copy of the status page's, for whoever has no mapping.
    pub const FRAMES: u64 = 0x58;
    /// Behind the last register.
    pub const END: u64 = 0x60;

    /// Value of [`MAGIC`]: "CBUF".
    pub const MAGIC_VALUE: u32 = u32::from_le_bytes(*b"CBUF");
    /// Value of [`VERSION`].
    pub const VERSION_VALUE: u32 = 1;

    /// [`FEATURES`]: [`CONTROL_CREDIT`] is obeyed.
    pub const FEATURE_CREDIT: u32 = 1 << 0;

    /// [`CONTROL`]: the device runs; it takes the ring first, if it has none. It clears this bit and
    /// [`CONTROL_ENABLE`] itself when it stops.
    pub const CONTROL_RUN: u32 = 1 << 0;
    /// [`CONTROL`]: a one resets the device; reads as 0, and other bits beside it count for nothing.
    pub const CONTROL_RESET: u32 = 1 << 1;
    /// [`CONTROL`]: no frame is begun before its slot lies below [`CREDIT`] plus the ring's size. No
    /// camera waits like this; it is for tests and benchmarks that are to lose nothing. To be set
    /// with [`CONTROL_ENABLE`], where [`FEATURE_CREDIT`] is there.
    pub const CONTROL_CREDIT: u32 = 1 << 2;
    /// [`CONTROL`]: the device has a ring, or takes the one that its registers tell of. Without
    /// [`CONTROL_RUN`] it stops if it runs, and takes the ring anew.
    pub const CONTROL_ENABLE: u32 = 1 << 3;

    /// [`STATUS`]: the device runs.
    pub const STATUS_RUNNING: u32 = 1 << 0;
    /// [`STATUS`]: the device has no more pictures; it was stopped by that, and will not start.
    pub const STATUS_ENDED: u32 = 1 << 1;
    /// [`STATUS`]: the device has a ring, and its status page tells of it.
    pub const STATUS_ENABLED: u32 = 1 << 2;

    /// [`ERRORS`]: memory of the ring could not be written: it is not mapped, or the host took it
    /// away. The device has stopped.
    pub const ERROR_DMA: u32 = 1 << 0;
    /// [`ERRORS`]: the ring's address or size is impossible, or was written while the device has a ring.
    /// It is not taken.
    pub const ERROR_CONFIG: u32 = 1 << 1;
    /// [`ERRORS`]: an access to the registers that they do not allow. It changed nothing.
    pub const ERROR_ACCESS: u32 = 1 << 2;
    /// [`ERRORS`]: bus mastering is off: a ring was not taken, or the device has stopped.
    pub const ERROR_BUS_MASTER: u32 = 1 << 3;
    /// [`ERRORS`]: the camera behind the device failed, and has stopped. Its own log tells why.
    pub const ERROR_CAMERA: u32 = 1 << 4;

    /// The bits that stand for a device that has stopped; while one is set it does not start.
    pub const ERRORS_FATAL: u32 = ERROR_DMA | ERROR_CAMERA;
}

const _: () = {
    use crate::registers::PAGE_BYTES;
    assert!(PAGE_BYTES as u64 == BAR_BYTES, "the status page fills its BAR");
    assert!(config::EXPRESS + 0x3C <= config::MSIX, "capabilities do not overlap");
    assert!(MSIX_TABLE as usize + 16 * VECTORS <= MSIX_PBA as usize);
    assert!(RING_ALIGN == crate::ring::RING_BYTES_ALIGN);
    assert!(bar0::FAULT_IOVA.is_multiple_of(8) && bar0::FRAME_PERIOD_NS.is_multiple_of(8));
};
