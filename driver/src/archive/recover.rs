//! Mending an archive after a crash. A record that is not whole and that no index names was never
//! finished: at the end of a segment it is cut off, and in front of a whole one, where several
//! writes were in flight, it is erased, which leaves a hole as if it had never been begun. Then the
//! index is made again. Nothing else is changed, and doing it twice changes nothing.
//!
//! A record is whole if its header and body fit their checksums: it was delivered so, and stays,
//! whatever is in it; what no driver should have delivered is told. No checksum is over the zeros
//! behind the body; where those alone are torn, they are zeros again.
//!
//! A record that the index names was finished. If it is not whole now, it is damaged: it stays, is
//! told, and stays named. Where a segment has no index, only that of the last one can have been
//! written when the crash came; in the others everything is taken for finished, and where some of it
//! is damaged no index is made, because it could not name that.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::directory::{Directory, HoldError};
use super::error::RecoverError;
use super::index::IndexEntry;
use super::reader::{ArchiveReader, SegmentPath, indexes};
use super::scan::{Entry, Extent};
use super::segment::INDEX_SUFFIX;
use super::store::{self, DiskFile};
use super::verify::{Problems, not_whole};
use super::walk::{Flaw, Step, Walk};
use super::witness::Witness;
use crate::record::RecordKind;

/// Zeros are written in pieces of this size.
const ERASE_BYTES: usize = 1 << 20;

/// Bytes that were, or would be, cut off a segment or erased in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cut {
    /// What they were, and what is wrong at their beginning.
    #[serde(flatten)]
    pub extent: Extent,
    /// Number of the last frame that stays in front of it, if there is one in the segment.
    pub after: Option<u64>,
}

/// What a recovery did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct RecoverReport {
    /// Nothing was changed.
    pub dry_run: bool,
    /// Segments read.
    pub segments: u64,
    /// Whole frames, all of which stay.
    pub frames: u64,
    /// Whole loss records, all of which stay.
    pub losses: u64,
    /// What was cut.
    pub cuts: Vec<Cut>,
    /// Bytes cut in all.
    pub bytes_cut: u64,
    /// What was erased in front of whole records.
    pub erased: Vec<Cut>,
    /// Bytes erased in all.
    pub bytes_erased: u64,
    /// Records cut or erased that were begun and are not whole.
    pub records_torn: u64,
    /// Indexes made again because they were missing or did not agree. Where damage stays in a segment
    /// that has none, none is made: it would witness that nothing was there.
    pub indexes_rebuilt: u64,
    /// Indexes removed that named nothing and had no segment: one whose making was interrupted.
    pub indexes_removed: u64,
    /// Records that the index names and that are not whole, and what is not whole in a segment
    /// without an index that is not the last one. It stays, and so do the entries that name it.
    #[serde(flatten)]
    pub damaged: Problems,
}

impl RecoverReport {
    /// Counts a whole record; its number if it is a frame.
    fn whole(&mut self, entry: &Entry) -> Option<u64> {
        match entry.header.kind {
            RecordKind::Frame => {
                self.frames += 1;
                Some(entry.header.sequence)
            }
            RecordKind::Loss => {
                self.losses += 1;
                None
            }
        }
    }

    /// Cuts and erases what was never finished.
    fn remove(&mut self, unfinished: Unfinished, path: &Path) -> Result<(), RecoverError> {
        if !self.dry_run && !unfinished.is_empty() {
            unfinished.remove(path).map_err(RecoverError::at("cut", path))?;
        }
        let Unfinished { tail, inner } = unfinished;
        self.bytes_cut += tail.iter().map(|cut| cut.extent.bytes).sum::<u64>();
        self.bytes_erased += inner.iter().map(|cut| cut.extent.bytes).sum::<u64>();
        self.records_torn += tail.iter().chain(&inner).map(|cut| cut.extent.records).sum::<u64>();
        self.cuts.extend(tail);
        self.erased.extend(inner);
        Ok(())
    }
}

