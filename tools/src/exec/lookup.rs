//! Which node a call is about, if any.
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use nix::libc;

use super::device::{Device, Devices};
use super::seccomp::Call;
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
    let Some(device) = device_of(devices, tid, descriptor) else { return Ok(None) };
    let file = threads.duplicate(tid, descriptor)?.into();
    Ok(Some(Opened { device, file }))
}

/// The node that a call names by a path; `directory` is the argument with the folder's descriptor.
pub(super) fn named(
    devices: &Devices,
    call: &Call,
    directory: Option<usize>,
    path: usize,
) -> Option<Device> {
    let path = target::read_text(call.tid, call.args[path]).ok()?;
    if !Devices::could_be(&path) {
        return None;
    }
    let folder = || {
        let descriptor = directory.map_or(libc::AT_FDCWD, |at| call.args[at] as i32);
        target::folder(call.tid, descriptor)
    };
    let folder = if path.starts_with(b"/") { None } else { folder() };
    devices.named(&target::normal(folder, &path))
}

/// Whether a call with a path means the descriptor in front of it instead.
pub(super) fn means_descriptor(call: &Call, flags: usize) -> bool {
    let has_flag = call.args[flags] as i32 & libc::AT_EMPTY_PATH != 0;
    // A null pointer is allowed for the empty path since Linux 6.11.
    has_flag && (call.args[1] == 0 || target::read(call.tid, call.args[1], 1) == Ok(vec![0]))
}
