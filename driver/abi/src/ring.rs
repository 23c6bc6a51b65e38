//! The ring, byte by byte.
//!
//! ```text
//! S-32 .. S-1          header slot  32 zero bytes by the FPGA (as the gap of the frame before);
//!                                   the interrupt handler stamps the frame header here
//! S .. S+len-1         payload      entropy-coded scan, every FF followed by 00
//! ..                   zeros        4 to 35 of them
//! S+pad-12 .. S+pad-1  trailer      u32 seconds | u32 microseconds | u32 0xFF000000 | len
//! S+pad .. S+pad+31    gap          = the header slot of the next frame
//! S+pad+32             next S
//!
//! pad(len) = ((len + 15) & ~31) + 32
//! ```
//!
//! Every S and the ring's size are multiples of [`CHUNK_BYTES`], and any of the pieces may wrap at
//! the end of the ring, on a chunk boundary only. Sources: the trailer and padding of the FPGA
//! (`stuffer333.v` of the 353, `bit_stuffer_raw_metadata.v` of the 393) and the kernel drivers'
//! frame arithmetic (`circbuf.c`).

/// The granule of the FPGA's DMA, in bytes (ETRAX FS DMA buffer; AXI chunk of the 393).
pub const CHUNK_BYTES: usize = 32;

/// The trailer at the end of a frame's last chunk: seconds, microseconds, marker and length.
pub const TRAILER_BYTES: usize = 12;

/// Zero bytes that always stand between payload and trailer ("needed for software", `stuffer333.v`).
pub const ZEROS_MIN: usize = 4;

/// The most zero bytes between payload and trailer, reached at len mod 32 = 17.
pub const ZEROS_MAX: usize = 35;

/// The gap behind a frame, which is the header slot of the next one.
pub const GAP_BYTES: usize = 32;

/// Highest byte of the trailer's last word.
pub const TRAILER_MARKER: u8 = 0xFF;

/// The largest payload that the 24-bit length field can tell, in stuffed bytes.
pub const PAYLOAD_BYTES_MAX: u32 = 0x00FF_FFFF;

/// Microseconds in a trailer are below this; 20 bits carry them.
pub const MICROSECONDS: u32 = 1_000_000;

/// The smallest distance from one frame's start to the next (a payload of 1 to 16 bytes).
pub const SLOT_BYTES_MIN: u64 = 64;

/// A ring holds at least this many of the largest slots.
pub const SLOTS_MIN: u64 = 4;

/// Ring of an Elphel 353: 302 pages of 64 KiB (`CCAM_DMA_SIZE`, `c313a.h`; there in words).
pub const NC353_RING_BYTES: u64 = 19_791_872;

/// Ring of one channel of an Elphel 393 (`CCAM_DMA_SIZE`, `c313a.h`; there in bytes).
pub const NC393_RING_BYTES: u64 = 64 << 20;

/// Ring sizes are multiples of this, so that a ring can be mapped.
pub const RING_BYTES_ALIGN: u64 = 4096;

const _: () = {
    assert!(NC353_RING_BYTES == 0x4B_8000 * 4);
    assert!(NC353_RING_BYTES.is_multiple_of(RING_BYTES_ALIGN));
    assert!(NC393_RING_BYTES.is_multiple_of(RING_BYTES_ALIGN));
    assert!(TRAILER_BYTES + ZEROS_MIN < CHUNK_BYTES);
    assert!(ZEROS_MAX == CHUNK_BYTES - 17 + (CHUNK_BYTES - TRAILER_BYTES));
};

/// Byte offsets inside the 12-byte trailer.
pub mod trailer {
    /// u32, seconds since 1970 of the start of the exposure.
    pub const SECONDS: usize = 0;
    /// u32, microseconds, 20 bits.
    pub const MICROSECONDS: usize = 4;
    /// u32: [`super::TRAILER_MARKER`] in the highest byte, the payload's length in the others.
    pub const LENGTH: usize = 8;
}
