//! Whether a driver can find anything wrong with a frame.
use circbuf_abi::header::{LENGTH, SIGNATURE, SIGNATURE_OFFSET};
use circbuf_abi::ring::{GAP_BYTES, MICROSECONDS, TRAILER_BYTES, TRAILER_MARKER, trailer};

use crate::fpga::slot_bytes;

/// A frame as it stands in the ring when it is whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written<'a> {
    /// What was sent before the zeros.
    pub(super) payload: &'a [u8],
    pub(super) trailer: [u8; TRAILER_BYTES],
    /// What stands in the slot in front, on a stamped ring.
    pub(super) header: Option<[u8; GAP_BYTES]>,
    /// The trailer in front of the slot, unless this is the first frame of an epoch.
    pub(super) before: Option<[u8; TRAILER_BYTES]>,
}

impl Written<'_> {
    /// The length that the trailer tells.
    pub(super) fn length(&self) -> usize {
        trailer_length(&self.trailer) as usize
    }

    /// Whether all points of the law hold that are about bytes, on a ring with counters, where start
    /// and end are known. A trailer that equals the one in front is that of an aborted frame.
    pub(super) fn is_lawful(&self) -> bool {
        self.is_trailer_lawful() && self.is_payload_lawful() && self.is_header_lawful()
    }

    fn is_trailer_lawful(&self) -> bool {
        let length = trailer_length(&self.trailer);
        let micros = word(&self.trailer, trailer::MICROSECONDS);
        self.trailer[TRAILER_BYTES - 1] == TRAILER_MARKER
            && micros < MICROSECONDS
            && length >= 1
            && slot_bytes(length) == slot_bytes(self.payload.len() as u32)
            && self.before != Some(self.trailer)
    }

    /// No FF FF up to the length that the trailer tells, only zeros behind.
    fn is_payload_lawful(&self) -> bool {
        let (payload, zeros) = self.payload.split_at(self.length().min(self.payload.len()));
        let has_pair = payload.windows(2).any(|pair| pair == [0xFF, 0xFF]);
        !has_pair && zeros.iter().all(|byte| *byte == 0)
    }

    fn is_header_lawful(&self) -> bool {
        self.header.is_none_or(|header| {
            header[SIGNATURE_OFFSET..][..2] == SIGNATURE.to_le_bytes()
                && word(&header, LENGTH) == trailer_length(&self.trailer)
        })
    }
}

/// The length in a trailer, whatever its marker.
pub(super) fn trailer_length(bytes: &[u8; TRAILER_BYTES]) -> u32 {
    word(bytes, trailer::LENGTH) & 0x00FF_FFFF
}

/// The little-endian word at `offset`.
pub(super) fn word(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|byte| bytes[offset + byte]))
}
