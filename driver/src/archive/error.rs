//! What can go wrong with an archive, by what the caller was doing.

use std::io;
use std::path::{Path, PathBuf};

/// Why an archive cannot be begun.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// An option is out of its range.
    #[error("archive option {name} = {value} is out of range; it is at least {least}")]
    Options {
        /// The option.
        name: &'static str,
        /// What was asked for.
        value: u64,
        /// The smallest value that would do.
        least: u64,
    },
    /// Something that is no directory has the name.
    #[error("{} is not a directory; name one for the archive, it may be new", path.display())]
    NotADirectory {
        /// The name.
        path: PathBuf,
    },
    /// Segments or indexes of an earlier archive are there.
    #[error("{} holds an archive already ({name}); name another directory or move that one away", dir.display())]
    Occupied {
        /// The directory.
        dir: PathBuf,
        /// One of the files.
        name: String,
    },
    /// Another process writes to the directory.
    #[error("{} is being written by another process; name another directory", dir.display())]
    Busy {
        /// The directory.
        dir: PathBuf,
    },
    /// io_uring was asked for by name and is not to be had.
    #[error("io_uring is not available here ({source}); choose the engine auto or pwrite")]
    Engine {
        /// What the kernel said.
        source: io::Error,
    },
    /// An operation on a file failed.
    #[error("cannot {op} {}: {source}; the archive needs a directory that can be written", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Why an archive, or a record of it, cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No segment is there.
    #[error("{} is no archive: it holds no seg-*.cbs file", dir.display())]
    NotAnArchive {
        /// The directory.
        dir: PathBuf,
    },
    /// Written by another version of the format.
    #[error("{} has format version {found}; this program reads version 1", path.display())]
    Version {
        /// The segment.
        path: PathBuf,
        /// Version in its header.
        found: u16,
    },
    /// The bytes are not those of a whole record.
    #[error("{} at {offset:#x}: {what}", path.display())]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where the record starts, in bytes.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// An operation on a file failed.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Why an archive cannot be recovered.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// It cannot be read in the first place.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It is being written.
    #[error("{} is being written by another process; stop it first", dir.display())]
    Busy {
        /// The directory.
        dir: PathBuf,
    },
    /// An operation on a file failed.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

macro_rules! io_at {
    ($error:ident) => {
        impl $error {
            /// Gives an I/O error its place.
            pub(super) fn at(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> $error {
                move |source| $error::Io { op, path: path.to_owned(), source }
            }
        }
    };
}
io_at!(ArchiveError);
io_at!(ReadError);
io_at!(RecoverError);
