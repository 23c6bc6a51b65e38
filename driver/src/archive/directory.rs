//! The directory of an archive: the lock that its writer holds, and its own durability.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::error::ArchiveError;
use super::segment::{INDEX_SUFFIX, SEGMENT_SUFFIX, file_name, parse_name};
use super::store;

/// A directory that nobody else writes to while this exists.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    file: Held,
}

#[derive(Debug)]
enum Held {
    Locked(Flock<File>),
    /// The file system knows no locks on directories.
    Open(File),
}

/// Why a directory cannot be held.
#[derive(Debug)]
pub(super) enum HoldError {
    Busy,
    Io(io::Error),
}

impl Directory {
    /// Takes the lock. It goes with the process, so that nothing is left behind after a crash.
    pub(super) fn hold(path: &Path) -> Result<Directory, HoldError> {
        let file = File::open(path).map_err(HoldError::Io)?;
        let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => Held::Locked(locked),
            Err((_, Errno::EWOULDBLOCK)) => return Err(HoldError::Busy),
            Err((file, errno)) => {
                log::warn!("{} cannot be locked: {errno}", path.display());
                Held::Open(file)
            }
        };
        Ok(Directory { path: path.to_owned(), file })
    }

    /// Whether someone holds the directory. It is free again when this returns.
    pub(super) fn is_held(path: &Path) -> io::Result<bool> {
        let lock = Flock::lock(File::open(path)?, FlockArg::LockSharedNonblock);
        Ok(matches!(lock, Err((_, Errno::EWOULDBLOCK))))
    }

    /// Makes the directory if it is not there and holds it, provided that no archive is in it.
    pub(super) fn prepare(path: &Path) -> Result<Directory, ArchiveError> {
        if path.exists() && !path.is_dir() {
            return Err(ArchiveError::NotADirectory { path: path.to_owned() });
        }
        let changed = changed_by_making(path);
        fs::create_dir_all(path).map_err(ArchiveError::at("create", path))?;
        for dir in changed {
            File::open(dir)
                .and_then(|dir| dir.sync_all())
                .map_err(ArchiveError::at("sync", dir))?;
        }
        let directory = Directory::hold(path).map_err(|error| match error {
            HoldError::Busy => ArchiveError::Busy { dir: path.to_owned() },
            HoldError::Io(source) => ArchiveError::at("open", path)(source),
        })?;
        match occupant(path).map_err(ArchiveError::at("list", path))? {
            Some(name) => Err(ArchiveError::Occupied { dir: path.to_owned(), name }),
            None => Ok(directory),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn segment(&self, number: u32) -> PathBuf {
        self.path.join(file_name(number, SEGMENT_SUFFIX))
    }

    pub(super) fn index(&self, number: u32) -> PathBuf {
        self.path.join(file_name(number, INDEX_SUFFIX))
    }

    /// Whether something has the name of this segment or of its index.
    pub(super) fn holds(&self, number: u32) -> bool {
        self.segment(number).exists() || self.index(number).exists()
    }

    /// Makes sure that names made or changed in the directory survive a power cut.
    pub(super) fn sync(&self) -> io::Result<()> {
        match &self.file {
            Held::Locked(file) => store::sync_names(file),
            Held::Open(file) => store::sync_names(file),
        }
    }
}

/// The directories that get a new name when this one is made with all that are missing above it:
/// each has to be synced for the names to survive a power cut.
fn changed_by_making(path: &Path) -> Vec<&Path> {
    let missing = path.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists());
    missing.map(above).collect()
}

fn above(dir: &Path) -> &Path {
    dir.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file in the directory that is, or was, part of an archive.
fn occupant(dir: &Path) -> io::Result<Option<String>> {
    for file in fs::read_dir(dir)? {
        let name = file?.file_name();
        let Some(name) = name.to_str() else { continue };
        let number = parse_name(name, SEGMENT_SUFFIX).or_else(|| parse_name(name, INDEX_SUFFIX));
        if number.is_some() {
            return Ok(Some(name.to_owned()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directory_that_gets_a_new_name_is_synced() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let deep = path("a/b/c");
        assert_eq!(changed_by_making(&deep), [path("a/b"), path("a"), dir.path().to_owned()]);
        fs::create_dir(path("a")).unwrap();
        assert_eq!(changed_by_making(&deep), [path("a/b"), path("a")]);
        Directory::prepare(&deep).unwrap();
        assert!(changed_by_making(&deep).is_empty());
        let relative = Path::new("no-such-directory/b");
        assert_eq!(changed_by_making(relative), [Path::new("no-such-directory"), Path::new(".")]);
    }
}
