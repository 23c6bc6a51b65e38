//! The name of a ring: who may have it, and how a ring and its register page get it.
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use circbuf_abi::registers::MAGIC_VALUE;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, Flock, RenameFlags, renameat2};

use super::{Identity, RingFileError, io_error, lock, registers_path, with_suffix};

/// The names of a ring file. Dropping them removes what was not published.
#[derive(Debug)]
pub(super) struct Name {
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

impl Name {
    /// Finds out whether a ring may have the name `path`, and keeps it from others.
    pub(super) fn claim(path: &Path) -> Result<Self, RingFileError> {
        let claim = claim(path)?;
        Ok(Self { path: path.to_owned(), temporary: temporary_name(path), published: false, claim })
    }

    /// The ring's name in the end.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The ring's name until it is published.
    pub(super) fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Names the register page first, so that it is there when the ring is. In between it stands
    /// beside the ring that is replaced, and tells by its identity that it does not belong there.
    pub(super) fn publish(&mut self) -> Result<(), RingFileError> {
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
