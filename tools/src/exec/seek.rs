//! `lseek` on a node, and reading where the camera's kernel reads other bytes than ours.
use std::fs::File;
use std::io::{Seek, SeekFrom};

use circbuf_emulator::node::{Answer, seek_in_header};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::device::{Devices, Kind};
use super::lookup::{self, Opened};
use super::seccomp::Call;
use super::supervisor::{Outcome, Reply};
use super::target::Threads;
use super::waiting::Wait;

/// The longest read that one call makes; a shorter one than asked for is lawful.
const READ_BYTES_MAX: usize = 1 << 20;

/// `lseek`.
pub(super) fn lseek(devices: &mut Devices, threads: &mut Threads, call: &Call) -> Outcome {
    let opened = match lookup::opened(devices, threads, call.tid, call.args[0] as i32) {
        Ok(Some(opened)) => opened,
        Ok(None) => return Outcome::NotOurs,
        Err(errno) => return errno.into(),
    };
    let (offset, whence) = (call.args[1] as i64, call.args[2] as i32);
    match opened.device.kind {
        Kind::Circbuf => match sought(devices, &opened, offset, whence) {
            Some(returns) => Outcome::Returns(returns.into()),
            None => Outcome::Parks(Wait::Frame { opened, command: offset }),
        },
        Kind::Jpeghead => Outcome::Returns(lseek_header(devices, &opened, offset, whence).into()),
    }
}

/// What `lseek` on a ring returns, with the position moved; none while it waits.
pub(super) fn sought(
    devices: &mut Devices,
    opened: &Opened,
    offset: i64,
    whence: i32,
) -> Option<Result<i64, Errno>> {
    let node = &mut devices.rings[opened.device.channel].node;
    let position = position(&opened.file);
    let sought = node.seek(position, offset, whence);
    if sought.position != position {
        move_to(&opened.file, sought.position);
    }
    match sought.answer {
        Answer::Is(value) => Some(Ok(value as i64)),
        Answer::Fails(errno) => Some(Err(errno)),
        Answer::Waits => None,
    }
}

fn lseek_header(
    devices: &Devices,
    opened: &Opened,
    offset: i64,
    whence: i32,
) -> Result<i64, Errno> {
    if whence == libc::SEEK_END && offset > 0 {
        return devices.make_jpeg_header(opened.device, &opened.file, offset);
    }
    let bytes = opened.file.metadata().map_or(0, |metadata| metadata.len());
    let sought = seek_in_header(bytes, position(&opened.file), offset, whence);
    move_to(&opened.file, sought.position);
    match sought.answer {
        Answer::Is(value) => Ok(value as i64),
        Answer::Fails(errno) => Err(errno),
        Answer::Waits => unreachable!("a header never waits"),
    }
}

/// `read` and `pread` on a camera that rounds unaligned positions down.
pub(super) fn read(devices: &Devices, threads: &mut Threads, call: &Call) -> Outcome {
    let opened = match lookup::opened(devices, threads, call.tid, call.args[0] as i32) {
        Ok(Some(opened)) if opened.device.kind == Kind::Circbuf => opened,
        _ => return Outcome::NotOurs,
    };
    let node = &devices.rings[opened.device.channel].node;
    let moves = call.number == libc::SYS_read;
    let from = if moves { position(&opened.file) } else { call.args[3] };
    if !node.is_read_shifted(from) || from > i64::MAX as u64 || !is_readable(&opened.file) {
        return Outcome::NotOurs;
    }
    let mut bytes = vec![0; READ_BYTES_MAX.min(call.args[2] as usize)];
    let read = node.read(from, &mut bytes);
    bytes.truncate(read);
    if moves {
        move_to(&opened.file, from + read as u64);
    }
    Outcome::Returns(Reply::from(Ok(read as i64)).storing(call.args[1], bytes))
}

/// Whether it was opened for reading.
fn is_readable(file: &File) -> bool {
    let flags = fcntl(file, FcntlArg::F_GETFL);
    flags.is_ok_and(|flags| flags & libc::O_ACCMODE == libc::O_RDONLY)
}

/// Where an open file is.
pub(super) fn position(mut file: &File) -> u64 {
    file.stream_position().expect("a memfd has a position")
}

fn move_to(mut file: &File, position: u64) {
    file.seek(SeekFrom::Start(position)).expect("a memfd is positioned anywhere");
}
