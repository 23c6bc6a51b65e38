//! The segment that is being written, and the index beside it.

use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;

use super::directory::Directory;
use super::error::ArchiveError;
use super::index::{IndexEntry, IndexFile};
use super::segment::{SEGMENT_HEADER_BYTES, SegmentHeader};
use super::store::{self, DiskFile};
use crate::slab::SlabPool;

/// Disk space is reserved in steps as large as what was written before, within these limits in bytes:
/// for each step the file system lets all writes in flight end.
const STEP_BYTES: RangeInclusive<u64> = 64 << 20..=512 << 20;
const FIRST_RECORD: u64 = SEGMENT_HEADER_BYTES as u64;

/// A segment open for writing.
#[derive(Debug)]
pub(super) struct SegmentFile {
    path: PathBuf,
    file: Arc<DiskFile>,
    /// Written past the page cache.
    direct: bool,
    index: Option<IndexFile>,
    /// Monotonic time of creation.
    opened_ns: u64,
    /// Where the next record goes.
    end: u64,
    /// Behind the last record that is confirmed.
    confirmed: u64,
    /// Up to where space is reserved; none is reserved where the file system cannot.
    allocated: Option<u64>,
    /// The largest step, smaller once the disk had no room for one.
    step_bytes_max: u64,
}

impl SegmentFile {
    /// Makes a segment and its index, durably. It appears under its name with its header in place.
    pub(super) fn create(
        dir: &Directory,
        header: &SegmentHeader,
        with_index: bool,
        opened_ns: u64,
    ) -> Result<SegmentFile, ArchiveError> {
        let path = dir.segment(header.number);
        let new = path.with_extension("cbs.new");
        if path.exists() {
            return Err(ArchiveError::at("create", &path)(io::ErrorKind::AlreadyExists.into()));
        }
        let (file, direct) = write_header(&new, header)
            .inspect_err(|_| discard(&new))
            .map_err(ArchiveError::at("create", &new))?;
        store::rename(&new, &path).map_err(ArchiveError::at("create", &path))?;
        let index = with_index.then(|| create_index(&dir.index(header.number))).transpose();
        let index = index.inspect_err(|_| discard(&path))?;
        dir.sync().map_err(ArchiveError::at("sync", dir.path())).inspect_err(|_| {
            if let Err(error) = remove_both(dir, header.number) {
                log::debug!("cannot remove {}: {error}", path.display());
            }
        })?;
        Ok(SegmentFile {
            path,
            file: Arc::new(file),
            direct,
            index,
            opened_ns,
            end: FIRST_RECORD,
            confirmed: FIRST_RECORD,
            allocated: Some(FIRST_RECORD),
            step_bytes_max: *STEP_BYTES.end(),
        })
    }

    /// Removes what a failed attempt could not remove.
    pub(super) fn remove_leftover(dir: &Directory, number: u32) -> Result<(), ArchiveError> {
        remove_both(dir, number).map_err(ArchiveError::at("remove", &dir.segment(number)))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self) -> &Arc<DiskFile> {
        &self.file
    }

    pub(super) fn is_direct(&self) -> bool {
        self.direct
    }

    pub(super) fn opened_ns(&self) -> u64 {
        self.opened_ns
    }

    /// Where the next record goes, which is how large the segment is.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// No record has been put into it.
    pub(super) fn is_empty(&self) -> bool {
        self.end == FIRST_RECORD
    }

    /// Gives a record its place.
    ///
    /// Space is reserved with the file's size: only then do direct writes run without changing the
    /// inode, which costs ten times the processor time. A segment that was not sealed therefore ends
    /// in zeros.
    pub(super) fn place(&mut self, record_bytes: u64, segment_bytes: u64) -> u64 {
        let offset = self.end;
        self.end += record_bytes;
        if self.allocated.is_some_and(|allocated| allocated < self.end) {
            let step = offset.max(*STEP_BYTES.start());
            let step = step.min(segment_bytes.saturating_sub(offset));
            self.allocated = self.reserve(offset, step, record_bytes);
        }
        offset
    }

    /// Reserves a step, or as much of it as there is room for, and tells up to where space is reserved then.
    /// Where there is none the record is tried all the same.
    fn reserve(&mut self, offset: u64, step: u64, record_bytes: u64) -> Option<u64> {
        loop {
            let bytes = step.min(self.step_bytes_max).max(record_bytes);
            match self.file.reserve(offset, bytes) {
                Ok(()) => return Some(offset + bytes),
                Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => return None,
                Err(_) if bytes > record_bytes => self.step_bytes_max = bytes / 2,
                Err(_) => return Some(offset + record_bytes),
            }
        }
    }