/// Mends the archive in `dir`; with `dry_run`, only tells what would be done. `progress` is told
/// the bytes read and the bytes in all.
///
/// # Errors
/// If there is no archive, it is being written, is of another version, or a file cannot be read or
/// written. What was done until then stays done and is right.
pub fn recover(
    dir: &Path,
    dry_run: bool,
    mut progress: impl FnMut(u64, u64),
) -> Result<RecoverReport, RecoverError> {
    // In this order, so that what is no archive is called so.
    ArchiveReader::open(dir)?;
    let held = Directory::hold(dir).map_err(|error| match error {
        HoldError::Busy => RecoverError::Busy { dir: dir.to_owned() },
        HoldError::Io(source) => RecoverError::at("open", dir)(source),
    })?;
    let archive = ArchiveReader::open(dir)?;
    let mut report = RecoverReport { dry_run, ..RecoverReport::default() };
    let (total, mut done) = (archive.bytes(), 0);
    remove_orphans(&archive, &held, &mut report)?;
    let last = archive.segments().last().map(|segment| segment.number);
    for segment in archive.segments() {
        let is_last = last == Some(segment.number);
        let mut progress = |bytes| progress(done + bytes, total);
        recover_segment(segment, is_last, &held, &mut report, &mut progress)?;
        done += segment.bytes;
        report.segments += 1;
    }
    Ok(report)
}

/// Removes indexes without a segment that name nothing. One that names something is a witness.
fn remove_orphans(
    archive: &ArchiveReader,
    held: &Directory,
    report: &mut RecoverReport,
) -> Result<(), RecoverError> {
    for number in indexes(held.path())? {
        let path = held.index(number);
        if archive.segments().iter().any(|segment| segment.number == number) {
            continue;
        }
        if !Witness::open(&path)?.is_empty() {
            report.damaged.add(number, 0, "an index without its segment");
            continue;
        }
        if !report.dry_run {
            store::remove(&path).map_err(RecoverError::at("remove", &path))?;
        }
        report.indexes_removed += 1;
    }
    Ok(())
}

fn recover_segment(
    segment: &SegmentPath,
    is_last: bool,
    held: &Directory,
    report: &mut RecoverReport,
    progress: &mut impl FnMut(u64),
) -> Result<(), RecoverError> {
    let index_path = segment.path.with_extension(INDEX_SUFFIX);
    let mut walk = Walk::open(segment.number, &segment.path, Witness::open(&index_path)?)?;
    let may_be_unfinished = walk.witness().exists() || is_last;
    let mut mending = Mending {
        number: segment.number,
        may_be_unfinished,
        after: None,
        unfinished: Unfinished::default(),
        index: Rebuilt { path: index_path, entries: Vec::new() },
        unnamed_stays: false,
        report: &mut *report,
    };
    if let Err(error) = walk.scan().header() {
        mending.damage(0, error.to_string());
    }
    while let Some((step, named)) = walk.next()? {
        mending.step(step, named);
        progress(walk.scan().position());
    }
    mending.keep_named(walk.named_beyond());
    let Mending { unfinished, index, unnamed_stays, .. } = mending;
    // First the cut, of what no index names: on a full disk it makes room for the index.
    report.remove(unfinished, &segment.path)?;
    if !unnamed_stays {
        report.indexes_rebuilt += u64::from(index.finish(report.dry_run, held)?);
    }
    Ok(())
}

/// What becomes of a segment, step by step.
struct Mending<'a> {
    number: u32,
    /// What is not whole and not named was never finished.
    may_be_unfinished: bool,
    /// Number of the last frame.
    after: Option<u64>,
    unfinished: Unfinished,
    index: Rebuilt,
    /// Damage stays that an index could not name: as a witness, it would say that nothing was there.
    unnamed_stays: bool,
    report: &'a mut RecoverReport,
}

