//! Mending an archive after a crash: what lies behind both the last whole record of a segment and
//! the last one that its index names is cut off, and the index is made again. Nothing else is
//! changed, and doing it twice changes nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::directory::{Directory, HoldError};
use super::error::RecoverError;
use super::index::IndexEntry;
use super::reader::{ArchiveReader, SegmentPath};
use super::scan::{Entry, Extent};
use super::segment::INDEX_SUFFIX;
use super::verify::{Problems, not_whole};
use super::walk::{Step, Walk};
use super::witness::{Named, Witness};
use crate::record::RecordKind;

/// Bytes that were, or would be, cut off a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cut {
    /// What was cut, and what is wrong at its beginning.
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
    /// Records cut that were begun and are not whole.
    pub records_torn: u64,
    /// Indexes made again because they were missing or did not agree.
    pub indexes_rebuilt: u64,
    /// Damage in front of whole records, and records that the index names and that are not whole.
    /// It stays, and so do the entries that name it.
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

    fn cut(&mut self, cut: Cut, path: &Path) -> Result<(), RecoverError> {
        if !self.dry_run {
            cut_off(path, cut.extent.offset).map_err(RecoverError::at("cut", path))?;
        }
        self.bytes_cut += cut.extent.bytes;
        self.records_torn += cut.extent.records;
        self.cuts.push(cut);
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
    for segment in archive.segments() {
        recover_segment(segment, &held, &mut report, &mut |bytes| progress(done + bytes, total))?;
        done += segment.bytes;
        report.segments += 1;
    }
    Ok(report)
}

fn recover_segment(
    segment: &SegmentPath,
    held: &Directory,
    report: &mut RecoverReport,
    progress: &mut impl FnMut(u64),
) -> Result<(), RecoverError> {
    let index_path = segment.path.with_extension(INDEX_SUFFIX);
    let mut witness = Witness::open(&index_path)?;
    let mut walk = Walk::open(segment.number, &segment.path, witness.named_end())?;
    let mut index = Rebuilt { path: index_path.clone(), entries: Vec::new() };
    let (mut after, mut cut) = (None, None);
    if let Err(error) = walk.scan().header() {
        report.damaged.add(segment.number, 0, error.to_string());
    }
    while let Some(step) = walk.next()? {
        match step {
            Step::Whole(entry) => {
                forget_below(&mut witness, &entry, &index_path)?;
                index.add(&entry.indexed());
                after = report.whole(&entry).or(after);
            }
            Step::Damaged(extent) => {
                // What was reserved and never written is no damage.
                if !extent.zeros {
                    report.damaged.add(extent.segment, extent.offset, &*extent.what);
                }
                keep_named(&mut witness, segment.number, extent.end(), &mut index, report)?;
            }
            Step::Tail(extent) => cut = Some(Cut { extent, after }),
        }
        progress(walk.scan().position());
    }
    keep_named(&mut witness, segment.number, u64::MAX, &mut index, report)?;
    // First the cut, of what no index names: on a full disk it makes room for the index.
    if let Some(cut) = cut {
        report.cut(cut, &segment.path)?;
    }
    report.indexes_rebuilt += u64::from(index.finish(report.dry_run, held)?);
    Ok(())
}

/// Takes off what the index says up to the end of a whole record, which speaks for itself.
fn forget_below(
    witness: &mut Witness,
    entry: &Entry,
    index_path: &Path,
) -> Result<(), RecoverError> {
    let mut take = || witness.take_below(entry.end());
    while take().map_err(RecoverError::at("read", index_path))?.is_some() {}
    Ok(())
}

/// Keeps in the index what it names up to `end` where no whole record stands: it is the witness
/// that one did.
fn keep_named(
    witness: &mut Witness,
    segment: u32,
    end: u64,
    index: &mut Rebuilt,
    report: &mut RecoverReport,
) -> Result<(), RecoverError> {
    while let Some(named) =
        witness.take_below(end).map_err(RecoverError::at("read", &index.path))?
    {
        if let Named::Record(entry) = named {
            index.add(&entry);
            report.damaged.add(segment, entry.offset, not_whole(entry.sequence));
        }
    }
    Ok(())
}

fn cut_off(path: &Path, bytes: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(bytes)?;
    file.sync_all()
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
        let written = File::create(&new_path).and_then(|mut file| {
            file.write_all(&self.entries)?;
            file.sync_all()
        });
        if let Err(error) = written {
            // It is of no use, and takes room where there may be none.
            let _gone = fs::remove_file(&new_path);
            return Err(RecoverError::at("write", &new_path)(error));
        }
        fs::rename(&new_path, &self.path).map_err(RecoverError::at("replace", &self.path))
    }
}

#[cfg(test)]
mod tests;
