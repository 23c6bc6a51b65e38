//! A segment file: a header block, then records one behind the other.
//!
//! ```text
//!    0  magic "CIRCSEGM"  8  u16 version  10  zero         12  u32 number of the segment
//!   16  u32 camera       20  u16 width    22  u16 height   24  u16 quality2
//!   26  u8 colour mode   27  zero         32  u64 ring_bytes
//!   40  u64 session      48  u64 realtime_ns of creation
//!   56  zeros          4092  u32 CRC-32C of bytes 0-4091
//! 4096  records
//! ```
//!
//! Segments are called `seg-000000.cbs`, `seg-000001.cbs` .., the index of each `seg-000000.idx`.
//! Geometry is that at the beginning of the session.

use byteorder::{ByteOrder, LittleEndian};

use super::options::Session;
use crate::record::RECORD_ALIGN;
use crate::ring::Geometry;

/// Bytes in front of the first record.
pub const SEGMENT_HEADER_BYTES: usize = 4096;
const _: () = assert!(SEGMENT_HEADER_BYTES.is_multiple_of(RECORD_ALIGN));

const MAGIC: [u8; 8] = *b"CIRCSEGM";
const VERSION: u16 = 1;
const CRC: usize = SEGMENT_HEADER_BYTES - 4;

/// Ending of a segment's name.
pub(super) const SEGMENT_SUFFIX: &str = "cbs";
/// Ending of an index' name.
pub(super) const INDEX_SUFFIX: &str = "idx";

/// The fields of a segment's header block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Its place in the archive, from 0.
    pub number: u32,
    /// What the archive is of.
    pub session: Session,
    /// When the segment was begun, in nanoseconds since 1970.
    pub created_ns: u64,
}

/// Why a header block is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// The first eight bytes are not those of a segment.
    #[error("no segment starts here")]
    NoSegment,
    /// The block does not fit its checksum.
    #[error("the segment header's checksum is {stored:08x}, its bytes give {computed:08x}")]
    Checksum {
        /// CRC-32C in the block.
        stored: u32,
        /// CRC-32C of the block.
        computed: u32,
    },
    /// Written by another version of the format.
    #[error("segment version {found}; this program reads version 1")]
    Version {
        /// Version in the block.
        found: u16,
    },
}

impl SegmentHeader {
    /// Writes the header block.
    pub(super) fn encode(&self, block: &mut [u8]) {
        let block = &mut block[..SEGMENT_HEADER_BYTES];
        let Session { session, camera, geometry, ring_bytes } = self.session;
        block.fill(0);
        block[..8].copy_from_slice(&MAGIC);
        LittleEndian::write_u16(&mut block[8..], VERSION);
        LittleEndian::write_u32(&mut block[12..], self.number);
        LittleEndian::write_u32(&mut block[16..], camera);
        LittleEndian::write_u16(&mut block[20..], geometry.width);
        LittleEndian::write_u16(&mut block[22..], geometry.height);
        LittleEndian::write_u16(&mut block[24..], geometry.quality2);
        block[26] = geometry.color_mode;
        LittleEndian::write_u64(&mut block[32..], ring_bytes);
        LittleEndian::write_u64(&mut block[40..], session);
        LittleEndian::write_u64(&mut block[48..], self.created_ns);
        let crc = crc_fast::crc32_iscsi(&block[..CRC]);
        LittleEndian::write_u32(&mut block[CRC..], crc);
    }

    /// Reads and checks the header block of a segment.
    ///
    /// # Errors
    /// If it is none, is damaged, or is of another version.
    pub fn parse(block: &[u8; SEGMENT_HEADER_BYTES]) -> Result<SegmentHeader, SegmentError> {
        if block[..8] != MAGIC {
            return Err(SegmentError::NoSegment);
        }
        let stored = LittleEndian::read_u32(&block[CRC..]);
        let computed = crc_fast::crc32_iscsi(&block[..CRC]);
        if stored != computed {
            return Err(SegmentError::Checksum { stored, computed });
        }
        let found = LittleEndian::read_u16(&block[8..]);
        if found != VERSION {
            return Err(SegmentError::Version { found });
        }
        let geometry = Geometry {
            width: LittleEndian::read_u16(&block[20..]),
            height: LittleEndian::read_u16(&block[22..]),
            quality2: LittleEndian::read_u16(&block[24..]),
            color_mode: block[26],
        };
        let session = Session {
            session: LittleEndian::read_u64(&block[40..]),
            camera: LittleEndian::read_u32(&block[16..]),
            geometry,
            ring_bytes: LittleEndian::read_u64(&block[32..]),
        };
        let number = LittleEndian::read_u32(&block[12..]);
        Ok(SegmentHeader { number, session, created_ns: LittleEndian::read_u64(&block[48..]) })
    }
}

/// Name of a segment's file, or of the index beside it.
pub(super) fn file_name(number: u32, suffix: &str) -> String {
    format!("seg-{number:06}.{suffix}")
}

/// Number of the segment that a file with this name and ending belongs to.
pub(super) fn parse_name(name: &str, suffix: &str) -> Option<u32> {
    let digits = name.strip_prefix("seg-")?.strip_suffix(suffix)?.strip_suffix('.')?;
    let number = digits.parse().ok()?;
    // Only the one spelling that is ever written: no sign, no other number of zeros.
    (file_name(number, suffix) == name).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        let geometry = Geometry { width: 2048, height: 1536, quality2: 0x5A50, color_mode: 14 };
        let session =
            Session { session: 0x1122_3344_5566_7788, camera: 2, geometry, ring_bytes: 19_791_872 };
        SegmentHeader { number: 3, session, created_ns: 0x0102_0304_0506_0708 }
    }

    #[test]
    fn a_header_block_stands_byte_for_byte_as_drawn() {
        let mut block = [0xEE; SEGMENT_HEADER_BYTES];
        header().encode(&mut block);
        let mut by_hand = Vec::new();
        by_hand.extend(*b"CIRCSEGM\x01\0\0\0\x03\0\0\0");
        by_hand.extend(*b"\x02\0\0\0\x00\x08\x00\x06\x50\x5A\x0E\0\0\0\0\0");
        by_hand.extend(*b"\x00\x00\x2E\x01\0\0\0\0\x88\x77\x66\x55\x44\x33\x22\x11");
        by_hand.extend(*b"\x08\x07\x06\x05\x04\x03\x02\x01");
        by_hand.resize(4092, 0);
        assert_eq!(block[..4092], by_hand[..]);
        assert_eq!(block[4092..], crc_fast::crc32_iscsi(&by_hand).to_le_bytes());
        assert_eq!(SegmentHeader::parse(&block), Ok(header()));
    }

    #[test]
    fn every_flipped_bit_of_a_header_block_is_found() {
        let mut block = [0; SEGMENT_HEADER_BYTES];
        header().encode(&mut block);
        for bit in 0..SEGMENT_HEADER_BYTES * 8 {
            block[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::parse(&block).is_err(), "bit {bit}");
            block[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn names_are_read_back_and_nothing_else_is_taken_for_one() {
        for number in [0, 7, 999_999, 1_000_000, u32::MAX] {
            assert_eq!(parse_name(&file_name(number, "cbs"), "cbs"), Some(number));
        }
        for other in ["seg-7.cbs", "seg-+00007.cbs", "seg-000007.idx", "seg-000007.cbs.new", "x"] {
            assert_eq!(parse_name(other, "cbs"), None, "{other}");
        }
    }
}
