//! The layout of a record, which is that of a slab: a frame is laid down once, at the place from
//! which it goes to disk.
//!
//! ```text
//!  0  magic "CBRR"     4  u16 version    6  u8 kind      7  u8 flags
//!  8  u32 camera      12  u32 length    16  u32 record_bytes   20  zero
//! 24  u64 sequence    32  u64 epoch     40  u64 cursor
//! 48  u64 realtime_ns 56  u64 monotonic_ns
//! 64  u64 lost_before 72  u64 session   80  zero
//! 88  u32 CRC-32C of the body           92  u32 CRC-32C of bytes 0-91
//! 96  body: the ring's own slot (frame header, payload, zeros, trailer), or a loss
//! ..  zeros up to a multiple of 4096
//! ```
//!
//! The body of a loss: u32 reason (1 overrun, 2 torn, 3 corrupt, 4 no_slab, 5 queue_full, 6 io), u8
//! exact, u8 refusal (0, or 1 no_frame, 2 stale, 3 pair, 4 padding, 5 trailer, 6 header,
//! 7 overtaken), u16 zero, u64 count, then first and last time as u32 seconds and u32 microseconds
//! each; zero where a time is unknown.

use byteorder::{ByteOrder, LittleEndian};
use circbuf_abi::header::HEADER_BYTES;

use crate::ring::padded;

/// Records start and end at multiples of this, so that they can be written past the page cache.
pub const RECORD_ALIGN: usize = 4096;
/// Bytes in front of the body.
pub const RECORD_HEADER_BYTES: usize = 96;
/// Where a frame's payload starts in its record.
pub const PAYLOAD_OFFSET: usize = RECORD_HEADER_BYTES + HEADER_BYTES;
/// Bytes of a loss record's body.
pub const LOSS_BODY_BYTES: usize = 32;

const MAGIC: [u8; 4] = *b"CBRR";
const VERSION: u16 = 1;
const FLAG_SYNTHESISED: u8 = 1;
const BODY_CRC: usize = 88;
const HEADER_CRC: usize = 92;

/// Bytes of the body of a frame whose payload has this length: its header slot, payload, zeros and
/// trailer.
#[must_use]
pub const fn frame_body_bytes(length: u32) -> usize {
    HEADER_BYTES + padded(length) as usize
}

/// Bytes of a whole record with a body of this size, a multiple of [`RECORD_ALIGN`].
#[must_use]
pub const fn record_bytes(body_bytes: usize) -> usize {
    (RECORD_HEADER_BYTES + body_bytes).next_multiple_of(RECORD_ALIGN)
}

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// A whole frame.
    Frame,
    /// Frames that are missing.
    Loss,
}

impl RecordKind {
    /// The number that stands for it in record headers and index entries.
    pub(crate) const fn code(self) -> u8 {
        self as u8 + 1
    }

    /// The kind with this number.
    pub(crate) const fn from_code(code: u8) -> Option<RecordKind> {
        match code {
            1 => Some(RecordKind::Frame),
            2 => Some(RecordKind::Loss),
            _ => None,
        }
    }
}

/// The fields of a record header that are not fixed by the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// Frame or loss.
    pub kind: RecordKind,
    /// The frame header was made by the driver, because the ring has none.
    pub synthesised: bool,
    /// Number of the camera, from 0.
    pub camera: u32,
    /// Frame: bytes of stuffed payload, 1 to 2^24 - 1. Loss: [`LOSS_BODY_BYTES`].
    pub length: u32,
    /// Frame: its number, counted over all that the camera emitted as far as is known.
    /// Loss: the number of the first one that is missing.
    pub sequence: u64,
    /// Number of resets of the device before.
    pub epoch: u64,
    /// Cursor of the frame's start.
    pub cursor: u64,
    /// When the driver found the frame, in nanoseconds since 1970.
    pub realtime_ns: u64,
    /// The same by the monotonic clock.
    pub monotonic_ns: u64,
    /// Frames that the ring lost, or no slab was free for, since the last frame that was found whole:
    /// the same for all consumers. What a consumer's queue lost beside them stands in
    /// [`Delivery::lost`](crate::dispatch::Delivery::lost), and in the archive's loss records.
    pub lost_before: u64,
    /// Number drawn for the session, the same in all records and in the segment's header.
    pub session: u64,
}

/// Why a record header is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The first four bytes are not those of a record.
    #[error("no record starts here")]
    NoRecord,
    /// The header does not fit its checksum.
    #[error("the record header's checksum is {stored:08x}, its bytes give {computed:08x}")]
    HeaderChecksum {
        /// CRC-32C in the header.
        stored: u32,
        /// CRC-32C of the header.
        computed: u32,
    },
    /// Written by another version of the format.
    #[error("record version {found}; this program reads version 1")]
    Version {
        /// Version in the header.
        found: u16,
    },
    /// The checksum fits, but the fields contradict each other.
    #[error("the record header contradicts itself: kind {kind}, length {length}")]
    Fields {
        /// Kind as stored.
        kind: u8,
        /// Length as stored.
        length: u32,
    },
}

impl RecordHeader {
    /// Bytes of the record's body.
    #[must_use]
    pub const fn body_bytes(&self) -> usize {
        match self.kind {
            RecordKind::Frame => frame_body_bytes(self.length),
            RecordKind::Loss => LOSS_BODY_BYTES,
        }
    }

    /// Bytes of the whole record, a multiple of [`RECORD_ALIGN`].
    #[must_use]
    pub const fn record_bytes(&self) -> usize {
        record_bytes(self.body_bytes())
    }

