//! Stands between a client and the crate's server, and lets nothing through that the server trusts
//! without a reason: its sizes, its texts, its commands. A client that sends such a thing is cut off.

use std::io::{self, IoSlice, IoSliceMut, Read};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::libc::{SCM_RIGHTS, SOL_SOCKET, c_int, cmsghdr};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// Size of a message's header: id, command (u16), size, flags, error (u32).
pub(super) const HEADER_BYTES: usize = 16;

/// No message to the server is larger: a write of a page, or a text of that size.
const MESSAGE_BYTES_MAX: usize = 4096 + 64;

/// The largest access to a region: none has more than a page, but configuration space.
const ACCESS_BYTES_MAX: u32 = 4096;

/// Descriptors that a message may have.
const FDS_MAX: usize = 16;

/// Why a message is not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Lie {
    #[error("a message that says it has {0} bytes")]
    Size(usize),
    #[error("command {command} with {body_bytes} bytes")]
    Body { command: u16, body_bytes: usize },
    #[error("an access of {count} bytes in a message with {bytes}")]
    Count { count: u32, bytes: usize },
    #[error("a version without a text, or with one that has no end")]
    Text,
    #[error("descriptors in the middle of a message")]
    Descriptors,
    #[error(
        "more descriptors than the {FDS_MAX} that a message may have, or than this process has room for"
    )]
    TooMany,
}

/// A message of the client.
#[derive(Debug)]
struct Message {
    bytes: Vec<u8>,
    fds: Received,
}

/// Descriptors that belong to nobody else; they are closed when they were sent on.
#[derive(Debug, Default)]
struct Received(Vec<RawFd>);

impl Drop for Received {
    fn drop(&mut self) {
        for &fd in &self.0 {
            let _closed = nix::unistd::close(fd);
        }
    }
}

/// Passes on what the client sends, until it hangs up or lies. The server is told of the end.
pub(super) fn let_in(client: &UnixStream, server: &UnixStream) {
    loop {
        match next(client) {
            Ok(Some(message)) => {
                if let Err(error) = send(server, &message.bytes, &message.fds.0) {
                    log::debug!("the server does not listen: {error}");
                    break;
                }
            }
            Ok(None) => break,
            Err(error) => {
                log::warn!("a client was cut off: {error}");
                let _gone = client.shutdown(Shutdown::Both);
                break;
            }
        }
    }
    let _gone = server.shutdown(Shutdown::Both);
}

/// Passes on what the server answers, as it comes.
pub(super) fn let_out(server: &UnixStream, client: &UnixStream) {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let mut fds = Received::default();
        let passed = receive(server, &mut bytes, &mut fds).and_then(|count| {
            send(client, &bytes[..count], &fds.0)?;
            Ok(count)
        });
        match passed {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    let _gone = client.shutdown(Shutdown::Both);
}

fn next(client: &UnixStream) -> io::Result<Option<Message>> {
    let (mut bytes, mut fds) = (vec![0; HEADER_BYTES], Received::default());
    let mut filled = 0;
    while filled < HEADER_BYTES {
        match receive(client, &mut bytes[filled..], &mut fds)? {
            0 if filled == 0 => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => filled += count,
        }
        if filled < HEADER_BYTES && !fds.0.is_empty() {
            return Err(lie(Lie::Descriptors));
        }
    }
    let message_bytes = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) as usize;
    if !(HEADER_BYTES..=MESSAGE_BYTES_MAX).contains(&message_bytes) {
        return Err(lie(Lie::Size(message_bytes)));
    }
    bytes.resize(message_bytes, 0);
    let mut client: &UnixStream = client;
    client.read_exact(&mut bytes[HEADER_BYTES..])?;
    check(&mut bytes).map_err(lie)?;
    Ok(Some(Message { bytes, fds }))
}

fn lie(lie: Lie) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, lie)
}

