//! A look into the program: its memory, its folders, its open files.
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::libc;
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;

use super::seccomp;

const PAGE_BYTES: usize = 4096;

/// The longest path that the kernel takes, with its end.
const PATH_BYTES_MAX: usize = libc::PATH_MAX as usize;

/// So many handles of threads are kept.
const HANDLES_MAX: usize = 64;

/// `bytes` bytes at `address` of the thread's memory.
pub(super) fn read(tid: i32, address: u64, bytes: usize) -> Result<Vec<u8>, Errno> {
    let mut out = vec![0; bytes];
    let remote = [RemoteIoVec { base: address as usize, len: bytes }];
    let read = process_vm_readv(Pid::from_raw(tid), &mut [IoSliceMut::new(&mut out)], &remote)?;
    if read == bytes { Ok(out) } else { Err(Errno::EFAULT) }
}

/// Stores `bytes` at `address` of the thread's memory.
pub(super) fn write(tid: i32, address: u64, bytes: &[u8]) -> Result<(), Errno> {
    if bytes.is_empty() {
        return Ok(());
    }
    let remote = [RemoteIoVec { base: address as usize, len: bytes.len() }];
    let written = process_vm_writev(Pid::from_raw(tid), &[IoSlice::new(bytes)], &remote)?;
    if written == bytes.len() { Ok(()) } else { Err(Errno::EFAULT) }
}

/// The text at `address`, up to its NUL; page by page, as the next one may not be there.
pub(super) fn read_text(tid: i32, address: u64) -> Result<Vec<u8>, Errno> {
    let mut text = Vec::new();
    while text.len() < PATH_BYTES_MAX {
        let at = address + text.len() as u64;
        let part = read(tid, at, PAGE_BYTES - at as usize % PAGE_BYTES)?;
        if let Some(end) = part.iter().position(|byte| *byte == 0) {
            text.extend_from_slice(&part[..end]);
            return Ok(text);
        }
        text.extend(part);
    }
    Err(Errno::ENAMETOOLONG)
}

/// The folder that paths of the thread are relative to: a descriptor, or where it works.
pub(super) fn folder(tid: i32, descriptor: i32) -> Option<PathBuf> {
    let link = match descriptor {
        libc::AT_FDCWD => format!("/proc/{tid}/cwd"),
        _ => format!("/proc/{tid}/fd/{descriptor}"),
    };
    fs::read_link(link).ok()
}

/// What the kernel calls the open file behind a descriptor of the thread. Nothing but the name is
/// looked at: a file system of the program's own might answer only when the program goes on.
pub(super) fn name_of(tid: i32, descriptor: i32) -> Option<OsString> {
    let name = fs::read_link(format!("/proc/{tid}/fd/{descriptor}")).ok()?;
    Some(OsString::from_vec(name.into_os_string().into_vec()))
}

/// A field of `/proc/TID/status`.
pub(super) fn status_field(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// `/proc/TID/status`, if the thread is there.
pub(super) fn status(tid: i32) -> Option<String> {
    fs::read_to_string(format!("/proc/{tid}/status")).ok()
}

/// Handles of the program's threads.
#[derive(Debug, Default)]
pub(super) struct Threads {
    handles: HashMap<i32, OwnedFd>,
    /// The thread and descriptor that were a node the last time.
    known: Option<(i32, i32)>,
}

impl Threads {
    /// Whether a descriptor was a node the last time, so that it is likely to be one still.
    pub(super) fn is_known(&self, tid: i32, descriptor: i32) -> bool {
        self.known == Some((tid, descriptor))
    }

    /// A descriptor is a node.
    pub(super) fn know(&mut self, tid: i32, descriptor: i32) {
        self.known = Some((tid, descriptor));
    }

    /// A duplicate of a descriptor of the thread.
    pub(super) fn duplicate(&mut self, tid: i32, descriptor: i32) -> Result<OwnedFd, Errno> {
        if let Some(handle) = self.handles.get(&tid) {
            match seccomp::duplicate(handle.as_fd(), descriptor) {
                // The thread of this number was another one.
                Err(Errno::ESRCH) => {}
                duplicate => return duplicate,
            }
        }
        let handle = match seccomp::open_thread(tid) {
            // An older kernel has handles of processes only; those are not kept, as a number may
            // come back in another process.
            Err(Errno::EINVAL) => {
                let process = process_of(tid).ok_or(Errno::ESRCH)?;
                let handle = seccomp::open_process(process)?;
                return seccomp::duplicate(handle.as_fd(), descriptor);
            }
            handle => handle?,
        };
        if self.handles.len() >= HANDLES_MAX {
            self.handles.clear();
        }
        let duplicate = seccomp::duplicate(handle.as_fd(), descriptor);
        self.handles.insert(tid, handle);
        duplicate
    }
}

/// The process that a thread belongs to.
pub(super) fn process_of(tid: i32) -> Option<i32> {
    let status = status(tid)?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())
}
