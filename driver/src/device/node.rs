//! A camera's character device: where the kernel says that the FPGA is, and how to wait for it.
//!
//! The commands move the position of the open file, which is the driver's own: whoever else has opened the
//! node has another one. `LSEEK_CIRC_TOWP` leaves it at the write pointer, where `poll` waits until that
//! moves; it says `POLLHUP` if the position is that of no frame any more, which behind a look at the
//! pointer means that it has moved as well.
//!
//! `LSEEK_CIRC_GETFRAME` is left alone: a 393 numbers the frames of its sensor by it, and not all of them
//! come into the ring; a 353 does not have it.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::time::Duration;

use circbuf_abi::node::LSEEK_CIRC_TOWP;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use crate::clock::monotonic_ns;
use crate::pointer::Sighting;

/// An open node.
#[derive(Debug)]
pub(crate) struct Node {
    file: File,
}

impl Node {
    pub(super) fn new(file: File) -> Node {
        Node { file }
    }

    /// Where the write pointer is.
    pub(super) fn look(&self) -> io::Result<Sighting> {
        let before_ns = monotonic_ns();
        let pointer = (&self.file).seek(SeekFrom::End(LSEEK_CIRC_TOWP))?;
        Ok(Sighting { pointer, before_ns, after_ns: monotonic_ns() })
    }

    /// Sleeps until the pointer is not where it was at the last look, at most for so long.
    pub(crate) fn wait(&self, patience: Duration) {
        let mut waiting = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
        // Whatever it says, the next look tells what it means; an error is mostly a signal.
        if ppoll(&mut waiting, Some(TimeSpec::from_duration(patience)), None).is_err() {
            std::thread::yield_now();
        }
    }
}
