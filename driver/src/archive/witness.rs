//! The index as a witness: what it names, in step with a walk through its segment.

use std::fs::File;
use std::io;
use std::path::Path;

use super::error::ReadError;
use super::index::{IndexEntry, IndexEntryError, IndexReader};
use crate::record::RECORD_ALIGN;

/// The entries of an index, taken off in the order of their offsets, whatever their order in the
/// file: one that lies must not hide the others. 80 bytes of memory for each.
#[derive(Debug, Default)]
pub(super) struct Witness {
    exists: bool,
    entries: Vec<IndexEntry>,
    taken: usize,
    /// What cannot be believed, and the numbers of the entries.
    unreadable: Vec<(u64, IndexEntryError)>,
    /// Where records that are named end, rounded up to where the next one could begin.
    ends: Vec<u64>,
}

impl Witness {
    /// The index at `path`, which may be missing. What is added to it later is not seen, so that
    /// it never names what a walk that begins afterwards cannot find.
    pub(super) fn open(path: &Path) -> Result<Witness, ReadError> {
        let mut witness = Witness::default();
        match File::open(path) {
            Ok(file) => witness.read(file).map_err(ReadError::at("read", path))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(ReadError::at("open", path)(error)),
        }
        Ok(witness)
    }

    fn read(&mut self, file: File) -> io::Result<()> {
        let mut reader = IndexReader::new(file);
        for number in 0.. {
            match reader.next()? {
                None => break,
                Some(Ok(entry)) => self.entries.push(entry),
                Some(Err(error)) => self.unreadable.push((number, error)),
            }
        }
        self.entries.sort_by_key(|entry| entry.offset);
        let align = RECORD_ALIGN as u64;
        let end = |entry: &IndexEntry| entry.end().checked_next_multiple_of(align);
        self.ends = self.entries.iter().map(|entry| end(entry).unwrap_or(u64::MAX)).collect();
        self.ends.sort_unstable();
        self.exists = true;
        Ok(())
    }

    /// Whether there is an index.
    pub(super) fn exists(&self) -> bool {
        self.exists
    }

    /// Whether it names anything.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Entries that cannot be believed: their numbers, and why.
    pub(super) fn unreadable(&self) -> &[(u64, IndexEntryError)] {
        &self.unreadable
    }

    /// Behind the last record that is named, in bytes; zero if none is.
    pub(super) fn named_end(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The first place behind `position` where a record that is named ends.
    pub(super) fn border(&self, position: u64) -> u64 {
        let place = self.ends.partition_point(|end| *end <= position);
        self.ends.get(place).copied().unwrap_or(u64::MAX)
    }

    /// Where the records end that are named, not yet taken off, and start below `end`.
    pub(super) fn reach_below(&self, end: u64) -> u64 {
        let named = self.entries[self.taken..].iter().take_while(|entry| entry.offset < end);
        named.map(IndexEntry::end).max().unwrap_or(0)
    }

    /// Takes off the entries of records that start below `end`.
    pub(super) fn take_below(&mut self, end: u64) -> &[IndexEntry] {
        let rest = &self.entries[self.taken..];
        let count = rest.partition_point(|entry| entry.offset < end);
        self.taken += count;
        &rest[..count]
    }

    /// Takes off all that are left.
    pub(super) fn take_rest(&mut self) -> &[IndexEntry] {
        let rest = &self.entries[self.taken..];
        self.taken = self.entries.len();
        rest
    }
}
