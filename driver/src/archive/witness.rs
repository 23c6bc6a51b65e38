//! The index as a witness: what it names, in step with a walk through its segment.

use std::fs::File;
use std::io;
use std::path::Path;

use super::error::ReadError;
use super::index::{IndexEntry, IndexEntryError, IndexReader};

/// What an index says next.
#[derive(Debug)]
pub(super) enum Named {
    /// A record.
    Record(IndexEntry),
    /// Nothing that can be believed.
    Unreadable { number: u64, error: IndexEntryError },
}

/// The entries of an index, taken off in the order of their offsets.
#[derive(Debug)]
pub(super) struct Witness {
    /// `None` where there is no index.
    reader: Option<IndexReader>,
    next: Option<IndexEntry>,
    /// Entries read.
    read: u64,
}

impl Witness {
    /// The index at `path`, which may be missing.
    pub(super) fn open(path: &Path) -> Result<Witness, ReadError> {
        let reader = match File::open(path) {
            Ok(file) => Some(IndexReader::new(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(ReadError::at("open", path)(error)),
        };
        Ok(Witness { reader, next: None, read: 0 })
    }

    /// Takes off the next entry if what it names starts below `end`.
    pub(super) fn take_below(&mut self, end: u64) -> io::Result<Option<Named>> {
        if self.next.is_none() {
            let Some(reader) = &mut self.reader else { return Ok(None) };
            let Some(entry) = reader.next()? else { return Ok(None) };
            let number = self.read;
            self.read += 1;
            match entry {
                Ok(entry) => self.next = Some(entry),
                Err(error) => return Ok(Some(Named::Unreadable { number, error })),
            }
        }
        Ok(self.next.take_if(|entry| entry.offset < end).map(Named::Record))
    }
}
