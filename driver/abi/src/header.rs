//! The frame header that the interrupt handler stamps into the slot in front of a frame.
//!
//! ```text
//!  0-15  gamma and scale hashes: R, G, GB, B       (393 and 353 firmware 8.x)
//! 16-17  quality2: Y quality | C quality << 8
//!    18  colour mode
//!    19  Bayer shift
//! 20-21  width     22-23  height
//! 24-25  meta index (page of the Exif store, 1..)
//! 26-27  signature FF FF
//! 28-31  payload length, high byte 0
//! ```
//!
//! Source: `interframe_params_t` in the 393's `c313a.h`. Firmware 7.1 of the 353 has another
//! meaning for bytes 0-23; 24-31 are common to all.

/// Size of the header, the same as the gap it is stamped into.
pub const HEADER_BYTES: usize = 32;

/// u32 each: scale (6.10 fixed point), gamma and black level of the channels R, G, GB, B.
pub const HASHES: [usize; 4] = [0, 4, 8, 12];
/// u16: quality of the luma table (low byte, 1 to 100; bit 7: portrait) and of the chroma table.
pub const QUALITY2: usize = 16;
/// u8: one of the `COLOR_MODE_*` constants.
pub const COLOR_MODE: usize = 18;
/// u8: Bayer shift of the compressor.
pub const BAYER_SHIFT: usize = 19;
/// u16: width in pixels.
pub const WIDTH: usize = 20;
/// u16: height in pixels.
pub const HEIGHT: usize = 22;
/// u16: page of the Exif store, from 1.
pub const META_INDEX: usize = 24;
/// u16: [`SIGNATURE`]; written last.
pub const SIGNATURE_OFFSET: usize = 26;
/// u32: length of the stuffed payload; a non-zero high byte means "not acquired yet".
pub const LENGTH: usize = 28;

/// Two bytes that stuffed payload cannot contain. Zeros and trailers cannot put them at bytes
/// 26-27 of a chunk either: there stands the upper half of the microseconds, at most 0x000F.
pub const SIGNATURE: u16 = 0xFFFF;

const _: () = assert!(LENGTH + 4 == HEADER_BYTES && HEADER_BYTES == super::ring::GAP_BYTES);

/// 4:2:0 colour, three components.
pub const COLOR_MODE_COLOR: u8 = 0;
/// One component.
pub const COLOR_MODE_MONO4: u8 = 14;
/// 16-bit little-endian pixels in row order, FF-stuffed like a scan. This is an extension: a real
/// 393 does not stuff its RAW frames, so that the signature can be faked by pixels there.
pub const COLOR_MODE_RAW16: u8 = 15;
