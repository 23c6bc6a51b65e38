//! A walk through a segment that reads everything, and tells damage in the middle from the tail
//! behind the last whole record and the last one that the index named.

use std::collections::VecDeque;
use std::path::Path;

use super::error::ReadError;
use super::index::IndexEntry;
use super::scan::{Entry, Extent, Found, SegmentScan};
use super::slot;
use super::witness::Witness;

/// What was read.
#[derive(Debug)]
pub(super) enum Step {
    /// A record whose header and body fit their checksums.
    Whole {
        /// The record.
        entry: Entry,
        /// What no driver would have written so, though the checksums fit.
        flaw: Option<Flaw>,
    },
    /// Bytes without a whole record, though one stands behind them, or stood in them by the index.
    Damaged(Extent),
    /// Everything behind the last whole record and, in the same damage, the last named one.
    Tail(Extent),
}

/// What is wrong with a record whose checksums fit.
#[derive(Debug)]
pub(super) struct Flaw {
    pub(super) what: String,
    /// The zeros behind the body, if nothing else is wrong: no checksum is over them.
    pub(super) padding: Option<Extent>,
}

/// The walk.
#[derive(Debug)]
pub(super) struct Walk {
    scan: SegmentScan,
    witness: Witness,
    record: Vec<u8>,
    bad: Bad,
    ready: VecDeque<Step>,
}

/// What was not whole since the last whole record.
#[derive(Debug, Default)]
struct Bad {
    /// Up to the end of the last record in it that the index names.
    named: Option<Extent>,
    /// Behind that.
    rest: Option<Extent>,
    /// Where the named records end.
    reach: u64,
    /// Where the records end whose headers are valid.
    torn_end: u64,
}

impl Walk {
    /// A walk through a segment and what its index says.
    pub(super) fn open(number: u32, path: &Path, witness: Witness) -> Result<Walk, ReadError> {
        let scan = SegmentScan::open(number, path)?;
        let (record, bad, ready) = (Vec::new(), Bad::default(), VecDeque::new());
        Ok(Walk { scan, witness, record, bad, ready })
    }

    pub(super) fn scan(&self) -> &SegmentScan {
        &self.scan
    }

    pub(super) fn witness(&self) -> &Witness {
        &self.witness
    }

    /// What stands next, and what the index names in it.
    pub(super) fn next(&mut self) -> Result<Option<(Step, &[IndexEntry])>, ReadError> {
        while self.ready.is_empty() {
            self.scan.split_at(self.witness.border(self.scan.position()));
            match self.scan.next()? {
                Some(Found::Record(entry)) => self.record(entry)?,
                Some(Found::Damaged(extent) | Found::Tail(extent)) => {
                    let reach = self.witness.reach_below(extent.end());
                    self.bad.add(extent, reach);
                }
                None => {
                    let Bad { named, rest, .. } = std::mem::take(&mut self.bad);
                    self.ready.extend(named.map(Step::Damaged));
                    self.ready.extend(rest.map(Step::Tail));
                    break;
                }
            }
        }
        let Some(step) = self.ready.pop_front() else { return Ok(None) };
        let end = match &step {
            Step::Whole { entry, .. } => entry.end(),
            Step::Damaged(extent) | Step::Tail(extent) => extent.end(),
        };
        Ok(Some((step, self.witness.take_below(end))))
    }

    /// What the index names behind the segment's end.
    pub(super) fn named_beyond(&mut self) -> &[IndexEntry] {
        self.witness.take_rest()
    }

    /// Reads a record; one that is not whole is damage.
    fn record(&mut self, entry: Entry) -> Result<(), ReadError> {
        match self.scan.read(&entry, &mut self.record) {
            Ok(()) => {
                let Bad { named, rest, .. } = std::mem::take(&mut self.bad);
                self.ready.extend(named.into_iter().chain(rest).map(Step::Damaged));
                self.ready.push_back(Step::Whole { entry, flaw: flaw(&entry, &self.record) });
            }
            Err(ReadError::Damaged { what, .. }) => {
                self.bad.torn_end = self.bad.torn_end.max(entry.end());
                self.scan.reject(&entry, what);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl Bad {
    /// Takes in what follows. The named records in the damage, up to its end, reach to `reach`; a torn
    /// one that begins in front of that stays to its own end.
    fn add(&mut self, extent: Extent, reach: u64) {
        self.reach = self.reach.max(reach);
        if extent.offset >= self.reach {
            return join(&mut self.rest, extent);
        }
        self.reach = self.reach.max(self.torn_end);
        let rest = self.rest.take();
        rest.into_iter().chain([extent]).for_each(|extent| join(&mut self.named, extent));
    }
}

fn join(before: &mut Option<Extent>, next: Extent) {
    match before {
        Some(before) => before.join(&next),
        None => *before = Some(next),
    }
}

fn flaw(entry: &Entry, record: &[u8]) -> Option<Flaw> {
    let what = |error| format!("record of sequence {}: {error}", entry.header.sequence);
    if let Err(error) = slot::check_body(&entry.header, record) {
        return Some(Flaw { what: what(error), padding: None });
    }
    let what = slot::check_padding(&entry.header, record).err().map(what)?;
    let offset = entry.offset + slot::body_end(&entry.header) as u64;
    let padding = Extent {
        segment: entry.segment,
        offset,
        bytes: entry.end() - offset,
        zeros: false,
        records: 0,
        sequence: Some(entry.header.sequence),
        what: what.clone(),
    };
    Some(Flaw { what, padding: Some(padding) })
}
