//! What a node looks like: a character device for everybody, as large as its ring.
use std::mem::offset_of;

use circbuf_abi::node::MAJOR;
use nix::libc;

use super::device::{Device, Devices};
use super::lookup::{self, Subject};
use super::seccomp::Call;
use super::supervisor::{Outcome, Reply};

/// Type and permissions.
const MODE: u32 = libc::S_IFCHR | 0o666;

const BLOCK_BYTES: u32 = 4096;

/// Inode numbers begin far above those of a `/dev`.
const INODE: u64 = 1 << 40;

/// `stat`, `lstat`, `fstat`, `newfstatat`.
pub(super) fn stat(devices: &Devices, call: &Call) -> Outcome {
    let (subject, out) = match call.number {
        libc::SYS_fstat => (opened(devices, call), 1),
        libc::SYS_newfstatat => (subject(devices, call, 3), 2),
        _ => (lookup::named(devices, call, None, 0), 1),
    };
    subject.answer(|device| {
        let filled = stat_bytes(devices, device);
        Outcome::Returns(Reply::from(Ok(0)).storing(call.args[out], filled))
    })
}

/// `statx`.
pub(super) fn statx(devices: &Devices, call: &Call) -> Outcome {
    subject(devices, call, 2).answer(|device| {
        let filled = statx_bytes(devices, device);
        Outcome::Returns(Reply::from(Ok(0)).storing(call.args[4], filled))
    })
}

/// What a call with folder, path and flags is about.
fn subject(devices: &Devices, call: &Call, flags: usize) -> Subject {
    if lookup::means_descriptor(call, flags) {
        return opened(devices, call);
    }
    lookup::named(devices, call, Some(0), 1)
}

/// What the descriptor in front stands for.
fn opened(devices: &Devices, call: &Call) -> Subject {
    lookup::device_of(devices, call.tid, call.args[0] as i32).into()
}

fn inode(devices: &Devices, device: Device) -> u64 {
    INODE + u64::from(devices.minor(device))
}

/// Times are those of the beginning of time: nothing is known about when a camera booted.
fn stat_bytes(devices: &Devices, device: Device) -> Vec<u8> {
    let mut out = vec![0; size_of::<libc::stat>()];
    let mut put = |at: usize, bytes: &[u8]| out[at..][..bytes.len()].copy_from_slice(bytes);
    let number = libc::makedev(MAJOR, devices.minor(device));
    put(offset_of!(libc::stat, st_ino), &inode(devices, device).to_ne_bytes());
    put(offset_of!(libc::stat, st_nlink), &(1 as libc::nlink_t).to_ne_bytes());
    put(offset_of!(libc::stat, st_mode), &MODE.to_ne_bytes());
    put(offset_of!(libc::stat, st_rdev), &number.to_ne_bytes());
    put(offset_of!(libc::stat, st_size), &devices.size_bytes(device).to_ne_bytes());
    put(
        offset_of!(libc::stat, st_blksize),
        &libc::blksize_t::from(BLOCK_BYTES as i32).to_ne_bytes(),
    );
    out
}

fn statx_bytes(devices: &Devices, device: Device) -> Vec<u8> {
    let mut out = vec![0; size_of::<libc::statx>()];
    let mut put = |at: usize, bytes: &[u8]| out[at..][..bytes.len()].copy_from_slice(bytes);
    put(offset_of!(libc::statx, stx_mask), &libc::STATX_BASIC_STATS.to_ne_bytes());
    put(offset_of!(libc::statx, stx_blksize), &BLOCK_BYTES.to_ne_bytes());
    put(offset_of!(libc::statx, stx_nlink), &1_u32.to_ne_bytes());
    put(offset_of!(libc::statx, stx_mode), &(MODE as u16).to_ne_bytes());
    put(offset_of!(libc::statx, stx_ino), &inode(devices, device).to_ne_bytes());
    put(offset_of!(libc::statx, stx_size), &devices.size_bytes(device).to_ne_bytes());
    put(offset_of!(libc::statx, stx_rdev_major), &MAJOR.to_ne_bytes());
    put(offset_of!(libc::statx, stx_rdev_minor), &devices.minor(device).to_ne_bytes());
    out
}
