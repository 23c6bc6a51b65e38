//! The register page: what the FPGA tells about itself and how far it is.
//!
//! 4096 bytes that stand beside a ring file `R` as `R.regs`, and are the status page of the PCI
//! device. It belongs to the FPGA; the driver maps it read-only.
//!
//! Counters are u64 byte counts (cursors) since the beginning of the present epoch, and multiples
//! of 32. A cursor never wraps; its place in the ring is the remainder by the ring's size.
//!
//! # Ordering
//! The writer stores [`RESERVED`] with release ordering (then a full fence) before it touches bytes
//! below it, and [`WRITTEN`] with release ordering after they are in memory. [`COMPLETE`] and [`FRAMES`] belong
//! together: they change while [`UPDATE`] is odd, after the frame's header is stamped where there
//! is an interrupt handler. At a reset [`EPOCH`] is stored (then a full fence) before any other
//! counter or byte changes, and while [`UPDATE`] is odd, so that it is never seen beside the numbers
//! of the epoch before.

/// Size of the page.
pub const PAGE_BYTES: usize = 4096;

/// Value of [`MAGIC`]: "CIRCREGS".
pub const MAGIC_VALUE: u64 = u64::from_le_bytes(*b"CIRCREGS");

/// Value of [`VERSION`].
pub const VERSION_VALUE: u32 = 1;

/// Suffix that makes the name of the register page from that of the ring file.
pub const FILE_SUFFIX: &str = ".regs";

/// u64: [`MAGIC_VALUE`].
pub const MAGIC: usize = 0x000;
/// u32: [`VERSION_VALUE`].
pub const VERSION: usize = 0x008;
/// u32: one of the `STATE_*` constants.
pub const STATE: usize = 0x00C;
/// u64: size of the ring in bytes.
pub const RING_BYTES: usize = 0x010;
/// u64: the largest distance from one frame's start to the next, in bytes.
pub const MAX_SLOT_BYTES: usize = 0x018;
/// u32: width of the pictures in pixels; 0 if they are none.
pub const WIDTH: usize = 0x020;
/// u32: height of the pictures in pixels; 0 if they are none.
pub const HEIGHT: usize = 0x024;
/// u32: as the frame header's quality2.
pub const QUALITY2: usize = 0x028;
/// u32: as the frame header's colour mode.
pub const COLOR_MODE: usize = 0x02C;
/// u64: time from one frame to the next in nanoseconds; 0 if it is not fixed.
pub const FRAME_PERIOD_NS: usize = 0x030;
/// u32: bits `FLAG_*`.
pub const FLAGS: usize = 0x038;
/// u64: `st_dev` of the ring file, as `fstat` tells it; 0 if the ring is no file.
///
/// A ring file and its page get their names one after the other, so that whoever opens both in
/// between finds the page of one ring beside another. This and [`RING_INODE`] tell them apart.
pub const RING_DEVICE: usize = 0x040;
/// u64: `st_ino` of the ring file, as `fstat` tells it; 0 if the ring is no file.
pub const RING_INODE: usize = 0x048;

/// u64: number of resets.
pub const EPOCH: usize = 0x100;
/// u64: odd while [`COMPLETE`] and [`FRAMES`], and at a reset [`EPOCH`], change together.
pub const UPDATE: usize = 0x108;
/// u64: behind the gap of the last whole frame, which is where the next one starts.
pub const COMPLETE: usize = 0x110;
/// u64: number of whole frames since the device was made; a reset does not clear it. The frame
/// that starts at [`COMPLETE`] has this number, counted from 0.
pub const FRAMES: usize = 0x118;
/// u64: nothing at or above this has been touched yet. On a cache line of its own, as the next.
pub const RESERVED: usize = 0x140;
/// u64: everything below this is visible. That is believed of the device: who copies on its word cannot
/// tell later that it was stored too early, and that the bytes are those of the lap before.
pub const WRITTEN: usize = 0x180;

/// [`STATE`]: the FPGA has not begun.
pub const STATE_IDLE: u32 = 0;
/// [`STATE`]: the FPGA runs.
pub const STATE_RUNNING: u32 = 1;
/// [`STATE`]: the FPGA has stopped and will not write again; also that of a saved image.
pub const STATE_ENDED: u32 = 2;

/// [`FLAGS`]: an interrupt handler stamps frame headers.
pub const FLAG_STAMPED: u32 = 1;

const _: () = {
    assert!(EPOCH.is_multiple_of(64) && RESERVED.is_multiple_of(64) && WRITTEN.is_multiple_of(64));
    assert!(FLAGS + 4 <= RING_DEVICE && RING_INODE + 8 <= EPOCH);
    assert!(RING_DEVICE.is_multiple_of(8) && RING_INODE.is_multiple_of(8));
    assert!(WRITTEN + 8 <= PAGE_BYTES);
};
