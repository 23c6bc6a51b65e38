//! Walking through a segment without trusting it: each record header is checked, and after damage
//! the walk goes on at the next place where a valid header of the same session stands.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use circbuf_abi::header::HEADER_BYTES;
use circbuf_abi::ring::CHUNK_BYTES;
use serde::Serialize;

use super::error::ReadError;
use super::index::IndexEntry;
use super::segment::{SEGMENT_HEADER_BYTES, SegmentError, SegmentHeader};
use crate::loss::Loss;
use crate::record::{
    LOSS_BODY_BYTES, PAYLOAD_OFFSET, RECORD_ALIGN, RECORD_HEADER_BYTES, RecordHeader, RecordKind,
    stored_body_crc,
};
use crate::ring::{FrameHeader, Geometry, Timestamp, Trailer, padded};

/// A record in a segment, as its header tells. Its body is checked by
/// [`super::ArchiveReader::read_record`], except that of a loss, which is checked already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Number of the segment.
    pub segment: u32,
    /// Where the record starts in the segment, in bytes.
    pub offset: u64,
    /// The record's header.
    pub header: RecordHeader,
    /// CRC-32C that the body has to have.
    pub body_crc: u32,
    /// What it is about.
    pub content: Content,
}

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A frame.
    Frame {
        /// Exposure time, from the trailer.
        time: Timestamp,
        /// Geometry, from the frame header.
        geometry: Geometry,
    },
    /// Frames that are missing.
    Loss(Loss),
}

impl Entry {
    /// Exposure time of the frame, or of the first one that is missing; zero if unknown.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        match self.content {
            Content::Frame { time, .. } => time,
            Content::Loss(loss) => loss.first.unwrap_or_default(),
        }
    }

    /// What an index has to say of it.
    pub(super) fn indexed(&self) -> IndexEntry {
        IndexEntry::of(&self.header, self.offset, self.time(), self.body_crc)
    }

    /// Behind the record, in bytes.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset + self.header.record_bytes() as u64
    }
}

/// Bytes of a segment in which no whole record stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Extent {
    /// Number of the segment.
    pub segment: u32,
    /// Where it starts, in bytes.
    pub offset: u64,
    /// How long it is.
    pub bytes: u64,
    /// Nothing but zeros: space that was reserved, or whose write never happened.
    pub zeros: bool,
    /// How many readable record headers stand in it.
    pub records: u64,
    /// Number of the frame that the first of them tells.
    pub sequence: Option<u64>,
    /// What is wrong at its beginning.
    pub what: String,
}

impl Extent {
    /// Behind the last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset + self.bytes
    }

    /// Takes in the extent that follows.
    pub(super) fn join(&mut self, next: &Extent) {
        self.bytes = next.end() - self.offset;
        self.zeros &= next.zeros;
        self.records += next.records;
        self.sequence = self.sequence.or(next.sequence);
    }
}

/// What stands at a place of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A record with a valid header, all of whose bytes are within the file.
    Record(Entry),
    /// Damage, with valid records behind it.
    Damaged(Extent),
    /// What lies behind the last valid record header.
    Tail(Extent),
}

/// A walk through one segment.
#[derive(Debug)]
pub(super) struct SegmentScan {
    number: u32,
    path: PathBuf,
    file: File,
    bytes: u64,
    position: u64,
    header: Result<SegmentHeader, SegmentError>,
    /// Session of the records; the first one's where the segment's header does not tell.
    session: Option<u64>,
    /// No damage reaches across this place.
    border: u64,
    /// A record whose header is valid and whose body is not, as the caller has found.
    rejected: Option<Rejected>,
}

#[derive(Debug)]
struct Rejected {
    offset: u64,
    sequence: u64,
    what: String,
}

/// The first bytes of a record's place.
struct Block {
    bytes: [u8; RECORD_ALIGN],
    length: usize,
}

