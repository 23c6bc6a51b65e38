//! Ring files and character devices, as far as they are files: opening, size, identity.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use circbuf_abi::registers::FILE_SUFFIX;
use nix::fcntl::{Flock, FlockArg};

use super::{DeviceError, Node, OpenError};

/// An open ring file and what it takes to notice that another one stands in its place.
#[derive(Debug)]
pub(super) struct RingFile {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) device: u64,
    pub(super) inode: u64,
    /// Number of a character device, which may have several names that are no links.
    special: Option<u64>,
}

impl RingFile {
    pub(super) fn open(path: &Path) -> Result<RingFile, OpenError> {
        let fail = |action| move |source| OpenError::Io { path: path.to_owned(), action, source };
        // A FIFO without a writer would otherwise block the open for ever.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(path)
            .map_err(fail("open it for reading"))?;
        let metadata = file.metadata().map_err(fail("look at it"))?;
        if let Some(kind) = refused_kind(&metadata.file_type()) {
            return Err(OpenError::Kind { path: path.to_owned(), kind });
        }
        let special = metadata.file_type().is_char_device().then(|| metadata.rdev());
        let (device, inode) = (metadata.dev(), metadata.ino());
        Ok(RingFile { path: path.to_owned(), file, device, inode, special })
    }

    /// Whether the other one is this under another name.
    pub(super) fn is_same(&self, other: &RingFile) -> bool {
        let is_same_device = self.special.is_some() && self.special == other.special;
        is_same_device || (self.device, self.inode) == (other.device, other.inode)
    }

    /// The node, if it is a character device.
    pub(super) fn node(&self, path: &Path) -> Result<Option<Node>, OpenError> {
        let fail = |source| OpenError::Io { path: path.to_owned(), action: "look at it", source };
        match self.file.metadata().map_err(fail)?.file_type().is_char_device() {
            true => Ok(Some(Node::new(self.file.try_clone().map_err(fail)?))),
            false => Ok(None),
        }
    }

    pub(super) fn registers_path(&self) -> PathBuf {
        registers_path(&self.path)
    }

    /// Whether nobody holds an exclusive lock on the file. It is opened once more, and not by its
    /// path: a lock belongs to an open file, and another ring may stand at the path by now.
    pub(super) fn is_unlocked(&self) -> bool {
        let same = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let Ok(again) = File::open(same) else { return false };
        Flock::lock(again, FlockArg::LockSharedNonblock).is_ok()
    }

    pub(super) fn check(&self, ring_bytes: u64) -> Result<(), DeviceError> {
        let replaced = |how| DeviceError::Replaced { path: self.path.clone(), how };
        let there = std::fs::metadata(&self.path).map_err(|_| replaced("removed"))?;
        if (there.dev(), there.ino()) != (self.device, self.inode) {
            return Err(replaced("replaced"));
        }
        if there.is_file() && there.len() < ring_bytes {
            return Err(DeviceError::Truncated { path: self.path.clone() });
        }
        Ok(())
    }
}

fn refused_kind(kind: &std::fs::FileType) -> Option<&'static str> {
    match kind {
        kind if kind.is_file() || kind.is_char_device() => None,
        kind if kind.is_dir() => Some("directory"),
        kind if kind.is_block_device() => Some("block device"),
        kind if kind.is_fifo() => Some("pipe"),
        _ => Some("socket"),
    }
}

/// The name of the register page beside the ring at `path`.
#[must_use]
pub fn registers_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(FILE_SUFFIX);
    PathBuf::from(name)
}

/// Opens a register page; `None` if there is none.
pub(super) fn open_registers(path: &Path) -> Result<Option<File>, OpenError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => {
            Err(OpenError::Io { path: path.to_owned(), action: "open it for reading", source })
        }
    }
}

/// Size of a file, or of a device that tells it by its end as a camera's node does.
pub(super) fn size(path: &Path, file: &impl AsFd) -> Result<u64, OpenError> {
    let fail = |source| OpenError::Io { path: path.to_owned(), action: "learn its size", source };
    let mut file = File::from(file.as_fd().try_clone_to_owned().map_err(fail)?);
    let told = file.metadata().map_err(fail)?.len();
    if told > 0 {
        return Ok(told);
    }
    match file.seek(SeekFrom::End(0)).map_err(fail)? {
        0 if file.metadata().is_ok_and(|metadata| metadata.file_type().is_char_device()) => {
            Err(OpenError::Kind { path: path.to_owned(), kind: "device without a ring" })
        }
        bytes => Ok(bytes),
    }
}
