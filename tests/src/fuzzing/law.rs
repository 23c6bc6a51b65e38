//! The law of validity written a second time: byte by byte, on bytes at rest.

use circbuf_abi::header;
use circbuf_abi::ring::{CHUNK_BYTES, MICROSECONDS, TRAILER_BYTES, TRAILER_MARKER};
use circbuf_driver::ring::Timestamp;

/// The bytes of a ring that nobody writes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Still<'a>(pub(super) &'a [u8]);

/// The FPGA's way: zeros until four of them and the trailer have gone out at a chunk's end.
pub(super) fn padded(length: u32) -> u64 {
    let mut bytes = u64::from(length) + 4;
    while !(bytes + TRAILER_BYTES as u64).is_multiple_of(CHUNK_BYTES as u64) {
        bytes += 1;
    }
    bytes + TRAILER_BYTES as u64
}

impl Still<'_> {
    pub(super) fn bytes(self) -> u64 {
        self.0.len() as u64
    }

    pub(super) fn byte(self, cursor: u64) -> u8 {
        self.0[(cursor % self.bytes()) as usize]
    }

    pub(super) fn u32(self, cursor: u64) -> u32 {
        u32::from_le_bytes([0, 1, 2, 3].map(|at| self.byte(cursor + at)))
    }

    /// Time and length in front of `end`, where a trailer stands there.
    pub(super) fn trailer(self, end: u64) -> Option<(Timestamp, u32)> {
        let start = end - TRAILER_BYTES as u64;
        let time = Timestamp { sec: self.u32(start), usec: self.u32(start + 4) };
        let length = self.u32(start + 8) & 0x00FF_FFFF;
        let plausible =
            self.byte(end - 1) == TRAILER_MARKER && length >= 1 && time.usec < MICROSECONDS;
        plausible.then_some((time, length))
    }

    /// Time of the frame from `start` on, if payload, zeros and trailer are those of one.
    pub(super) fn frame(self, start: u64, length: u32) -> Option<Timestamp> {
        let end = start + padded(length);
        let (time, told) = self.trailer(end)?;
        let behind = start + u64::from(length);
        let clean =
            (start + 1..behind).all(|at| self.byte(at - 1) != 0xFF || self.byte(at) != 0xFF);
        let zeros = (behind..end - TRAILER_BYTES as u64).all(|at| self.byte(at) == 0);
        (told == length && clean && zeros).then_some(time)
    }

    /// Length of the shortest frame from `start` on whose slot fits the ring, and its time.
    pub(super) fn shortest(self, start: u64) -> Option<(u32, Timestamp)> {
        let ends = (32..=self.bytes() - 32).step_by(CHUNK_BYTES);
        ends.filter_map(|bytes| {
            let (_, length) = self.trailer(start + bytes)?;
            let leads_back = padded(length) == bytes;
            leads_back.then(|| self.frame(start, length).map(|time| (length, time))).flatten()
        })
        .next()
    }

    /// Length in the header slot in front of `start`, if it is stamped.
    pub(super) fn stamp(self, start: u64) -> Option<u32> {
        let slot = start % self.bytes() + self.bytes() - header::HEADER_BYTES as u64;
        let signature = [0, 1].map(|at| self.byte(slot + header::SIGNATURE_OFFSET as u64 + at));
        let length = self.u32(slot + header::LENGTH as u64);
        (signature == [0xFF; 2] && length < 1 << 24).then_some(length)
    }
}
