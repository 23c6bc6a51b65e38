//! The reading side of an archive, for listing, export and replay.

use std::cell::RefCell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::error::ReadError;
use super::options::Session;
use super::scan::{Entry, Found, SegmentScan, read_record};
use super::segment::{INDEX_SUFFIX, SEGMENT_SUFFIX, parse_name};

/// A segment's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentPath {
    /// Its number.
    pub number: u32,
    /// Where it is.
    pub path: PathBuf,
    /// Its size when it was looked at.
    pub bytes: u64,
}

/// An archive open for reading. Reading changes nothing and takes no lock, so an archive can be
/// read while it is written.
#[derive(Debug)]
pub struct ArchiveReader {
    segments: Vec<SegmentPath>,
    session: Session,
    /// The segment that was read last.
    open: RefCell<Option<(u32, File)>>,
}

impl ArchiveReader {
    /// Opens the archive in a directory.
    ///
    /// # Errors
    /// If there is none, it cannot be read, or is of another version.
    pub fn open(dir: &Path) -> Result<ArchiveReader, ReadError> {
        let segments = list(dir, SEGMENT_SUFFIX)?;
        let mut session = None;
        for segment in &segments {
            let scan = SegmentScan::open(segment.number, &segment.path)?;
            session = session.or(scan.header().as_ref().ok().map(|header| header.session));
        }
        let session = match (session, segments.is_empty()) {
            (_, true) => return Err(ReadError::NotAnArchive { dir: dir.to_owned() }),
            (Some(session), _) => session,
            (None, _) => session_of_records(&segments)?,
        };
        Ok(ArchiveReader { segments, session, open: RefCell::default() })
    }

    /// What the archive is of, as the first readable segment header tells; from a record, with
    /// geometry and ring zero, where all of them are damaged.
    #[must_use]
    pub fn session(&self) -> Session {
        self.session
    }

    /// The segments in order.
    #[must_use]
    pub fn segments(&self) -> &[SegmentPath] {
        &self.segments
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Walks through all records in order, reading little more than their headers. Lengths are taken
    /// from headers without a look at bodies, other than by [`super::verify()`] and
    /// [`super::recover()`], which also find what stands whole within the length of a torn record.
    #[must_use]
    pub fn scan(&self) -> Scan<'_> {
        Scan { rest: self.segments.iter(), segment: None, bytes_before: 0 }
    }

    /// Reads all of a record into `buffer`, which is made to fit, and checks its checksums.
    ///
    /// # Errors
    /// If it cannot be read or is damaged.
    pub fn read_record(&self, entry: &Entry, buffer: &mut Vec<u8>) -> Result<(), ReadError> {
        let known = self.segments.iter().find(|segment| segment.number == entry.segment);
        let path = &known.expect("the entry comes from a scan of this archive").path;
        let mut open = self.open.borrow_mut();
        let file = match open.take() {
            Some((number, file)) if number == entry.segment => file,
            _ => File::open(path).map_err(ReadError::at("open", path))?,
        };
        let (_, file) = open.insert((entry.segment, file));
        read_record(file, path, entry, buffer)
    }
}

/// A walk through all segments of an archive.
#[derive(Debug)]
pub struct Scan<'a> {
    rest: std::slice::Iter<'a, SegmentPath>,
    segment: Option<SegmentScan>,
    bytes_before: u64,
}

impl Scan<'_> {
    /// How far the walk is, in bytes of all segments.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.bytes_before + self.segment.as_ref().map_or(0, SegmentScan::position)
    }
}

impl Iterator for Scan<'_> {
    type Item = Result<Found, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(segment) = &mut self.segment {
                match segment.next() {
                    Ok(Some(found)) => return Some(Ok(found)),
                    Ok(None) => {}
                    Err(error) => {
                        self.segment = None;
                        return Some(Err(error));
                    }
                }
                self.bytes_before += segment.file_bytes();
                self.segment = None;
            }
            let next = self.rest.next()?;
            match SegmentScan::open(next.number, &next.path) {
                Ok(scan) => self.segment = Some(scan),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// The files of an archive with this ending, by number.
fn list(dir: &Path, suffix: &str) -> Result<Vec<SegmentPath>, ReadError> {
    let mut found = Vec::new();
    for file in fs::read_dir(dir).map_err(ReadError::at("list", dir))? {
        let file = file.map_err(ReadError::at("list", dir))?;
        let number = file.file_name().to_str().and_then(|name| parse_name(name, suffix));
        let Some(number) = number else { continue };
        let path = file.path();
        let bytes = file.metadata().map_err(ReadError::at("read", &path))?.len();
        found.push(SegmentPath { number, path, bytes });
    }
    found.sort_by_key(|segment| segment.number);
    Ok(found)
}

/// Numbers of the segments that have an index.
pub(super) fn indexes(dir: &Path) -> Result<Vec<u32>, ReadError> {
    Ok(list(dir, INDEX_SUFFIX)?.iter().map(|index| index.number).collect())
}

fn session_of_records(segments: &[SegmentPath]) -> Result<Session, ReadError> {
    for segment in segments {
        let mut scan = SegmentScan::open(segment.number, &segment.path)?;
        while let Some(found) = scan.next()? {
            if let Found::Record(Entry { header, .. }) = found {
                let (session, camera) = (header.session, header.camera);
                return Ok(Session { session, camera, ..Session::default() });
            }
        }
    }
    Ok(Session::default())
}
