//! Frames in an archive segment. The body of a record is the ring's own slot, so that it is read
//! as a ring that holds this one frame.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use circbuf_driver::forensics::RingImage;
use circbuf_driver::record::{
    RECORD_ALIGN, RECORD_HEADER_BYTES, RecordError, RecordHeader, RecordKind,
};

use super::{Dump, Piece};
use crate::ring_file::{self, ReadError};

/// Ends the name of a segment.
const EXTENSION: &str = "cbs";
/// In front of the records stands the segment's own header.
const FIRST_RECORD: u64 = RECORD_ALIGN as u64;

/// An archive segment, open.
#[derive(Debug)]
pub(super) struct Segment {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Segment {
    /// Opens a file if it is a segment, by its name or by a record behind its header block.
    pub(super) fn open(path: &Path) -> Result<Option<Segment>, ReadError> {
        let file = ring_file::open(path)?;
        let failed = |source| ReadError::Open { path: path.to_path_buf(), source };
        let bytes = file.metadata().map_err(failed)?.len();
        let segment = Segment { path: path.to_path_buf(), file, bytes };
        let is_segment = path.extension() == Some(OsStr::new(EXTENSION))
            || segment.header(FIRST_RECORD).is_ok_and(|header| header.is_ok());
        Ok(is_segment.then_some(segment))
    }

    pub(super) fn read(self) -> Result<Dump, ReadError> {
        let (mut pieces, mut broken) = (Vec::new(), Vec::new());
        let mut offset = FIRST_RECORD;
        while offset + RECORD_HEADER_BYTES as u64 <= self.bytes {
            let header = self.header(offset).map_err(|source| self.failed(source))?;
            let Ok(header) = header else {
                if header != Err(RecordError::NoRecord) {
                    broken.push(offset);
                }
                offset += RECORD_ALIGN as u64;
                continue;
            };
            match self.piece(offset, &header).map_err(|source| self.failed(source))? {
                Some(piece) => pieces.extend(piece),
                None => broken.push(offset),
            }
            offset += header.record_bytes() as u64;
        }
        Ok(Dump { path: self.path, bytes: self.bytes, pieces, is_segment: true, broken })
    }

    fn header(&self, offset: u64) -> io::Result<Result<RecordHeader, RecordError>> {
        let mut head = [0; RECORD_HEADER_BYTES];
        self.file.read_exact_at(&mut head, offset)?;
        Ok(RecordHeader::parse(&head))
    }

    /// The frame of a record, if it is about one; `None` if the file ends before the record does,
    /// or its body is no slot.
    fn piece(&self, record: u64, header: &RecordHeader) -> io::Result<Option<Option<Piece>>> {
        if header.kind == RecordKind::Loss {
            return Ok(Some(None));
        }
        let offset = record + RECORD_HEADER_BYTES as u64;
        if offset + header.body_bytes() as u64 > self.bytes {
            return Ok(None);
        }
        let mut body = vec![0; header.body_bytes()];
        self.file.read_exact_at(&mut body, offset)?;
        let image = RingImage::new(body).expect("a slot is at least two chunks");
        let survey = image.survey();
        let sequence = Some(header.sequence);
        Ok((!survey.frames.is_empty()).then_some(Some(Piece { image, offset, survey, sequence })))
    }

    fn failed(&self, source: io::Error) -> ReadError {
        ReadError::Read { path: self.path.clone(), source }
    }
}
