//! The disk under an archive in tests: it does what it is told, writes it on the tape of the thread
//! if there is one, and fails where the tape says so.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

use nix::errno::Errno;

use super::super::disk as real;
use super::tape::{Change, Fault, Op, with_tape};

#[derive(Debug)]
pub(in crate::archive) struct DiskFile {
    real: real::DiskFile,
    /// Its number on the tape.
    number: Option<u32>,
}

/// What the tape says will become of an operation.
fn fault(op: Op) -> Option<Fault> {
    with_tape(|tape| tape.fault(op)).flatten()
}

/// Does it, unless it is to fail.
fn attempt<T>(op: Op, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    match fault(op) {
        Some(Fault::Errno(errno)) => Err(io::Error::from_raw_os_error(errno)),
        _ => act(),
    }
}

fn sync(op: Op, files: Option<u32>, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    match fault(op) {
        None => {
            act()?;
            with_tape(|tape| tape.synced(op, files));
            Ok(())
        }
        Some(fault) => {
            with_tape(|tape| tape.sync_failed(files));
            match fault {
                Fault::Errno(errno) => Err(io::Error::from_raw_os_error(errno)),
                Fault::Short | Fault::Lie => Ok(()),
            }
        }
    }
}

impl DiskFile {
    fn made(path: &Path, real: io::Result<real::DiskFile>) -> io::Result<DiskFile> {
        Ok(DiskFile { real: real?, number: with_tape(|tape| tape.create(path)).flatten() })
    }

    pub(in crate::archive) fn create(path: &Path, flags: i32) -> io::Result<DiskFile> {
        DiskFile::made(path, attempt(Op::Create, || real::DiskFile::create(path, flags)))
    }

    pub(in crate::archive) fn create_new(path: &Path) -> io::Result<DiskFile> {
        DiskFile::made(path, attempt(Op::Create, || real::DiskFile::create_new(path)))
    }

    pub(in crate::archive) fn open(path: &Path) -> io::Result<DiskFile> {
        let number = with_tape(|tape| tape.number(path)).flatten();
        Ok(DiskFile { real: real::DiskFile::open(path)?, number })
    }

    fn note(&self, change: impl FnOnce(u32) -> Change) {
        if let Some(number) = self.number {
            with_tape(|tape| tape.push(change(number), true));
        }
    }

    /// A write is on its way; from here on any part of it may be on the disk.
    pub(in crate::archive) fn begun(&self, bytes: &[u8], offset: u64) {
        if let Some(file) = self.number {
            with_tape(|tape| tape.push(Change::Write { file, offset, bytes: bytes.into() }, false));
        }
    }

    fn wrote(&self, bytes: &[u8], offset: u64) {
        if let Some(file) = self.number {
            with_tape(|tape| tape.wrote(file, offset, bytes));
        }
    }

    fn write(&self, op: Op, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let half = bytes.len() / 2;
        match fault(op) {
            None | Some(Fault::Lie) => {
                self.real.write_all_at(bytes, offset)?;
                self.wrote(bytes, offset);
                Ok(bytes.len())
            }
            Some(Fault::Short) => {
                self.begun(bytes, offset);
                self.real.write_all_at(&bytes[..half], offset)?;
                self.wrote(&bytes[..half], offset);
                Ok(half)
            }
            Some(Fault::Errno(errno)) => {
                self.begun(bytes, offset);
                self.real.write_all_at(&bytes[..half], offset)?;
                Err(io::Error::from_raw_os_error(errno))
            }
        }
    }

    pub(in crate::archive) fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        // Files that are on no tape are real ones, a full device among them.
        match self.number {
            Some(_) => self.write(Op::Write, bytes, offset),
            None => self.real.write_at(bytes, offset),
        }
    }

    pub(in crate::archive) fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self.write(Op::WriteAll, bytes, offset)? {
            half if half < bytes.len() => self.write_all_at(&bytes[half..], offset + half as u64),
            _ => Ok(()),
        }
    }

    pub(in crate::archive) fn reserve(&self, offset: u64, bytes: u64) -> Result<(), Errno> {
        if let Some(Fault::Errno(errno)) = fault(Op::Reserve) {
            return Err(Errno::from_raw(errno));
        }
        self.real.reserve(offset, bytes)?;
        self.note(|file| Change::Reserve { file, end: offset + bytes });
        Ok(())
    }

    pub(in crate::archive) fn set_len(&self, bytes: u64) -> io::Result<()> {
        attempt(Op::SetLen, || self.real.set_len(bytes))?;
        self.note(|file| Change::SetLen { file, bytes });
        Ok(())
    }

    pub(in crate::archive) fn sync_data(&self) -> io::Result<()> {
        sync(Op::SyncData, self.number, || self.real.sync_data())
    }

    pub(in crate::archive) fn sync_all(&self) -> io::Result<()> {
        sync(Op::SyncAll, self.number, || self.real.sync_all())
    }
}

impl AsRawFd for DiskFile {
    fn as_raw_fd(&self) -> RawFd {
        self.real.as_raw_fd()
    }
}

impl From<File> for DiskFile {
    fn from(file: File) -> DiskFile {
        DiskFile { real: file.into(), number: None }
    }
}

pub(in crate::archive) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    attempt(Op::Rename, || real::rename(from, to))?;
    with_tape(|tape| tape.rename(from, to));
    Ok(())
}

pub(in crate::archive) fn remove(path: &Path) -> io::Result<()> {
    attempt(Op::Remove, || real::remove(path))?;
    with_tape(|tape| tape.remove(path));
    Ok(())
}

pub(in crate::archive) fn sync_names(dir: &File) -> io::Result<()> {
    sync(Op::SyncNames, None, || real::sync_names(dir))
}
