//! The disk under an archive. Whatever changes there is changed by these calls and no others, so
//! that a test can stand between the archive and its disk, and cut the power.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::libc::off_t;

/// A file of an archive, open for writing.
#[derive(Debug)]
pub(super) struct DiskFile(File);

impl DiskFile {
    /// An empty file in the place of whatever has the name.
    pub(super) fn create(path: &Path, flags: i32) -> io::Result<DiskFile> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).custom_flags(flags);
        options.open(path).map(DiskFile)
    }

    /// An empty file where nothing has the name.
    pub(super) fn create_new(path: &Path) -> io::Result<DiskFile> {
        OpenOptions::new().write(true).create_new(true).open(path).map(DiskFile)
    }

    /// A file that is there.
    pub(super) fn open(path: &Path) -> io::Result<DiskFile> {
        OpenOptions::new().write(true).open(path).map(DiskFile)
    }

    /// Writes some of the bytes.
    pub(super) fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    /// Writes all of the bytes.
    pub(super) fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    /// Reserves space, and with it the file's size.
    pub(super) fn reserve(&self, offset: u64, bytes: u64) -> Result<(), Errno> {
        let (offset, bytes) = (off_t::try_from(offset), off_t::try_from(bytes));
        let (Ok(offset), Ok(bytes)) = (offset, bytes) else { return Err(Errno::EFBIG) };
        fallocate(&self.0, FallocateFlags::empty(), offset, bytes)
    }

    pub(super) fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    /// Makes sure that what was written survives a power cut.
    pub(super) fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    /// The same of the file's size, too.
    pub(super) fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

impl AsRawFd for DiskFile {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Gives a file another name, in the place of whatever has it.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

pub(super) fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path)
}

/// Makes sure that names made or changed in a directory survive a power cut.
pub(super) fn sync_names(dir: &File) -> io::Result<()> {
    dir.sync_all()
}

#[cfg(test)]
impl From<File> for DiskFile {
    fn from(file: File) -> DiskFile {
        DiskFile(file)
    }
}
