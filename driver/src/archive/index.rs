//! The index beside a segment: one entry of 64 bytes per record and nothing else, in the order of
//! the records. It can always be made again from the segment.
//!
//! ```text
//!  0  u64 sequence      8  u64 offset of the record in the segment, in bytes
//! 16  u64 cursor       24  u64 realtime_ns       32  u64 monotonic_ns
//! 40  u32 sec          44  u32 usec              48  u32 length of the payload in bytes
//! 52  u8 kind          53  u8 flags              54  zero
//! 56  u32 CRC-32C of the record's body           60  u32 CRC-32C of bytes 0-59
//! ```
//!
//! Kind is 1 for a frame, 2 for a loss; flag 1 tells that the frame header was made by the driver.
//! `sec` and `usec` are the exposure time of the frame, or of the first one that is missing. With
//! numpy:
//!
//! ```python
//! entry = np.dtype([("sequence", "<u8"), ("offset", "<u8"), ("cursor", "<u8"),
//!     ("realtime_ns", "<u8"), ("monotonic_ns", "<u8"), ("sec", "<u4"), ("usec", "<u4"),
//!     ("length", "<u4"), ("kind", "u1"), ("flags", "u1"), ("zero", "<u2"),
//!     ("body_crc", "<u4"), ("crc", "<u4")])
//! index = np.fromfile("seg-000000.idx", entry)
//! length, offset = int(index["length"][0]), int(index["offset"][0])
//! payload = np.fromfile("seg-000000.cbs", "u1", length, offset=offset + 128)
//! ```
//!
//! The index is the witness of what is on disk: an entry is written after its record has been
//! synced. With durability none that is when the segment is sealed.

use std::fs::File;
use std::io::{self, BufReader, Read};

use byteorder::{ByteOrder, LittleEndian};

use super::store::DiskFile;
use crate::record::{LOSS_BODY_BYTES, RecordHeader, RecordKind, frame_body_bytes, record_bytes};
use crate::ring::Timestamp;

/// Bytes of an entry.
pub const INDEX_ENTRY_BYTES: usize = 64;
const CRC: usize = 60;
const FLAG_SYNTHESISED: u8 = 1;

/// What the index tells about a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// Frame or loss.
    pub kind: RecordKind,
    /// The frame header was made by the driver.
    pub synthesised: bool,
    /// Number of the frame, or of the first one that is missing.
    pub sequence: u64,
    /// Where the record starts in the segment, in bytes; a multiple of 4096.
    pub offset: u64,
    /// Cursor of the frame's start in the ring.
    pub cursor: u64,
    /// When the driver found the frame, in nanoseconds since 1970.
    pub realtime_ns: u64,
    /// The same by the monotonic clock.
    pub monotonic_ns: u64,
    /// Exposure time of the frame, or of the first one that is missing; zero if unknown.
    pub time: Timestamp,
    /// Length as in the record header, in bytes.
    pub length: u32,
    /// CRC-32C of the record's body.
    pub body_crc: u32,
}

/// Why an entry is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IndexEntryError {
    /// The entry does not fit its checksum.
    #[error("the index entry's checksum is {stored:08x}, its bytes give {computed:08x}")]
    Checksum {
        /// CRC-32C in the entry.
        stored: u32,
        /// CRC-32C of the entry.
        computed: u32,
    },
    /// Neither frame nor loss.
    #[error("the index entry is of the unknown kind {kind}")]
    Kind {
        /// Kind as stored.
        kind: u8,
    },
}

impl IndexEntry {
    /// The entry for a record at `offset`.
    pub(super) fn of(header: &RecordHeader, offset: u64, time: Timestamp, body_crc: u32) -> Self {
        IndexEntry {
            kind: header.kind,
            synthesised: header.synthesised,
            sequence: header.sequence,
            offset,
            cursor: header.cursor,
            realtime_ns: header.realtime_ns,
            monotonic_ns: header.monotonic_ns,
            time,
            length: header.length,
            body_crc,
        }
    }

    /// Behind the record, in bytes.
    pub(super) fn end(&self) -> u64 {
        let body_bytes = match self.kind {
            RecordKind::Frame => frame_body_bytes(self.length),
            RecordKind::Loss => LOSS_BODY_BYTES,
        };
        self.offset.saturating_add(record_bytes(body_bytes) as u64)
    }

    /// The 64 bytes of the entry.
    #[must_use]
    pub fn encode(&self) -> [u8; INDEX_ENTRY_BYTES] {
        let mut bytes = [0; INDEX_ENTRY_BYTES];
        let words = [self.sequence, self.offset, self.cursor, self.realtime_ns, self.monotonic_ns];
        LittleEndian::write_u64_into(&words, &mut bytes[..40]);
        LittleEndian::write_u32_into(
            &[self.time.sec, self.time.usec, self.length],
            &mut bytes[40..52],
        );
        bytes[52] = self.kind.code();
        bytes[53] = if self.synthesised { FLAG_SYNTHESISED } else { 0 };
        LittleEndian::write_u32(&mut bytes[56..], self.body_crc);
        let crc = crc_fast::crc32_iscsi(&bytes[..CRC]);
        LittleEndian::write_u32(&mut bytes[CRC..], crc);
        bytes
    }