impl SegmentScan {
    pub(super) fn open(number: u32, path: &Path) -> Result<SegmentScan, ReadError> {
        let file = File::open(path).map_err(ReadError::at("open", path))?;
        let bytes = file.metadata().map_err(ReadError::at("read", path))?.len();
        let block = Block::read(&file, 0, bytes).map_err(ReadError::at("read", path))?;
        let header = SegmentHeader::parse(&block.bytes);
        if let Err(SegmentError::Version { found }) = header {
            return Err(ReadError::Version { path: path.to_owned(), found });
        }
        Ok(SegmentScan {
            number,
            path: path.to_owned(),
            file,
            bytes,
            position: SEGMENT_HEADER_BYTES as u64,
            session: header.as_ref().ok().map(|header| header.session.session),
            header,
            border: u64::MAX,
            rejected: None,
        })
    }

    /// Keeps damage in front of this place apart from damage behind it.
    pub(super) fn split_at(&mut self, border: u64) {
        self.border = border;
    }

    /// Goes back to a record that was found last and is not whole: what comes next is the damage that
    /// begins with it. Its length is not to be trusted either, so it hides no record that stands in it.
    pub(super) fn reject(&mut self, entry: &Entry, what: String) {
        let (offset, sequence) = (entry.offset, entry.header.sequence);
        self.rejected = Some(Rejected { offset, sequence, what });
        self.position = offset;
    }

    pub(super) fn header(&self) -> &Result<SegmentHeader, SegmentError> {
        &self.header
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.bytes
    }

    /// How far the walk is.
    pub(super) fn position(&self) -> u64 {
        self.position.min(self.bytes)
    }

    /// What stands next.
    pub(super) fn next(&mut self) -> Result<Option<Found>, ReadError> {
        if self.position >= self.bytes {
            return Ok(None);
        }
        let found = match self.find() {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && self.shrink()? => {
                return self.next();
            }
            found => found.map_err(ReadError::at("read", &self.path))?,
        };
        self.position = match &found {
            Found::Record(entry) => entry.end(),
            Found::Damaged(extent) | Found::Tail(extent) => extent.end(),
        };
        Ok(Some(found))
    }

    /// A segment loses what was reserved for it when its writer seals it; whether this has.
    fn shrink(&mut self) -> Result<bool, ReadError> {
        let bytes = self.file.metadata().map_err(ReadError::at("read", &self.path))?.len();
        let has_shrunk = bytes < self.bytes;
        self.bytes = self.bytes.min(bytes);
        Ok(has_shrunk)
    }

    fn find(&mut self) -> io::Result<Found> {
        let block = Block::read(&self.file, self.position, self.bytes)?;
        if let Some(Rejected { offset, sequence, what }) = &self.rejected
            && *offset == self.position
        {
            return self.resynchronise(&block, Some(*sequence), what.clone());
        }
        let header = match self.parse(&block) {
            Ok(header) => header,
            Err(what) => return self.resynchronise(&block, None, what),
        };
        self.session = Some(header.session);
        let (end, sequence) = (self.position + header.record_bytes() as u64, header.sequence);
        if end > self.bytes {
            let what = format!("the record of sequence {sequence} ends behind the segment's end");
            return self.resynchronise(&block, Some(sequence), what);
        }
        match self.content(&header, &block)? {
            Some(content) => Ok(Found::Record(Entry {
                segment: self.number,
                offset: self.position,
                header,
                body_crc: stored_body_crc(block.head()),
                content,
            })),
            None => Ok(Found::Damaged(Extent {
                segment: self.number,
                offset: self.position,
                bytes: end - self.position,
                zeros: false,
                records: 1,
                sequence: Some(sequence),
                what: "the loss record's body is damaged".to_owned(),
            })),
        }
    }

    /// The record header in a block, if it is valid and of this session.
    fn parse(&self, block: &Block) -> Result<RecordHeader, String> {
        if block.length < RECORD_HEADER_BYTES {
            return Err(format!("{} bytes are no record", block.length));
        }
        let header = RecordHeader::parse(block.head()).map_err(|error| error.to_string())?;
        match self.session {
            Some(session) if session != header.session => {
                Err(format!("the record belongs to session {:016x}", header.session))
            }
            _ => Ok(header),
        }
    }

