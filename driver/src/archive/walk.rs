//! A walk through a segment that reads everything, and tells damage in the middle from the tail
//! behind the last whole record and the last one that the index named.

use std::path::Path;

use super::error::ReadError;
use super::scan::{Entry, Extent, Found, SegmentScan};
use super::slot;

/// What was read.
#[derive(Debug)]
pub(super) enum Step {
    /// A record whose header and body fit their checksums; its bytes are in [`Walk::record`].
    Whole(Entry),
    /// Bytes without a whole record, though one stands behind them, or stood in them or behind
    /// them by the index.
    Damaged(Extent),
    /// Everything behind the last whole record and the last named one.
    Tail(Extent),
}

/// The walk.
#[derive(Debug)]
pub(super) struct Walk {
    scan: SegmentScan,
    record: Vec<u8>,
    /// What was not whole since the last whole record.
    bad: Option<Extent>,
    /// A whole record that waits for the damage in front of it to be told.
    held: Option<Entry>,
    /// Behind the last record that the index names.
    named_end: u64,
}

impl Walk {
    /// A walk through a segment whose index names records up to `named_end`.
    pub(super) fn open(number: u32, path: &Path, named_end: u64) -> Result<Walk, ReadError> {
        let scan = SegmentScan::open(number, path)?.split_at(named_end);
        Ok(Walk { scan, record: Vec::new(), bad: None, held: None, named_end })
    }

    pub(super) fn scan(&self) -> &SegmentScan {
        &self.scan
    }

    pub(super) fn next(&mut self) -> Result<Option<Step>, ReadError> {
        if let Some(entry) = self.held.take() {
            return Ok(Some(Step::Whole(entry)));
        }
        while let Some(found) = self.scan.next()? {
            let bad = match found {
                Found::Damaged(extent) | Found::Tail(extent) => extent,
                Found::Record(entry) => match self.read(&entry)? {
                    Ok(()) => return Ok(Some(self.whole(entry))),
                    Err(what) => torn(&entry, what),
                },
            };
            if let Some(named) = self.take_bad(bad) {
                return Ok(Some(Step::Damaged(named)));
            }
        }
        Ok(self.bad.take().map(|bad| match bad.offset < self.named_end {
            true => Step::Damaged(bad),
            false => Step::Tail(bad),
        }))
    }

    /// Reads a record; what is wrong if it is not whole to the last byte of its padding.
    fn read(&mut self, entry: &Entry) -> Result<Result<(), String>, ReadError> {
        match self.scan.read(entry, &mut self.record) {
            Ok(()) => Ok(slot::check(&entry.header, &self.record)
                .map_err(|error| format!("record of sequence {}: {error}", entry.header.sequence))),
            Err(ReadError::Damaged { what, .. }) => Ok(Err(what)),
            Err(error) => Err(error),
        }
    }

    /// Takes in what is not whole; what is in front of it if the border of the index is between.
    fn take_bad(&mut self, bad: Extent) -> Option<Extent> {
        match &mut self.bad {
            Some(before) if before.offset < self.named_end && bad.offset >= self.named_end => {
                self.bad.replace(bad)
            }
            Some(before) => {
                before.join(&bad);
                None
            }
            None => {
                self.bad = Some(bad);
                None
            }
        }
    }

    fn whole(&mut self, entry: Entry) -> Step {
        match self.bad.take() {
            None => Step::Whole(entry),
            Some(bad) => {
                self.held = Some(entry);
                Step::Damaged(bad)
            }
        }
    }
}

/// The extent of a record whose header is valid and whose body is not.
fn torn(entry: &Entry, what: String) -> Extent {
    Extent {
        segment: entry.segment,
        offset: entry.offset,
        bytes: entry.end() - entry.offset,
        zeros: false,
        records: 1,
        sequence: Some(entry.header.sequence),
        what,
    }
}
