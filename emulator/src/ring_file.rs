//! The memory that a camera and a driver share: a ring file with its register page beside it, or
//! two memfds.
mod name;

use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use circbuf_abi::registers::{FILE_SUFFIX, PAGE_BYTES};
use memmap2::{MmapOptions, MmapRaw};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, FlockArg, SealFlag, fcntl, posix_fallocate};
use nix::sys::memfd::{MFdFlags, memfd_create};

use name::Name;

/// How often a lock is found taken before it is believed to be a camera's.
const LOCK_ATTEMPTS: u32 = 10;

/// The wait behind an attempt.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// A ring that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RingFileError {
    /// Another camera writes into the ring of this name.
    #[error("{path}: another camera writes this ring; stop it or take another name")]
    InUse {
        /// The ring file.
        path: PathBuf,
    },
    /// Something else has this name, and a ring would replace it.
    #[error("{path}: {what}, not replaced; remove it or take another name")]
    NotARing {
        /// The file that is in the way.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// The operating system refused.
    #[error("{path}: cannot {operation}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// A ring and its register page, made but not yet seen by anybody.
///
/// A named ring is made under another name and gets its own when the [`Fpga`](crate::fpga::Fpga)
/// has filled in the register page: a ring that can be opened is whole. An exclusive `flock` on
/// the ring file is held as long as this object lives, so that a free lock tells a driver that the
/// camera is gone. The file stays when the camera ends, and is replaced by the next one of that
/// name; a driver that has the old one mapped keeps it.
///
/// Nobody else may truncate the file: as with every mapping, a store into memory that is gone
/// kills the process with SIGBUS. Only the size of a memfd can be sealed against that.
#[derive(Debug)]
pub struct RingFile {
    ring: Flock<File>,
    /// Locked too, for it gets its name before the ring does.
    registers: Flock<File>,
    ring_bytes: u64,
    name: Option<Name>,
}

/// What makes a file the same one, whatever name it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Identity {
    /// `st_dev`.
    pub(crate) device: u64,
    /// `st_ino`.
    pub(crate) inode: u64,
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

impl RingFile {
    /// Makes a ring that will be `path`, and its register page `path.regs`.
    ///
    /// The space is allocated at once, because a write into a mapping of a full file system kills
    /// the process.
    ///
    /// # Errors
    /// A live camera has this ring, a file that is no ring has the name, or the file system
    /// refuses (no space, no permission, no such folder).
    pub fn create(path: &Path, ring_bytes: u64) -> Result<Self, RingFileError> {
        let name = Name::claim(path)?;
        let ring = lock(make(name.temporary(), path, ring_bytes)?, path)?;
        let registers = registers_path(name.temporary());
        let registers = make(&registers, &registers_path(path), PAGE_BYTES as u64)?;
        let registers = lock(registers, path)?;
        Ok(Self { ring, registers, ring_bytes, name: Some(name) })
    }

    /// Makes a ring without a name, for a driver in the same process (or a child of it).
    /// Its size is sealed, so that no mapping can lose its memory; its content
    /// [can be](Self::seal_content).
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn memfd(ring_bytes: u64) -> Result<Self, RingFileError> {
        let ring = lock(sized_memfd("circbuf", ring_bytes)?, Path::new("memfd:circbuf"))?;
        let registers = sized_memfd("circbuf.regs", PAGE_BYTES as u64)?;
        let registers = lock(registers, Path::new("memfd:circbuf.regs"))?;
        Ok(Self { ring, registers, ring_bytes, name: None })
    }

    /// The ring's descriptor, which a driver can duplicate and map on its own.
    ///
    /// A duplicate shares the camera's lock: it is free only when that is closed too.
    #[must_use]
    pub fn ring_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }

    /// The register page's descriptor.
    #[must_use]
    pub fn registers_fd(&self) -> BorrowedFd<'_> {
        self.registers.as_fd()
    }

    /// Leaves the content of a memfd to the mappings for writing that are there, those of its
    /// [`Fpga`](crate::fpga::Fpga): from now on nobody, be it root, can write or map it for writing
    /// by a descriptor of it, or by `/proc/PID/fd`. A named ring cannot be sealed.
    ///
    /// # Errors
    /// The operating system refuses: it is older than Linux 5.1, or the ring has a name.
    pub fn seal_content(&self) -> Result<(), RingFileError> {
        let path = self.path().unwrap_or(Path::new("memfd:circbuf"));
        let seals = SealFlag::F_SEAL_FUTURE_WRITE | SealFlag::F_SEAL_SEAL;
        [&self.ring, &self.registers].into_iter().try_for_each(|file| {
            seal(file, seals).map_err(|errno| io_error(path, "seal it")(errno.into()))
        })
    }

    /// Size of the ring in bytes.
    #[must_use]
    pub fn ring_bytes(&self) -> u64 {
        self.ring_bytes
    }

    /// The ring file, if the ring has a name.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.name.as_ref().map(|name| name.path())
    }

    /// Which file the ring is; none, if it has no name under which another one could be found.
    pub(crate) fn identity(&self) -> Result<Identity, RingFileError> {
        let Some(path) = self.path() else { return Ok(Identity::default()) };
        self.ring.metadata().map(|ring| Identity::of(&ring)).map_err(io_error(path, "look at it"))
    }

    /// Maps the ring and the register page for the FPGA.
    pub(crate) fn map(&self) -> Result<(MmapRaw, MmapRaw), RingFileError> {
        let path = self.path().unwrap_or(Path::new("memfd:circbuf"));
        let map = |file: &File| {
            // The FPGA does not stop for a page fault in its first lap either.
            MmapOptions::new().populate().map_raw(file).map_err(io_error(path, "map it"))
        };
        Ok((map(&self.ring)?, map(&self.registers)?))
    }

    /// Maps the ring and the register page for who only reads them.
    pub(crate) fn map_to_read(&self) -> Result<(MmapRaw, MmapRaw), RingFileError> {
        let path = self.path().unwrap_or(Path::new("memfd:circbuf"));
        let map = |file: &File| {
            MmapOptions::new().map_raw_read_only(file).map_err(io_error(path, "map it"))
        };
        Ok((map(&self.ring)?, map(&self.registers)?))
    }

    /// Gives the ring its name.
    pub(crate) fn publish(&mut self) -> Result<(), RingFileError> {
        self.name.as_mut().map_or(Ok(()), Name::publish)
    }
}

