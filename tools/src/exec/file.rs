//! Opening a node, and the calls that only ask for its name.
use nix::errno::Errno;
use nix::libc;

use super::device::{Device, Devices};
use super::lookup;
use super::seccomp::Call;
use super::supervisor::Outcome;
use super::target;

/// `open`, `openat`, `openat2`: the descriptor can be read at most whatever is asked for, and the rest
/// is as for any character device.
pub(super) fn open(devices: &Devices, call: &Call) -> Outcome {
    let (directory, path, flags) = match call.number {
        libc::SYS_openat => (Some(0), 1, Ok(call.args[2] as i32)),
        libc::SYS_openat2 => (Some(0), 1, openat2_flags(call)),
        _ => (None, 0, Ok(call.args[1] as i32)),
    };
    lookup::named(devices, call, directory, path).answer(|device| {
        match flags.and_then(|flags| open_device(devices, device, flags)) {
            Ok(outcome) => outcome,
            Err(errno) => errno.into(),
        }
    })
}

fn openat2_flags(call: &Call) -> Result<i32, Errno> {
    let flags = target::read(call.tid, call.args[2], 8)?;
    let flags = flags.first_chunk().map_or(0, |flags| u64::from_ne_bytes(*flags));
    Ok(flags as i32)
}

fn open_device(devices: &Devices, device: Device, flags: i32) -> Result<Outcome, Errno> {
    let has = |flag| flags & flag == flag;
    if has(libc::O_DIRECTORY) {
        return Err(Errno::ENOTDIR);
    }
    if has(libc::O_CREAT | libc::O_EXCL) && !has(libc::O_PATH) {
        return Err(Errno::EEXIST);
    }
    let opened = devices.open(device, flags).map_err(|error| {
        log::warn!("cannot open the node's memory: {error}");
        error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
    })?;
    Ok(Outcome::Opens(opened, (flags & libc::O_CLOEXEC) as u32))
}

/// `access` and its like: anybody may read and write a node, as far as its permissions say.
pub(super) fn access(devices: &Devices, call: &Call) -> Outcome {
    let (directory, path) = match call.number {
        libc::SYS_faccessat | libc::SYS_faccessat2 => (Some(0), 1),
        _ => (None, 0),
    };
    lookup::named(devices, call, directory, path).answer(|_| {
        match call.args[path + 1] as i32 & libc::X_OK {
            0 => Outcome::Returns(Ok(0).into()),
            _ => Errno::EACCES.into(),
        }
    })
}

/// Calls with a path that a node answers with `refusal`: it is no link, and has no attributes.
pub(super) fn refused(devices: &Devices, call: &Call, refusal: Errno) -> Outcome {
    let (directory, path) = match call.number {
        libc::SYS_readlinkat => (Some(0), 1),
        _ => (None, 0),
    };
    lookup::named(devices, call, directory, path).answer(|_| refusal.into())
}
