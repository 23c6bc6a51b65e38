//! The memory that a camera and a driver share: a ring file with its register page beside it, or
//! two memfds.
use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use circbuf_abi::registers::{FILE_SUFFIX, MAGIC_VALUE, PAGE_BYTES};
use memmap2::{MmapOptions, MmapRaw};
use nix::errno::Errno;
use nix::fcntl::{
    AT_FDCWD, FcntlArg, Flock, FlockArg, RenameFlags, SealFlag, fcntl, posix_fallocate, renameat2,
};
use nix::sys::memfd::{MFdFlags, memfd_create};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// The names of a ring file. Dropping them removes what was not published.
#[derive(Debug)]
struct Name {
    path: PathBuf,
    temporary: PathBuf,
    published: bool,
    claim: Claim,
}

/// What had the name of a ring before. The lock on it is kept: of two cameras that want one name,
/// the second one finds it taken.
#[derive(Debug)]
enum Claim {
    /// Nothing, so that nothing may be replaced: there is no lock that tells who came first.
    Nothing,
    /// A register page whose ring is gone.
    Registers { _lock: Flock<File> },
    /// A ring, and its register page with it.
    Ring { _lock: Flock<File> },
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
        let claim = claim(path)?;
        let temporary = temporary_name(path);
        let name =
            Name { path: path.to_owned(), temporary: temporary.clone(), published: false, claim };
        let ring = lock(make(&temporary, path, ring_bytes)?, path)?;
        let registers =
            make(&registers_path(&temporary), &registers_path(path), PAGE_BYTES as u64)?;
        let registers = lock(registers, path)?;
        Ok(Self { ring, registers, ring_bytes, name: Some(name) })
    }

    /// Makes a ring without a name, for a driver in the same process (or a child of it).
    /// Its size is sealed, so that no mapping can lose its memory.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn memfd(ring_bytes: u64) -> Result<Self, RingFileError> {
        let ring = lock(sealed_memfd("circbuf", ring_bytes)?, Path::new("memfd:circbuf"))?;
        let registers = sealed_memfd("circbuf.regs", PAGE_BYTES as u64)?;
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

    /// Size of the ring in bytes.
    #[must_use]
    pub fn ring_bytes(&self) -> u64 {
        self.ring_bytes
    }

    /// The ring file, if the ring has a name.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.name.as_ref().map(|name| name.path.as_path())
    }

    /// Which file the ring is.
    pub(crate) fn identity(&self) -> Result<Identity, RingFileError> {
        let path = self.path().unwrap_or(Path::new("memfd:circbuf"));
        self.ring.metadata().map(|ring| Identity::of(&ring)).map_err(io_error(path, "look at it"))
    }

    /// Maps the ring and the register page for the FPGA.
    pub(crate) fn map(&self) -> Result<(MmapRaw, MmapRaw), RingFileError> {
        let path = self.path().unwrap_or(Path::new("memfd:circbuf"));
        let map = |file: &File| MmapOptions::new().map_raw(file).map_err(io_error(path, "map it"));
        Ok((map(&self.ring)?, map(&self.registers)?))
    }

    /// Gives the ring its name.
    pub(crate) fn publish(&mut self) -> Result<(), RingFileError> {
        self.name.as_mut().map_or(Ok(()), Name::publish)
    }
}

impl Name {
    /// Names the register page first, so that it is there when the ring is. In between it stands
    /// beside the ring that is replaced, and tells by its identity that it does not belong there.
    fn publish(&mut self) -> Result<(), RingFileError> {
        let registers = registers_path(&self.path);
        let replace = !matches!(self.claim, Claim::Nothing);
        self.rename(&registers_path(&self.temporary), &registers, replace)?;
        let replace = matches!(self.claim, Claim::Ring { .. });
        self.rename(&self.temporary, &self.path, replace).inspect_err(|_| {
            // Beside somebody else's file it would make a ring of that.
            remove(&registers);
        })?;
        self.published = true;
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path, replace: bool) -> Result<(), RingFileError> {
        let renamed = if replace { fs::rename(from, to) } else { rename_to_free(from, to) };
        renamed.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => RingFileError::InUse { path: self.path.clone() },
            _ => io_error(to, "give it its name")(error),
        })
    }
}

