//! Starts the program under the filter, and gets hold of its listener.
use std::ffi::OsString;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::SigSet;

use super::seccomp::{self, Listener};

/// A program that does not start.
#[derive(Debug)]
pub(super) enum SpawnError {
    /// The kernel does not take the filter.
    Filter(io::Error),
    /// There is no such program, or it cannot be executed.
    Program(io::Error),
}

/// Room for one descriptor in a control message, and its alignment.
#[repr(C, align(8))]
struct Control([u8; 24]);

/// Runs `program` (the name and its arguments) under `filter` and with this signal mask.
pub(super) fn spawn(
    program: &[OsString],
    filter: Vec<libc::sock_filter>,
    mask: SigSet,
) -> Result<(Child, Listener), SpawnError> {
    let (ours, theirs) = UnixStream::pair().map_err(SpawnError::Filter)?;
    let socket = theirs.as_raw_fd();
    let mut command = Command::new(&program[0]);
    command.args(&program[1..]);
    let enter = move || {
        // The node is gone when the supervisor is, and the program would not understand why.
        // SAFETY: sets an attribute of this process.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) };
        mask.thread_set_mask()?;
        let listener = seccomp::install(&filter)?;
        send(socket, listener)
    };
    // SAFETY: between fork and exec it makes system calls only; nothing is allocated or locked.
    unsafe { command.pre_exec(enter) };
    let spawned = command.spawn();
    drop(theirs);
    match (spawned, receive(ours.as_raw_fd())) {
        (Ok(child), Some(listener)) => Ok((child, Listener::new(listener))),
        (Ok(_), None) => Err(SpawnError::Filter(io::ErrorKind::UnexpectedEof.into())),
        (Err(error), Some(_)) => Err(SpawnError::Program(error)),
        // The child of a program name with a NUL, or with no such folder to run in, does not come
        // as far as the filter either.
        (Err(error), None) if error.kind() == io::ErrorKind::InvalidInput => {
            Err(SpawnError::Program(error))
        }
        (Err(error), None) => Err(SpawnError::Filter(error)),
    }
}

fn send(socket: RawFd, descriptor: RawFd) -> io::Result<()> {
    let mut byte = 0_u8;
    let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let mut control = Control([0; 24]);
    let message = message(&mut part, &mut control);
    // SAFETY: `message` names the buffer that is large enough for one header.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    let descriptor_bytes = size_of::<RawFd>() as u32;
    let filled = libc::cmsghdr {
        // SAFETY: computes a length.
        cmsg_len: unsafe { libc::CMSG_LEN(descriptor_bytes) } as _,
        cmsg_level: libc::SOL_SOCKET,
        cmsg_type: libc::SCM_RIGHTS,
    };
    // SAFETY: the header lies in `control`, which is aligned for it.
    unsafe { header.write(filled) };
    // SAFETY: the data follow the header, still in `control`.
    let data = unsafe { libc::CMSG_DATA(header) };
    // SAFETY: four bytes are left there, and no alignment is asked for.
    unsafe { data.cast::<RawFd>().write_unaligned(descriptor) };
    // SAFETY: all buffers outlive the call.
    Errno::result(unsafe { libc::sendmsg(socket, &raw const message, 0) })?;
    Ok(())
}

/// The descriptor that was sent, if one was.
fn receive(socket: RawFd) -> Option<OwnedFd> {
    let mut byte = 0_u8;
    let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let mut control = Control([0; 24]);
    let mut message = message(&mut part, &mut control);
    // SAFETY: all buffers outlive the call.
    let received = unsafe { libc::recvmsg(socket, &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    // SAFETY: the kernel has set the length of what it wrote into `control`.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    if received < 1 || header.is_null() {
        return None;
    }
    // SAFETY: a whole control message with one descriptor was written there.
    let data = unsafe { libc::CMSG_DATA(header) };
    // SAFETY: as above; no alignment is asked for.
    let descriptor = unsafe { data.cast::<RawFd>().read_unaligned() };
    // SAFETY: the kernel has just made this descriptor for us.
    Some(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn message(part: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: a structure of numbers and pointers, for which zero is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control.0).cast();
    message.msg_controllen = control.0.len() as _;
    message
}