    /// Makes records that are written part of the segment. With `sync` they are synced, and then
    /// named by the index; without, their names wait for the next sync.
    ///
    /// # Errors
    /// If the segment cannot be synced. An index that cannot be written is given up: it can be made
    /// again, the frames cannot; the error is handed to `index_error`.
    pub(super) fn confirm<'a>(
        &mut self,
        entries: impl Iterator<Item = &'a IndexEntry>,
        sync: bool,
        index_error: impl FnOnce(io::Error),
    ) -> io::Result<()> {
        if sync {
            self.file.sync_data()?;
        }
        if let Some(index) = &mut self.index {
            index.hold(entries);
        }
        if sync {
            self.write_names(index_error);
        }
        Ok(())
    }

    /// Records whose names wait for a sync.
    pub(super) fn unnamed(&self) -> usize {
        self.index.as_ref().map_or(0, IndexFile::held)
    }

    /// Leaves the records unnamed whose names wait for a sync: one has failed.
    pub(super) fn forget_names(&mut self) {
        if let Some(index) = &mut self.index {
            index.forget();
        }
    }

    /// Writes the names that have waited. Their records are synced.
    fn write_names(&mut self, index_error: impl FnOnce(io::Error)) {
        let Some(index) = self.index.as_mut().filter(|index| index.held() > 0) else { return };
        let mut written = index.write_held();
        if written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::StorageFull) {
            // What is reserved for records to come may be all the room there is.
            self.allocated = self.allocated.map(|_| self.end);
            written = self.file.set_len(self.end).and_then(|()| index.write_held());
        }
        if let Err(error) = written.and_then(|()| index.sync()) {
            let cut = index.cut();
            self.index = None;
            index_error(cut.err().unwrap_or(error));
        }
    }

    /// How far the segment is confirmed.
    pub(super) fn confirmed_to(&mut self, end: u64) {
        assert!(self.confirmed <= end && end <= self.end, "records are confirmed in their order");
        self.confirmed = end;
    }

    /// Gives back what is reserved behind the last whole record, so that a full disk has room for
    /// the index.
    pub(super) fn release(&self, records: impl Iterator<Item = u64>) -> io::Result<()> {
        self.file.set_len(self.confirmed + records.sum::<u64>())
    }

    /// From here on nothing can be synced or cut.
    #[cfg(test)]
    pub(super) fn fail_syncs(&mut self) {
        let null = std::fs::File::open("/dev/null").expect("every system has it");
        self.file = Arc::new(null.into());
    }

    /// Cuts the segment behind its last confirmed record and makes it and its index durable.
    ///
    /// # Errors
    /// As [`SegmentFile::confirm`].
    pub(super) fn seal(mut self, index_error: impl FnOnce(io::Error)) -> io::Result<()> {
        self.end = self.confirmed;
        self.file.set_len(self.confirmed)?;
        self.file.sync_all()?;
        self.write_names(index_error);
        Ok(())
    }

    /// Ends a segment that failed as well as the disk allows, and tells whether it is to stay.
    ///
    /// The `whole_bytes` behind the last confirmed record were written, but could not be synced:
    /// their records may be there nevertheless, and recovery finds out.
    pub(super) fn abandon(
        mut self,
        dir: &Directory,
        number: u32,
        whole_bytes: u64,
        index_error: impl FnOnce(io::Error),
    ) -> (bool, io::Result<()>) {
        self.confirmed += whole_bytes;
        if self.confirmed > FIRST_RECORD {
            return (true, self.seal(index_error));
        }
        // A full disk would otherwise collect an empty segment with every try.
        (false, remove_both(dir, number))
    }
}

/// Makes a file with the header in place; past the page cache where that works.
fn write_header(path: &Path, header: &SegmentHeader) -> io::Result<(DiskFile, bool)> {
    let pool = SlabPool::new(1 << 20);
    let mut block = pool.take(SEGMENT_HEADER_BYTES).ok_or(io::ErrorKind::OutOfMemory)?;
    header.encode(&mut block);
    let attempt = |flags| -> io::Result<DiskFile> {
        let file = DiskFile::create(path, flags)?;
        file.write_all_at(&block[..SEGMENT_HEADER_BYTES], 0)?;
        file.sync_all()?;
        Ok(file)
    };
    match attempt(libc::O_DIRECT) {
        // tmpfs of older kernels refuses at open, other file systems at the first write.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok((attempt(0)?, false)),
        direct => direct.map(|file| (file, true)),
    }
}

fn create_index(path: &Path) -> Result<IndexFile, ArchiveError> {
    let file = DiskFile::create_new(path).map_err(ArchiveError::at("create", path))?;
    let synced = file.sync_all().inspect_err(|_| discard(path));
    synced.map_err(ArchiveError::at("sync", path))?;
    Ok(IndexFile::new(file))
}

/// Removes what an attempt left behind; that it failed is what the caller reports.
fn discard(path: &Path) {
    if let Err(error) = store::remove(path) {
        log::debug!("cannot remove {}: {error}", path.display());
    }
}

/// Removes a segment as far as it is there, its index first: none ever stands alone.
fn remove_both(dir: &Directory, number: u32) -> io::Result<()> {
    for path in [dir.index(number), dir.segment(number)] {
        match store::remove(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    Ok(())
}