    /// Writes the header in front of a body that is in place already, with both checksums.
    ///
    /// # Panics
    /// If `record` is shorter than header and body.
    pub fn seal(&self, record: &mut [u8]) {
        let body_crc = crc_fast::crc32_iscsi(&record[RECORD_HEADER_BYTES..][..self.body_bytes()]);
        self.seal_with(record, body_crc);
    }

    /// The same with a checksum of the body that is known already.
    ///
    /// # Panics
    /// If `record` is shorter than a header.
    pub(crate) fn seal_with(&self, record: &mut [u8], body_crc: u32) {
        let head = &mut record[..RECORD_HEADER_BYTES];
        head.fill(0);
        head[..4].copy_from_slice(&MAGIC);
        LittleEndian::write_u16(&mut head[4..], VERSION);
        head[6] = self.kind.code();
        head[7] = if self.synthesised { FLAG_SYNTHESISED } else { 0 };
        LittleEndian::write_u32(&mut head[8..], self.camera);
        LittleEndian::write_u32(&mut head[12..], self.length);
        LittleEndian::write_u32(&mut head[16..], self.record_bytes() as u32);
        let words = [
            (24, self.sequence),
            (32, self.epoch),
            (40, self.cursor),
            (48, self.realtime_ns),
            (56, self.monotonic_ns),
            (64, self.lost_before),
            (72, self.session),
        ];
        for (offset, value) in words {
            LittleEndian::write_u64(&mut head[offset..], value);
        }
        LittleEndian::write_u32(&mut head[BODY_CRC..], body_crc);
        let header_crc = crc_fast::crc32_iscsi(&head[..HEADER_CRC]);
        LittleEndian::write_u32(&mut head[HEADER_CRC..], header_crc);
    }

    /// Reads the header at the beginning of a record and checks it, though not the body.
    ///
    /// # Errors
    /// If the bytes are no record header, or not a whole one.
    pub fn parse(head: &[u8; RECORD_HEADER_BYTES]) -> Result<RecordHeader, RecordError> {
        if head[..4] != MAGIC {
            return Err(RecordError::NoRecord);
        }
        let stored = LittleEndian::read_u32(&head[HEADER_CRC..]);
        let computed = crc_fast::crc32_iscsi(&head[..HEADER_CRC]);
        if stored != computed {
            return Err(RecordError::HeaderChecksum { stored, computed });
        }
        let found = LittleEndian::read_u16(&head[4..]);
        if found != VERSION {
            return Err(RecordError::Version { found });
        }
        let header = RecordHeader {
            kind: if head[6] == 1 { RecordKind::Frame } else { RecordKind::Loss },
            synthesised: head[7] & FLAG_SYNTHESISED != 0,
            camera: LittleEndian::read_u32(&head[8..]),
            length: LittleEndian::read_u32(&head[12..]),
            sequence: LittleEndian::read_u64(&head[24..]),
            epoch: LittleEndian::read_u64(&head[32..]),
            cursor: LittleEndian::read_u64(&head[40..]),
            realtime_ns: LittleEndian::read_u64(&head[48..]),
            monotonic_ns: LittleEndian::read_u64(&head[56..]),
            lost_before: LittleEndian::read_u64(&head[64..]),
            session: LittleEndian::read_u64(&head[72..]),
        };
        let record_bytes = LittleEndian::read_u32(&head[16..]) as usize;
        if !header.is_consistent(head[6]) || record_bytes != header.record_bytes() {
            return Err(RecordError::Fields { kind: head[6], length: header.length });
        }
        Ok(header)
    }

    fn is_consistent(&self, kind: u8) -> bool {
        match kind {
            1 => (1..=circbuf_abi::ring::PAYLOAD_BYTES_MAX).contains(&self.length),
            2 => self.length as usize == LOSS_BODY_BYTES,
            _ => false,
        }
    }
}

/// CRC-32C that a record header gives for the body behind it.
#[must_use]
pub fn stored_body_crc(head: &[u8; RECORD_HEADER_BYTES]) -> u32 {
    LittleEndian::read_u32(&head[BODY_CRC..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> RecordHeader {
        RecordHeader {
            kind: RecordKind::Frame,
            synthesised: true,
            camera: 2,
            length: 5,
            sequence: 3,
            epoch: 4,
            cursor: 0x20,
            realtime_ns: 6,
            monotonic_ns: 7,
            lost_before: 8,
            session: 9,
        }
    }

    #[test]
    fn a_sealed_header_stands_byte_for_byte_as_drawn() {
        let mut record = vec![0xEE; 4096];
        record[96..].fill(0);
        header().seal(&mut record);
        let mut by_hand = Vec::new();
        by_hand.extend(*b"CBRR\x01\x00\x01\x01");
        by_hand.extend([2, 0, 0, 0, 5, 0, 0, 0, 0x00, 0x10, 0, 0, 0, 0, 0, 0]);
        for word in [3u64, 4, 0x20, 6, 7, 8, 9, 0] {
            by_hand.extend(word.to_le_bytes());
        }
        assert_eq!(record[..88], by_hand[..]);
    }

    #[test]
    fn what_was_sealed_is_parsed_and_every_flipped_bit_is_found() {
        let mut record = vec![0; 4096];
        header().seal(&mut record);
        let head: [u8; RECORD_HEADER_BYTES] = record[..96].try_into().unwrap();
        assert_eq!(RecordHeader::parse(&head), Ok(header()));
        for bit in 0..96 * 8 {
            let mut flipped = head;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(RecordHeader::parse(&flipped).is_err(), "bit {bit}");
        }
    }
}