    /// Reads and checks an entry.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn parse(bytes: &[u8; INDEX_ENTRY_BYTES]) -> Result<IndexEntry, IndexEntryError> {
        let stored = LittleEndian::read_u32(&bytes[CRC..]);
        let computed = crc_fast::crc32_iscsi(&bytes[..CRC]);
        if stored != computed {
            return Err(IndexEntryError::Checksum { stored, computed });
        }
        let kind = RecordKind::from_code(bytes[52]);
        let word = |offset| LittleEndian::read_u64(&bytes[offset..]);
        let half = |offset| LittleEndian::read_u32(&bytes[offset..]);
        Ok(IndexEntry {
            kind: kind.ok_or(IndexEntryError::Kind { kind: bytes[52] })?,
            synthesised: bytes[53] & FLAG_SYNTHESISED != 0,
            sequence: word(0),
            offset: word(8),
            cursor: word(16),
            realtime_ns: word(24),
            monotonic_ns: word(32),
            time: Timestamp { sec: half(40), usec: half(44) },
            length: half(48),
            body_crc: half(56),
        })
    }
}

/// An index that is being written, entry behind entry.
#[derive(Debug)]
pub(super) struct IndexFile {
    file: DiskFile,
    /// Bytes of whole entries written.
    bytes: u64,
    /// Entries that wait for their records to be synced.
    held: Vec<u8>,
}

impl IndexFile {
    pub(super) fn new(file: DiskFile) -> Self {
        IndexFile { file, bytes: 0, held: Vec::new() }
    }

    /// Keeps entries until their records are synced.
    pub(super) fn hold<'a>(&mut self, entries: impl Iterator<Item = &'a IndexEntry>) {
        entries.for_each(|entry| self.held.extend_from_slice(&entry.encode()));
    }

    /// How many entries are held.
    pub(super) fn held(&self) -> usize {
        self.held.len() / INDEX_ENTRY_BYTES
    }

    /// Forgets what is held: it will never be known to be synced.
    pub(super) fn forget(&mut self) {
        self.held.clear();
    }

    /// Writes what is held; after an error it can be tried again.
    pub(super) fn write_held(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.held, self.bytes)?;
        self.bytes += self.held.len() as u64;
        self.held.clear();
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Cuts off what a failed write may have left behind the last whole entry.
    pub(super) fn cut(&self) -> io::Result<()> {
        self.file.set_len(self.bytes)
    }
}

/// The entries of an index file, one after the other; a last one that is cut short is left out.
#[derive(Debug)]
pub(super) struct IndexReader {
    file: BufReader<File>,
}

impl IndexReader {
    pub(super) fn new(file: File) -> Self {
        IndexReader { file: BufReader::with_capacity(64 << 10, file) }
    }

    pub(super) fn next(&mut self) -> io::Result<Option<Result<IndexEntry, IndexEntryError>>> {
        let mut bytes = [0; INDEX_ENTRY_BYTES];
        match self.file.read_exact(&mut bytes) {
            Ok(()) => Ok(Some(IndexEntry::parse(&bytes))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> IndexEntry {
        IndexEntry {
            kind: RecordKind::Frame,
            synthesised: true,
            sequence: 0x0102,
            offset: 0x1000,
            cursor: 0x20,
            realtime_ns: 3,
            monotonic_ns: 4,
            time: Timestamp { sec: 0x46FF_4A82, usec: 0x303BD },
            length: 0x378FE,
            body_crc: 0xAABB_CCDD,
        }
    }

    #[test]
    fn an_entry_stands_byte_for_byte_as_drawn() {
        let mut by_hand = Vec::new();
        by_hand.extend(*b"\x02\x01\0\0\0\0\0\0\x00\x10\0\0\0\0\0\0\x20\0\0\0\0\0\0\0");
        by_hand.extend(*b"\x03\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0");
        by_hand.extend(*b"\x82\x4A\xFF\x46\xBD\x03\x03\x00\xFE\x78\x03\x00\x01\x01\0\0");
        by_hand.extend(*b"\xDD\xCC\xBB\xAA");
        by_hand.extend(crc_fast::crc32_iscsi(&by_hand).to_le_bytes());
        assert_eq!(entry().encode()[..], by_hand[..]);
        assert_eq!(IndexEntry::parse(&entry().encode()), Ok(entry()));
    }

    #[test]
    fn every_flipped_bit_of_an_entry_is_found() {
        for bit in 0..INDEX_ENTRY_BYTES * 8 {
            let mut bytes = entry().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(IndexEntry::parse(&bytes).is_err(), "bit {bit}");
        }
    }
}