impl Mending<'_> {
    fn step(&mut self, step: Step, named: &[IndexEntry]) {
        match step {
            // It speaks for itself, whatever the index says of it.
            Step::Whole { entry, flaw } => {
                self.index.add(&entry.indexed());
                self.after = self.report.whole(&entry).or(self.after);
                let is_named = named.iter().any(|named| named.offset == entry.offset);
                if let Some(flaw) = flaw {
                    self.flaw(&entry, flaw, is_named);
                }
            }
            // What was reserved and never written is neither damage nor unfinished.
            Step::Damaged(extent) if extent.zeros => self.keep_named(named),
            Step::Damaged(extent) if !named.is_empty() => {
                self.damage(extent.offset, extent.what);
                self.keep_named(named);
            }
            Step::Damaged(extent) if self.may_be_unfinished => self.erase(extent),
            Step::Tail(extent) if extent.zeros || self.may_be_unfinished => {
                self.unfinished.tail = Some(Cut { extent, after: self.after });
            }
            Step::Damaged(extent) | Step::Tail(extent) => {
                self.unnamed_stays = true;
                self.damage(extent.offset, extent.what);
            }
        }
    }

    fn flaw(&mut self, entry: &Entry, flaw: Flaw, is_named: bool) {
        match flaw.padding.filter(|_| self.may_be_unfinished && !is_named) {
            Some(padding) => self.erase(padding),
            None => self.damage(entry.offset, flaw.what),
        }
    }

    fn erase(&mut self, extent: Extent) {
        self.unfinished.inner.push(Cut { extent, after: self.after });
    }

    fn damage(&mut self, offset: u64, what: String) {
        self.report.damaged.add(self.number, offset, what);
    }

    /// Keeps in the index what it names where no whole record stands: it is the witness that one did.
    fn keep_named(&mut self, named: &[IndexEntry]) {
        for entry in named {
            self.index.add(entry);
            self.damage(entry.offset, not_whole(entry.sequence));
        }
    }
}

/// What was begun in a segment and never finished.
#[derive(Debug, Default)]
struct Unfinished {
    /// Behind the last record.
    tail: Option<Cut>,
    /// In front of whole records.
    inner: Vec<Cut>,
}

impl Unfinished {
    fn is_empty(&self) -> bool {
        self.tail.is_none() && self.inner.is_empty()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let file = DiskFile::open(path)?;
        for Cut { extent, .. } in &self.inner {
            erase(&file, extent)?;
        }
        if let Some(cut) = &self.tail {
            file.set_len(cut.extent.offset)?;
        }
        file.sync_all()
    }
}

fn erase(file: &DiskFile, extent: &Extent) -> io::Result<()> {
    let zeros = vec![0; ERASE_BYTES];
    let mut offset = extent.offset;
    while offset < extent.end() {
        let bytes = (extent.end() - offset).min(ERASE_BYTES as u64);
        file.write_all_at(&zeros[..bytes as usize], offset)?;
        offset += bytes;
    }
    Ok(())
}

/// An index that is made again: 64 bytes in memory for each record of a segment. It takes the place
/// of the old one only if it differs.
struct Rebuilt {
    path: PathBuf,
    entries: Vec<u8>,
}

impl Rebuilt {
    fn add(&mut self, entry: &IndexEntry) {
        self.entries.extend(entry.encode());
    }

    /// Puts the new index in place; whether it differs from the old one.
    fn finish(self, dry_run: bool, held: &Directory) -> Result<bool, RecoverError> {
        let old = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            old => Some(old.map_err(RecoverError::at("read", &self.path))?),
        };
        let differs = old.as_deref() != Some(&self.entries);
        if differs && !dry_run {
            self.replace()?;
            held.sync().map_err(RecoverError::at("sync", held.path()))?;
        }
        Ok(differs)
    }

    fn replace(&self) -> Result<(), RecoverError> {
        let new_path = self.path.with_extension("idx.new");
        let written = DiskFile::create(&new_path, 0).and_then(|file| {
            file.write_all_at(&self.entries, 0)?;
            file.sync_all()
        });
        if let Err(error) = written {
            // It is of no use, and takes room where there may be none.
            let _gone = store::remove(&new_path);
            return Err(RecoverError::at("write", &new_path)(error));
        }
        store::rename(&new_path, &self.path).map_err(RecoverError::at("replace", &self.path))
    }
}

#[cfg(test)]
mod tests;
