//! Messages of vfio-user over a stream, with the file descriptors that go along with them.

use std::io::{self, IoSlice, IoSliceMut, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::{SCM_RIGHTS, SOL_SOCKET, c_int, cmsghdr};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    connect, recvmsg, sendmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// Descriptors that a reply may carry.
const FDS_MAX: usize = 4;

/// Size of a message's header.
pub(super) const HEADER_BYTES: usize = 16;

/// The header of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) id: u16,
    pub(super) command: u16,
    /// The header included.
    pub(super) message_bytes: u32,
    pub(super) flags: u32,
    pub(super) errno: u32,
}

impl Header {
    pub(super) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..2].copy_from_slice(&self.id.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.command.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.message_bytes.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.flags.to_le_bytes());
        bytes[12..].copy_from_slice(&self.errno.to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8; HEADER_BYTES]) -> Header {
        let u16_at = |at| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        Header {
            id: u16_at(0),
            command: u16_at(2),
            message_bytes: u32_at(4),
            flags: u32_at(8),
            errno: u32_at(12),
        }
    }
}

/// A connection on which nothing waits for ever.
#[derive(Debug)]
pub(super) struct Wire {
    stream: UnixStream,
    /// How long the server may take to read a request, or to answer it.
    patience: Duration,
}

/// Calls again what a signal, or work of the kernel's in this thread, has interrupted: with a time limit on a
/// socket the kernel itself never does.
fn uninterrupted<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            called => return called,
        }
    }
}

impl Wire {
    pub(super) fn connect(path: &Path, patience: Duration) -> io::Result<Wire> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        // Before it connects: a server that does not accept would be waited for as well.
        let limit = TimeVal::milliseconds(patience.as_millis() as i64);
        setsockopt(&socket, sockopt::SendTimeout, &limit)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &limit)?;
        let address = UnixAddr::new(path)?;
        let connected = uninterrupted(|| connect(socket.as_raw_fd(), &address));
        let wire = Wire { stream: UnixStream::from(socket), patience };
        connected.map_err(|errno| wire.timely(errno))?;
        Ok(wire)
    }

    /// Sends a whole message.
    pub(super) fn send(&self, message: &[u8], fds: &[RawFd]) -> io::Result<()> {
        let rights = [ControlMessage::ScmRights(fds)];
        let rights = if fds.is_empty() { &[][..] } else { &rights[..] };
        let (fd, flags) = (self.stream.as_raw_fd(), MsgFlags::MSG_NOSIGNAL);
        let parts = [IoSlice::new(message)];
        let sent = uninterrupted(|| sendmsg::<()>(fd, &parts, rights, flags, None))
            .map_err(|errno| self.timely(errno))?;
        match sent == message.len() {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::TimedOut, "it does not read its requests")),
        }
    }

    /// Receives a header, and the descriptors that came with it.
    pub(super) fn header(&self) -> io::Result<(Header, Vec<OwnedFd>)> {
        let (mut bytes, mut fds) = ([0; HEADER_BYTES], Vec::new());
        let mut filled = 0;
        while filled < HEADER_BYTES {
            filled += self.receive(&mut bytes[filled..], &mut fds)?;
        }
        Ok((Header::parse(&bytes), fds))
    }

    /// Receives what stands behind a header.
    pub(super) fn body(&self, bytes: &mut [u8]) -> io::Result<()> {
        (&self.stream).read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => self.timely(Errno::EAGAIN),
            _ => error,
        })
    }

    fn receive(&self, bytes: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
        let mut room = nix::cmsg_space!([RawFd; FDS_MAX]);
        let mut parts = [IoSliceMut::new(bytes)];
        let fd = self.stream.as_raw_fd();
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received = loop {
            match recvmsg::<()>(fd, &mut parts, Some(&mut room), flags) {
                Err(Errno::EINTR) => {}
                received => break received,
            }
        };
        let message = received.map_err(|errno| self.timely(errno))?;
        // SAFETY: the kernel made these descriptors for this process a moment ago, and nobody else knows
        // their numbers.
        let own = |fd| unsafe { OwnedFd::from_raw_fd(fd) };
        let count = message.bytes;
        let Ok(controls) = message.cmsgs() else {
            drop(left_of_cut_short(&room).map(own).collect::<Vec<_>>());
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "it sends more descriptors than the {FDS_MAX} that an answer may have, or than this \
                     process has room for (ulimit -n)"
                ),
            ));
        };
        for control in controls {
            if let ControlMessageOwned::ScmRights(received) = control {
                fds.extend(received.into_iter().map(own));
            }
        }
        match count {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server has hung up")),
            bytes => Ok(bytes),
        }
    }

    fn timely(&self, errno: Errno) -> io::Error {
        match errno {
            Errno::EAGAIN | Errno::EINPROGRESS => io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {} s", self.patience.as_secs_f64()),
            ),
            Errno::EPIPE | Errno::ECONNRESET => {
                io::Error::new(io::ErrorKind::BrokenPipe, "the server has hung up")
            }
            errno => errno.into(),
        }
    }
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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    /// The server's end of a connection, and the client.
    fn connection() -> (UnixStream, Wire) {
        let (server, stream) = UnixStream::pair().unwrap();
        (server, Wire { stream, patience: Duration::from_secs(5) })
    }

    /// Sends a header with a pipe's writing end, so many times.
    fn send_ends(server: &UnixStream, ends: usize) -> io::PipeReader {
        let (reader, writer) = io::pipe().unwrap();
        let fds = vec![writer.as_fd().as_raw_fd(); ends];
        let rights = [ControlMessage::ScmRights(&fds)];
        let header = [IoSlice::new(&[1; HEADER_BYTES])];
        sendmsg::<()>(server.as_raw_fd(), &header, &rights, MsgFlags::empty(), None).unwrap();
        reader
    }

    #[test]
    fn descriptors_that_nobody_asked_for_are_refused_and_closed() {
        for ends in [FDS_MAX + 1, 200] {
            let (server, wire) = connection();
            let mut reader = send_ends(&server, ends);
            let error = wire.header().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
            assert!(error.to_string().contains("more descriptors than the 4"), "{error}");
            // It ends where nobody holds the other end any more.
            assert_eq!(reader.read_to_end(&mut Vec::new()).unwrap(), 0, "{ends} descriptors");
        }
    }

    #[test]
    fn as_many_as_an_answer_may_have_are_the_callers() {
        let (server, wire) = connection();
        let mut reader = send_ends(&server, FDS_MAX);
        let (_, fds) = wire.header().unwrap();
        assert_eq!(fds.len(), FDS_MAX);
        std::fs::File::from(fds.into_iter().next_back().unwrap()).write_all(b"!").unwrap();
        assert_eq!(reader.read_to_end(&mut Vec::new()).unwrap(), 1, "and were closed with it");
    }
}