    /// What the record is about; `None` for a loss whose body is damaged.
    fn content(&self, header: &RecordHeader, block: &Block) -> io::Result<Option<Content>> {
        let body = &block.bytes[RECORD_HEADER_BYTES..];
        if header.kind == RecordKind::Loss {
            let body: &[u8; LOSS_BODY_BYTES] = body.first_chunk().expect("a block is longer");
            let fits = crc_fast::crc32_iscsi(body) == stored_body_crc(block.head());
            let loss = Loss::decode(body, header.sequence).filter(|_| fits);
            return Ok(loss.map(Content::Loss));
        }
        let slot: &[u8; HEADER_BYTES] = body.first_chunk().expect("a block is longer");
        let mut chunk = [0; CHUNK_BYTES];
        let end = self.position + PAYLOAD_OFFSET as u64 + padded(header.length);
        self.file.read_exact_at(&mut chunk, end - CHUNK_BYTES as u64)?;
        let geometry = FrameHeader(*slot).geometry();
        Ok(Some(Content::Frame { time: Trailer::parse(&chunk).time, geometry }))
    }

    /// Looks for the next valid record header behind a place where none stands.
    fn resynchronise(
        &self,
        block: &Block,
        sequence: Option<u64>,
        what: String,
    ) -> io::Result<Found> {
        let mut zeros = block.is_zero();
        let mut offset = self.position + RECORD_ALIGN as u64;
        let extent = |end: u64, zeros| Extent {
            segment: self.number,
            offset: self.position,
            bytes: end - self.position,
            zeros,
            records: u64::from(sequence.is_some()),
            sequence,
            what,
        };
        while offset < self.bytes {
            let block = Block::read(&self.file, offset, self.bytes)?;
            if offset >= self.border || self.parse(&block).is_ok() {
                return Ok(Found::Damaged(extent(offset, zeros)));
            }
            zeros &= block.is_zero();
            offset += RECORD_ALIGN as u64;
        }
        Ok(Found::Tail(extent(self.bytes, zeros)))
    }

    /// Reads all of a record and checks header and body against their checksums.
    pub(super) fn read(&self, entry: &Entry, buffer: &mut Vec<u8>) -> Result<(), ReadError> {
        read_record(&self.file, &self.path, entry, buffer)
    }
}

/// Reads all of a record into `buffer` and checks header and body against their checksums.
pub(super) fn read_record(
    file: &File,
    path: &Path,
    entry: &Entry,
    buffer: &mut Vec<u8>,
) -> Result<(), ReadError> {
    buffer.resize(entry.header.record_bytes(), 0);
    file.read_exact_at(buffer, entry.offset).map_err(ReadError::at("read", path))?;
    let damaged = |what| ReadError::Damaged { path: path.to_owned(), offset: entry.offset, what };
    let head = buffer.first_chunk().expect("a record is longer than its header");
    match RecordHeader::parse(head) {
        Ok(header) if header == entry.header => {}
        Ok(_) => return Err(damaged("another record stands there now".to_owned())),
        Err(error) => return Err(damaged(error.to_string())),
    }
    let stored = stored_body_crc(head);
    let body = &buffer[RECORD_HEADER_BYTES..][..entry.header.body_bytes()];
    let computed = crc_fast::crc32_iscsi(body);
    if stored != computed {
        let sequence = entry.header.sequence;
        return Err(damaged(format!(
            "the body's checksum in the record of sequence {sequence} is {stored:08x}, its bytes give {computed:08x}"
        )));
    }
    Ok(())
}

impl Block {
    /// Reads a block; behind the end of the file there are zeros.
    fn read(file: &File, offset: u64, file_bytes: u64) -> io::Result<Block> {
        let length = file_bytes.saturating_sub(offset).min(RECORD_ALIGN as u64) as usize;
        let mut bytes = [0; RECORD_ALIGN];
        file.read_exact_at(&mut bytes[..length], offset)?;
        Ok(Block { bytes, length })
    }

    fn head(&self) -> &[u8; RECORD_HEADER_BYTES] {
        self.bytes.first_chunk().expect("a block is longer than a record header")
    }

    fn is_zero(&self) -> bool {
        self.bytes.iter().all(|byte| *byte == 0)
    }
}