/// Renames a file, unless there is one of the new name.
fn rename_to_free(from: &Path, to: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        Ok(()) => Ok(()),
        // Not every file system can do both at once; then at least one after the other.
        Err(Errno::EINVAL | Errno::ENOSYS) if fs::symlink_metadata(to).is_ok() => {
            Err(io::ErrorKind::AlreadyExists.into())
        }
        Err(Errno::EINVAL | Errno::ENOSYS) => fs::rename(from, to),
        Err(errno) => Err(errno.into()),
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        remove(&registers_path(&self.temporary));
        remove(&self.temporary);
    }
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Ok(()) => {}
        // It was never made if nothing can be made there; why is told by whoever tried.
        Err(error) if error.kind() == io::ErrorKind::NotFound || !path.exists() => {}
        Err(error) => log::warn!("{}: cannot remove it: {error}", path.display()),
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

/// A name in the same folder that no other camera takes, in this process or another one.
fn temporary_name(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    with_suffix(path, &format!(".new-{}-{count}", std::process::id()))
}

/// Makes sure that what has this name now, if anything, is a ring that nobody writes, and locks it.
fn claim(path: &Path) -> Result<Claim, RingFileError> {
    loop {
        let claimed = match fs::symlink_metadata(path) {
            Ok(found) => claim_ring(path, &found)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => claim_registers(path)?,
            Err(error) => return Err(io_error(path, "look at it")(error)),
        };
        if let Some(claim) = claimed {
            return Ok(claim);
        }
    }
}

/// Locks what was `found` at the name of the ring, unless it is another one by now.
fn claim_ring(path: &Path, found: &Metadata) -> Result<Option<Claim>, RingFileError> {
    let not_a_ring = |what| RingFileError::NotARing { path: path.to_owned(), what };
    if !found.is_file() {
        return Err(not_a_ring("this is no regular file"));
    }
    if found.len() > 0 && registers_kind(path)? != Kind::Registers {
        return Err(not_a_ring("this is no ring (there is no register page beside it)"));
    }
    Ok(lock_named(path, path)?.map(|lock| Claim::Ring { _lock: lock }))
}

/// Locks the register page that has no ring, unless it is another one by now.
fn claim_registers(ring: &Path) -> Result<Option<Claim>, RingFileError> {
    let path = registers_path(ring);
    match registers_kind(ring)? {
        Kind::Other => Err(RingFileError::NotARing { path, what: "this is no register page" }),
        Kind::Absent => Ok(Some(Claim::Nothing)),
        Kind::Registers => {
            Ok(lock_named(&path, ring)?.map(|lock| Claim::Registers { _lock: lock }))
        }
    }
}

/// Locks the file `path` of the ring `ring`; `None` if another file had got the name in between.
fn lock_named(path: &Path, ring: &Path) -> Result<Option<Flock<File>>, RingFileError> {
    let file = File::open(path).map_err(io_error(path, "open it"))?;
    let locked = lock(file, ring)?;
    let present = fs::symlink_metadata(path).map(|now| Identity::of(&now)).ok();
    let ours = locked.metadata().map_err(io_error(path, "look at it"))?;
    Ok((present == Some(Identity::of(&ours))).then_some(locked))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Absent,
    Registers,
    Other,
}

/// What stands at the name of the register page of the ring `ring`.
fn registers_kind(ring: &Path) -> Result<Kind, RingFileError> {
    let path = registers_path(ring);
    match fs::symlink_metadata(&path) {
        Ok(found) if !found.is_file() => return Ok(Kind::Other),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Kind::Absent),
        Err(error) => return Err(io_error(&path, "look at it")(error)),
    }
    let mut file = File::open(&path).map_err(io_error(&path, "open it"))?;
    let mut magic = [0; 8];
    match file.read_exact(&mut magic) {
        Ok(()) if u64::from_le_bytes(magic) == MAGIC_VALUE => Ok(Kind::Registers),
        Ok(()) => Ok(Kind::Other),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Kind::Other),
        Err(error) => Err(io_error(&path, "read it")(error)),
    }
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

fn sealed_memfd(name: &str, bytes: u64) -> Result<File, RingFileError> {
    let path = with_suffix(Path::new("memfd:"), name);
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = memfd_create(name, flags)
        .map(File::from)
        .map_err(|errno| io_error(&path, "make it")(errno.into()))?;
    file.set_len(bytes).map_err(io_error(&path, "size it"))?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))
        .map_err(|errno| io_error(&path, "seal it")(errno.into()))?;
    Ok(file)
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