/// The name of the register page beside the ring file `ring`.
#[must_use]
pub fn registers_path(ring: &Path) -> PathBuf {
    with_suffix(ring, FILE_SUFFIX)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Makes a file of `bytes` zeros with all its space, which will be `path`.
fn make(temporary: &Path, path: &Path, bytes: u64) -> Result<File, RingFileError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(temporary)
        .map_err(io_error(path, "make it"))?;
    let length = i64::try_from(bytes)
        .map_err(|_| io_error(path, "size it")(io::ErrorKind::FileTooLarge.into()))?;
    loop {
        match posix_fallocate(&file, 0, length) {
            Ok(()) => return Ok(file),
            // On a tmpfs a signal interrupts it.
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(io_error(path, "allocate its space")(errno.into())),
        }
    }
}

/// Memory of so many bytes for as long as it lives, to be written by whoever has it.
pub(crate) fn sealed_memfd(name: &str, bytes: u64) -> Result<File, RingFileError> {
    let file = sized_memfd(name, bytes)?;
    seal(&file, SealFlag::F_SEAL_SEAL)
        .map_err(|errno| io_error(&memfd_path(name), "seal it")(errno.into()))?;
    Ok(file)
}

/// The same, to which seals can be added.
fn sized_memfd(name: &str, bytes: u64) -> Result<File, RingFileError> {
    let path = memfd_path(name);
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = memfd_create(name, flags)
        .map(File::from)
        .map_err(|errno| io_error(&path, "make it")(errno.into()))?;
    file.set_len(bytes).map_err(io_error(&path, "size it"))?;
    seal(&file, SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW)
        .map_err(|errno| io_error(&path, "seal it")(errno.into()))?;
    Ok(file)
}

fn memfd_path(name: &str) -> PathBuf {
    with_suffix(Path::new("memfd:"), name)
}

fn seal(file: &File, seals: SealFlag) -> Result<(), Errno> {
    fcntl(file, FcntlArg::F_ADD_SEALS(seals)).map(drop)
}

/// Locks `file`, which is or will be the ring `path`. A driver that wants to know whether the
/// camera lives holds the lock for microseconds: only what stays locked is a camera's.
fn lock(file: File, path: &Path) -> Result<Flock<File>, RingFileError> {
    lock_patiently(file, path, || std::thread::sleep(LOCK_PAUSE))
}

fn lock_patiently(
    mut file: File,
    path: &Path,
    mut pause: impl FnMut(),
) -> Result<Flock<File>, RingFileError> {
    for _ in 0..LOCK_ATTEMPTS {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return Ok(locked),
            Err((file, Errno::EWOULDBLOCK)) => file,
            Err((_, errno)) => return Err(io_error(path, "lock it")(errno.into())),
        };
        pause();
    }
    Err(RingFileError::InUse { path: path.to_owned() })
}

fn io_error(path: &Path, operation: &'static str) -> impl FnOnce(io::Error) -> RingFileError {
    let path = path.to_owned();
    move |source| RingFileError::Io { path, operation, source }
}

#[cfg(test)]
mod tests;
