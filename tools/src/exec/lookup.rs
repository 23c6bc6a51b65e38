//! Which node a call is about, if any.
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::device::{Device, Devices, Kind};
use super::seccomp::Call;
use super::supervisor::Outcome;
use super::target::{self, Threads};

/// A node that a program has open: the same open file, with its position.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) device: Device,
    pub(super) file: File,
}

/// The node behind a descriptor of the thread.
pub(super) fn device_of(devices: &Devices, tid: i32, descriptor: i32) -> Option<Device> {
    let name = target::name_of(tid, descriptor)?;
    devices.of_file(&name, || {
        let metadata = fs::metadata(format!("/proc/{tid}/fd/{descriptor}")).ok()?;
        Some((metadata.dev(), metadata.ino()))
    })
}

/// The same, to be used.
pub(super) fn opened(
    devices: &Devices,
    threads: &mut Threads,
    tid: i32,
    descriptor: i32,
) -> Result<Option<Opened>, Errno> {
    if threads.is_known(tid, descriptor) {
        let file = File::from(threads.duplicate(tid, descriptor)?);
        if let Some(device) = ring_of(devices, &file) {
            return Ok(Some(Opened { device, file }));
        }
    }
    let Some(device) = device_of(devices, tid, descriptor) else { return Ok(None) };
    let file = File::from(threads.duplicate(tid, descriptor)?);
    // Another thread may have given the number to another file meanwhile.
    if device_of(devices, std::process::id() as i32, file.as_raw_fd()) != Some(device) {
        return Ok(None);
    }
    if device.kind == Kind::Circbuf {
        threads.know(tid, descriptor);
    }
    Ok(Some(Opened { device, file }))
}

/// The node whose ring this is. A file that has no seals is none in memory, and is not asked
/// further: its file system might answer only when the program goes on.
fn ring_of(devices: &Devices, file: &File) -> Option<Device> {
    fcntl(file, FcntlArg::F_GET_SEALS).ok()?;
    let metadata = file.metadata().ok()?;
    devices.with_ring((metadata.dev(), metadata.ino()))
}

/// What a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    Node(Device),
    /// A node, taken for a folder.
    InNode,
    NotOurs,
}

impl Subject {
    /// What the call comes to, if this is what it comes to on a node.
    pub(super) fn answer(self, on_node: impl FnOnce(Device) -> Outcome) -> Outcome {
        match self {
            Subject::Node(device) => on_node(device),
            Subject::InNode => Errno::ENOTDIR.into(),
            Subject::NotOurs => Outcome::NotOurs,
        }
    }
}

impl From<Option<Device>> for Subject {
    fn from(device: Option<Device>) -> Subject {
        device.map_or(Subject::NotOurs, Subject::Node)
    }
}

/// What a call names by a path; `directory` is the argument with the folder's descriptor.
pub(super) fn named(
    devices: &Devices,
    call: &Call,
    directory: Option<usize>,
    path: usize,
) -> Subject {
    let path = match target::read_text(call.tid, call.args[path]) {
        Ok(path) => path,
        Err(errno) => {
            tell_if_refused(call.tid, errno);
            return Subject::NotOurs;
        }
    };
    if !Devices::could_be(&path) {
        return Subject::NotOurs;
    }
    let folder = || {
        let descriptor = directory.map_or(libc::AT_FDCWD, |at| call.args[at] as i32);
        target::folder(call.tid, descriptor)
    };
    let folder = if path.starts_with(b"/") { None } else { folder() };
    walk(devices, folder, &path)
}

/// Where a path leads, without looking at the file system: `//`, `.` and `..` mean nothing else, but that
/// nothing stands behind a node, be it a slash.
fn walk(devices: &Devices, folder: Option<PathBuf>, path: &[u8]) -> Subject {
    let mut at = folder.unwrap_or_default();
    if path.starts_with(b"/") {
        at.push("/");
    }
    let mut device = None;
    for part in path.split(|byte| *byte == b'/') {
        if device.is_some() {
            return Subject::InNode;
        }
        match part {
            b"" | b"." => {}
            b".." => drop(at.pop()),
            name => {
                at.push(OsStr::from_bytes(name));
                device = devices.named(&at);
            }
        }
    }
    device.into()
}

/// Whether a call with a path means the descriptor in front of it instead.
pub(super) fn means_descriptor(call: &Call, flags: usize) -> bool {
    let has_flag = call.args[flags] as i32 & libc::AT_EMPTY_PATH != 0;
    // A null pointer is allowed for the empty path since Linux 6.11.
    has_flag && (call.args[1] == 0 || target::read(call.tid, call.args[1], 1) == Ok(vec![0]))
}

/// Says once that a process cannot be looked into, so that it finds no node.
fn tell_if_refused(tid: i32, errno: Errno) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if errno == Errno::EPERM && !TOLD.swap(true, Ordering::Relaxed) {
        log::warn!(
            "the system does not let process {tid} be looked into, so it finds no node: it is another \
             user's, guards its memory, or kernel.yama.ptrace_scope is above 1"
        );
    }
}
