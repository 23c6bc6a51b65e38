//! The interrupt handler: what the kernel does on a camera when the FPGA has completed a frame.
use std::ops::Range;
use std::sync::atomic::{Ordering, fence};

use circbuf_abi::header::{
    BAYER_SHIFT, COLOR_MODE, HASHES, HEADER_BYTES, HEIGHT, LENGTH, META_INDEX, QUALITY2, SIGNATURE,
    SIGNATURE_OFFSET, WIDTH,
};

use crate::dma::RingMemory;
use crate::fault::Stamp;
use crate::model::Geometry;

/// Pages of the camera's Exif store (`MAX_EXIF_FRAMES`, `exifa.h`); page 0 is temporary.
const META_PAGES: u16 = 2048;

/// Scale 1.0 (6.10 fixed point), gamma 0.57 and black level 10, as a camera has them at power-up.
const GAMMA_HASH: u32 = 0x0400 | 57 << 16 | 10 << 24;

const BAYER_SHIFT_NONE: u8 = 0;

/// Word of 8 bytes that holds the meta index, the signature and the length.
const LAST_WORD: usize = META_INDEX / 8;
const _: () = assert!(LAST_WORD == SIGNATURE_OFFSET / 8 && LAST_WORD == LENGTH / 8);

/// The interrupt handler of one channel.
#[derive(Debug)]
pub(crate) struct Interrupt {
    meta_index: u16,
}

impl Interrupt {
    pub(crate) fn new() -> Self {
        Self { meta_index: 0 }
    }

    /// Writes the header of a whole frame into the slot at cursor `slot`, or what `stamp` makes of
    /// it: the length first, then the parameters and the meta index, the signature last.
    pub(crate) fn stamp(
        &mut self,
        ring: &RingMemory,
        slot: u64,
        (geometry, length): (Geometry, u32),
        stamp: Stamp,
    ) {
        self.meta_index = self.meta_index % META_PAGES + 1;
        let header = stamp.on(header(geometry, self.meta_index, length));
        // What was in the slot stays until it is overwritten: where the FPGA leaves the gap alone,
        // the signature of the lap before stands beside the new length for a moment, as on a
        // camera.
        let last = ring.word(slot, LAST_WORD);
        let mut tail = last.load(Ordering::Relaxed).to_ne_bytes();
        let mut put = |field: Range<usize>, order: Ordering| {
            tail[field.start % 8..][..field.len()].copy_from_slice(&header[field]);
            last.store(u64::from_ne_bytes(tail), order);
        };
        put(LENGTH..HEADER_BYTES, Ordering::Relaxed);
        for (word, bytes) in header[..META_INDEX].as_chunks().0.iter().enumerate() {
            ring.word(slot, word).store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
        }
        put(META_INDEX..SIGNATURE_OFFSET, Ordering::Relaxed);
        // SYNC POINT: header before signature.
        fence(Ordering::Release);
        put(SIGNATURE_OFFSET..LENGTH, Ordering::Release);
    }
}

/// A frame header.
pub(crate) fn header(geometry: Geometry, meta_index: u16, length: u32) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    for hash in HASHES {
        bytes[hash..hash + 4].copy_from_slice(&GAMMA_HASH.to_le_bytes());
    }
    bytes[QUALITY2..QUALITY2 + 2].copy_from_slice(&geometry.quality2.to_le_bytes());
    bytes[COLOR_MODE] = geometry.color_mode;
    bytes[BAYER_SHIFT] = BAYER_SHIFT_NONE;
    bytes[WIDTH..WIDTH + 2].copy_from_slice(&geometry.width.to_le_bytes());
    bytes[HEIGHT..HEIGHT + 2].copy_from_slice(&geometry.height.to_le_bytes());
    bytes[META_INDEX..SIGNATURE_OFFSET].copy_from_slice(&meta_index.to_le_bytes());
    bytes[SIGNATURE_OFFSET..LENGTH].copy_from_slice(&SIGNATURE.to_le_bytes());
    bytes[LENGTH..].copy_from_slice(&length.to_le_bytes());
    bytes
}

const _: () = assert!(META_INDEX.is_multiple_of(8) && HEADER_BYTES == META_INDEX + 8);
