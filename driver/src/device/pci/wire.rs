//! Messages of vfio-user over a stream, with the file descriptors that go along with them.

use std::io::{self, IoSlice, IoSliceMut, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
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

use super::check_socket_path;

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

/// What stands at the path, if that is something else than a socket: to connect to it is refused, as if
/// nobody listened yet.
fn no_socket(path: &Path) -> Option<io::Error> {
    let kind = std::fs::metadata(path).ok()?.file_type();
    if kind.is_socket() {
        return None;
    }
    let what = if kind.is_dir() { "a folder" } else { "a file" };
    let sentence = format!(
        "it is {what} and no socket; name the one at which a server of vfio-user listens, such as \
         circbuf emulate --socket SOCKET"
    );
    Some(io::Error::new(io::ErrorKind::InvalidInput, sentence))
}

impl Wire {
    pub(super) fn connect(path: &Path, patience: Duration) -> io::Result<Wire> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        // Before it connects: a server that does not accept would be waited for as well.
        let limit = TimeVal::milliseconds(patience.as_millis() as i64);
        setsockopt(&socket, sockopt::SendTimeout, &limit)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &limit)?;
        let unnamed = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
        check_socket_path(path).map_err(unnamed)?;
        let address = UnixAddr::new(path)?;
        let connected = uninterrupted(|| connect(socket.as_raw_fd(), &address));
        let wire = Wire { stream: UnixStream::from(socket), patience };
        connected.map_err(|errno| no_socket(path).unwrap_or_else(|| wire.timely(errno)))?;
        Ok(wire)
    }

    /// Sends a whole message.
    pub(super) fn send(&self, message: &[u8], fds: &[RawFd]) -> io::Result<()> {
        let rights = [ControlMessage::ScmRights(fds)];
        let mut rights = if fds.is_empty() { &[][..] } else { &rights[..] };
        let (fd, flags) = (self.stream.as_raw_fd(), MsgFlags::MSG_NOSIGNAL);
        let mut sent = 0;
        // A signal, or the limit, may end a call in the middle of a message.
        while sent < message.len() {
            let parts = [IoSlice::new(&message[sent..])];
            sent += uninterrupted(|| sendmsg::<()>(fd, &parts, rights, flags, None))
                .map_err(|errno| self.timely(errno))?;
            rights = &[];
        }
        Ok(())
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
        // their numbers. So it is where the message was cut short: `room` was zeros, and the length in its
        // header counts only what the kernel has put there.
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
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    use nix::sys::socket::{Backlog, bind, listen, recv};
    use nix::unistd::{Pid, getpid, gettid};

    use super::*;

    /// The server's end of a connection, and the client.
    fn connection() -> (UnixStream, Wire) {
        let (server, stream) = UnixStream::pair().unwrap();
        (server, Wire { stream, patience: Duration::from_secs(5) })
    }

    /// Sends a header with a pipe's writing end, so many times.
    fn send_ends(server: &UnixStream, ends: usize) -> io::PipeReader {
        let (reader, writer) = io::pipe().unwrap();
        // To read where a writing end is left is an error, and does not wait.
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let fds = vec![writer.as_fd().as_raw_fd(); ends];
        let rights = [ControlMessage::ScmRights(&fds)];
        let header = [IoSlice::new(&[1; HEADER_BYTES])];
        sendmsg::<()>(server.as_raw_fd(), &header, &rights, MsgFlags::empty(), None).unwrap();
        reader
    }

    #[test]
    fn descriptors_that_nobody_asked_for_are_refused_and_closed() {
        for ends in [1, FDS_MAX, FDS_MAX + 1, 200] {
            let (server, wire) = connection();
            let mut reader = send_ends(&server, ends);
            match wire.header() {
                Ok((_, fds)) => assert!(fds.len() == ends && ends <= FDS_MAX, "{ends} {fds:?}"),
                Err(error) => {
                    assert!(ends > FDS_MAX && error.kind() == io::ErrorKind::InvalidData);
                    assert!(error.to_string().contains("more descriptors than the 4"), "{error}");
                }
            }
            // It ends where nobody holds the other end any more.
            assert_eq!(reader.read_to_end(&mut Vec::new()).unwrap(), 0, "{ends} descriptors");
        }
    }

    static INTERRUPTIONS: AtomicU32 = AtomicU32::new(0);

    extern "C" fn note(_: c_int) {
        INTERRUPTIONS.fetch_add(1, Ordering::SeqCst);
    }

    /// A thread whose system calls are ended by a signal: its handler has not SA_RESTART.
    struct Sleeper(Pid);

    impl Sleeper {
        fn new() -> Sleeper {
            let action =
                SigAction::new(SigHandler::Handler(note), SaFlags::empty(), SigSet::empty());
            // SAFETY: the handler adds to an atomic number, and nobody else has one for this signal.
            unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
            Sleeper(gettid())
        }

        /// Waits until the thread sleeps in a system call, and has it end that.
        fn interrupt(&self) {
            let sleeps = || {
                let stat = std::fs::read_to_string(format!("/proc/self/task/{}/stat", self.0));
                stat.unwrap().rsplit_once(") ").unwrap().1.starts_with('S')
            };
            while !sleeps() {
                std::thread::yield_now();
            }
            let before = INTERRUPTIONS.load(Ordering::SeqCst);
            let (call, signal) = (nix::libc::SYS_tgkill, Signal::SIGUSR1 as c_int);
            // SAFETY: it sends a signal, which has a handler, to a thread of this process.
            let sent =
                unsafe { nix::libc::syscall(call, getpid().as_raw(), self.0.as_raw(), signal) };
            assert_eq!(sent, 0);
            while INTERRUPTIONS.load(Ordering::SeqCst) == before {
                std::thread::yield_now();
            }
        }
    }

    /// Has `client` talk in a thread of its own, to a server that is told how to interrupt it.
    fn talk<T: Send>(client: impl FnOnce() -> T + Send, server: impl FnOnce(&Sleeper) + Send) -> T {
        let (sender, sleeper) = mpsc::channel();
        std::thread::scope(|scope| {
            let client = scope.spawn(move || {
                sender.send(Sleeper::new()).unwrap();
                client()
            });
            server(&sleeper.recv().unwrap());
            client.join().unwrap()
        })
    }

    /// A message that no socket takes at once.
    const LONG: usize = 4 << 20;

    #[test]
    fn what_a_signal_interrupts_is_called_again() {
        let (mut server, wire) = connection();
        let stream = wire.stream.try_clone().unwrap();
        let raw = || recv(stream.as_raw_fd(), &mut [0], MsgFlags::empty());
        // The server has nothing to say: without another call the client would have to take this for an end.
        assert_eq!(talk(raw, |client| client.interrupt()), Err(Errno::EINTR));
        let answer: Vec<u8> = (1..=40).collect();
        let hear = || {
            let (header, _) = wire.header().unwrap();
            let mut body = vec![0; answer.len() - HEADER_BYTES];
            wire.body(&mut body).unwrap();
            [header.to_bytes().to_vec(), body].concat()
        };
        let heard = talk(hear, |client| {
            for byte in &answer {
                client.interrupt();
                server.write_all(&[*byte]).unwrap();
            }
        });
        assert_eq!(heard, answer);
        let request: Vec<u8> = (0..LONG).map(|at| at as u8).collect();
        let mut read = vec![0; LONG];
        let say = || wire.send(&request, &[]);
        talk(say, |client| {
            for part in read.chunks_mut(LONG / 4) {
                client.interrupt();
                server.read_exact(part).unwrap();
            }
        })
        .unwrap();
        assert!(read == request);
    }

    #[test]
    fn a_connection_that_a_signal_interrupts_is_made_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("busy");
        let flags = SockFlag::SOCK_CLOEXEC;
        let listener = socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
        bind(listener.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        listen(&listener, Backlog::new(0).unwrap()).unwrap();
        // Whoever comes next has to wait until this one was accepted.
        let first = UnixStream::connect(&path).unwrap();
        let listener = std::os::unix::net::UnixListener::from(listener);
        let connect = || Wire::connect(&path, Duration::from_secs(60));
        let accepted = |client: &Sleeper| {
            client.interrupt();
            drop((first, listener.accept().unwrap()));
        };
        talk(connect, accepted).unwrap();
    }
}
