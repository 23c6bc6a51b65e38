//! The index as a witness: what it names, in step with a walk through its segment.

use std::fs::File;
use std::io::{self, Seek};
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
    /// Entries read, and how many there were when the index was opened.
    read: u64,
    entries: u64,
    named_end: u64,
}

impl Witness {
    /// The index at `path`, which may be missing. What is added to it later is not seen, so that
    /// it never names what a walk that begins afterwards cannot find.
    pub(super) fn open(path: &Path) -> Result<Witness, ReadError> {
        let mut witness = Witness { reader: None, next: None, read: 0, entries: 0, named_end: 0 };
        match File::open(path) {
            Ok(file) => witness.survey(file).map_err(ReadError::at("read", path))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(ReadError::at("open", path)(error)),
        }
        Ok(witness)
    }

    /// Goes through the index once, and back to its beginning.
    fn survey(&mut self, mut file: File) -> io::Result<()> {
        let mut reader = IndexReader::new(file.try_clone()?);
        while let Some(entry) = reader.next()? {
            self.entries += 1;
            self.named_end = self.named_end.max(entry.map_or(0, |entry| entry.end()));
        }
        file.rewind()?;
        self.reader = Some(IndexReader::new(file));
        Ok(())
    }

    /// Whether there is an index.
    pub(super) fn exists(&self) -> bool {
        self.reader.is_some()
    }

    /// Behind the last record that is named, in bytes; zero if none is.
    pub(super) fn named_end(&self) -> u64 {
        self.named_end
    }

    /// Takes off the next entry if what it names starts below `end`.
    pub(super) fn take_below(&mut self, end: u64) -> io::Result<Option<Named>> {
        if self.next.is_none() {
            let all = self.read == self.entries;
            let Some(reader) = self.reader.as_mut().filter(|_| !all) else { return Ok(None) };
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
