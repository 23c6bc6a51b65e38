//! Mending an archive after a crash: what lies behind both the last whole record of a segment and
//! the last one that its index names is cut off, and the index is made again. Nothing else is
//! changed, and doing it twice changes nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write as _};
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
    let mut index = Rebuilt::begin(&index_path, report.dry_run)?;
    let (mut after, mut cut) = (None, None);
    if let Err(error) = walk.scan().header() {
        report.damaged.add(segment.number, 0, error.to_string());
    }
    while let Some(step) = walk.next()? {
        match step {
            Step::Whole(entry) => {
                forget_below(&mut witness, &entry, &index_path)?;
                index.add(&entry.indexed())?;
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
    // First the index, which names nothing that is cut, then the cut: right whenever it is
    // interrupted.
    report.indexes_rebuilt += u64::from(index.finish(held)?);
    cut.map_or(Ok(()), |cut| report.cut(cut, &segment.path))
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
            index.add(&entry)?;
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

/// An index that is made again under another name, and takes the place of the old one only if it
/// differs.
struct Rebuilt {
    path: PathBuf,
    new_path: PathBuf,
    /// `None` in a dry run.
    new: Option<BufWriter<File>>,
    bytes: u64,
    crc: u32,
}

impl Rebuilt {
    fn begin(path: &Path, dry_run: bool) -> Result<Rebuilt, RecoverError> {
        let new_path = path.with_extension("idx.new");
        let new = if dry_run { None } else { Some(File::create(&new_path)) };
        let new = new.transpose().map_err(RecoverError::at("create", &new_path))?;
        let new = new.map(BufWriter::new);
        Ok(Rebuilt { path: path.to_owned(), new_path, new, bytes: 0, crc: 0 })
    }

    fn add(&mut self, entry: &IndexEntry) -> Result<(), RecoverError> {
        let bytes = entry.encode();
        self.bytes += bytes.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, &bytes);
        let Some(new) = &mut self.new else { return Ok(()) };
        new.write_all(&bytes).map_err(RecoverError::at("write", &self.new_path))
    }

    /// Puts the new index in place; whether it differs from the old one.
    fn finish(mut self, held: &Directory) -> Result<bool, RecoverError> {
        let old = digest(&self.path).map_err(RecoverError::at("read", &self.path))?;
        let differs = old != Some((self.bytes, self.crc));
        let Some(new) = self.new.as_mut().filter(|_| differs) else { return Ok(differs) };
        new.flush()
            .and_then(|()| new.get_ref().sync_all())
            .map_err(RecoverError::at("write", &self.new_path))?;
        fs::rename(&self.new_path, &self.path).map_err(RecoverError::at("replace", &self.path))?;
        self.new = None;
        held.sync().map_err(RecoverError::at("sync", held.path()))?;
        Ok(true)
    }
}

impl Drop for Rebuilt {
    /// Leaves nothing behind where the old index stays, for whatever reason.
    fn drop(&mut self) {
        if self.new.is_some()
            && let Err(error) = fs::remove_file(&self.new_path)
        {
            log::warn!("cannot remove {}: {error}", self.new_path.display());
        }
    }
}

/// Length and CRC-32C of a file, if it is there.
fn digest(path: &Path) -> io::Result<Option<(u64, u32)>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let (mut bytes, mut crc, mut buffer) = (0, 0, vec![0; 64 << 10]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Some((bytes, crc))),
            read => {
                bytes += read as u64;
                crc = crc32c::crc32c_append(crc, &buffer[..read]);
            }
        }
    }
}

#[cfg(test)]
mod tests;