/// Looks whether the server can read a whole message as it is. What it does not know is cut down to
/// its header, because the server would take the rest for the next message.
pub(super) fn check(message: &mut Vec<u8>) -> Result<(), Lie> {
    let command = u16::from_le_bytes([message[2], message[3]]);
    let body = &message[HEADER_BYTES..];
    let body_bytes = body.len();
    let is_whole = match command {
        // Version: numbers, then a text that ends with a zero.
        1 => return check_text(body.get(4..).unwrap_or_default()),
        2 => body_bytes == 32,
        3 => body_bytes == 24,
        4 | 7 => body_bytes == 16,
        5 => body_bytes == 32,
        8 => body_bytes == 20,
        9 => return check_access(body, false),
        10 => return check_access(body, true),
        13 => body_bytes == 0,
        _ => {
            message.truncate(HEADER_BYTES);
            message[4..8].copy_from_slice(&(HEADER_BYTES as u32).to_le_bytes());
            true
        }
    };
    is_whole.then_some(()).ok_or(Lie::Body { command, body_bytes })
}

fn check_text(text: &[u8]) -> Result<(), Lie> {
    match text.split_last() {
        Some((0, text)) if !text.contains(&0) => Ok(()),
        _ => Err(Lie::Text),
    }
}

/// Offset, region and count, and behind them what is written. No region has more than a page but
/// configuration space, which has just that.
fn check_access(body: &[u8], is_write: bool) -> Result<(), Lie> {
    let count = body.get(12..16).map_or(u32::MAX, |count| {
        count.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte))
    });
    let written = if is_write { count as usize } else { 0 };
    match count <= ACCESS_BYTES_MAX && body.len() == 16 + written {
        true => Ok(()),
        false => Err(Lie::Count { count, bytes: body.len() }),
    }
}

fn receive(stream: &UnixStream, bytes: &mut [u8], fds: &mut Received) -> io::Result<usize> {
    let mut room = nix::cmsg_space!([RawFd; FDS_MAX]);
    let mut parts = [IoSliceMut::new(bytes)];
    let (fd, flags) = (stream.as_raw_fd(), MsgFlags::MSG_CMSG_CLOEXEC);
    let received = loop {
        match recvmsg::<()>(fd, &mut parts, Some(&mut room), flags) {
            Err(Errno::EINTR) => {}
            received => break received,
        }
    };
    let message = received?;
    let count = message.bytes;
    let Ok(controls) = message.cmsgs() else {
        fds.0.extend(left_of_cut_short(&room));
        return Err(lie(Lie::TooMany));
    };
    for control in controls {
        if let ControlMessageOwned::ScmRights(received) = control {
            fds.0.extend(received);
        }
    }
    Ok(count)
}

/// Descriptors that the kernel has made of a message whose others were cut off, found in the `room` that it
/// had for them: of such a message the crate tells none, and nobody would close them.
fn left_of_cut_short(room: &[u8]) -> impl Iterator<Item = RawFd> {
    // Its length, with which the header begins, counts the header as well; level and kind follow.
    const HEADER: usize = size_of::<cmsghdr>();
    let length = room.first_chunk().map_or(0, |length| usize::from_ne_bytes(*length));
    let int = |at: usize| room.get(at..)?.first_chunk().map(|int| c_int::from_ne_bytes(*int));
    let kind = (int(size_of::<usize>()), int(size_of::<usize>() + size_of::<c_int>()));
    let rights = room.get(HEADER..length).filter(|_| kind == (Some(SOL_SOCKET), Some(SCM_RIGHTS)));
    rights.unwrap_or_default().as_chunks().0.iter().map(|fd| RawFd::from_ne_bytes(*fd))
}

/// Sends all of it, the descriptors with the first byte.
fn send(stream: &UnixStream, bytes: &[u8], fds: &[RawFd]) -> io::Result<()> {
    let (fd, flags) = (stream.as_raw_fd(), MsgFlags::MSG_NOSIGNAL);
    let rights = [ControlMessage::ScmRights(fds)];
    let mut rights = if fds.is_empty() { &[][..] } else { &rights[..] };
    let mut sent = 0;
    while sent < bytes.len() {
        sent += match sendmsg::<()>(fd, &[IoSlice::new(&bytes[sent..])], rights, flags, None) {
            Err(Errno::EINTR) => continue,
            sent => sent?,
        };
        rights = &[];
    }
    Ok(())
}
