//! A stream whose reads end when they are told to, although nothing comes.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How often a waiting read looks whether it is to end, in milliseconds.
const LOOK_MS: u8 = 100;

/// Reads a file that may be a pipe. When the flag is set, a read that would wait fails.
#[derive(Debug)]
pub(super) struct Stoppable {
    file: File,
    stop: Arc<AtomicBool>,
}

/// Standard input, unbuffered.
pub(super) fn stdin() -> io::Result<File> {
    Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?))
}

impl Stoppable {
    pub(super) fn new(file: File, stop: Arc<AtomicBool>) -> Self {
        Self { file, stop }
    }

    fn has_something(&self) -> io::Result<bool> {
        let mut asked = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
        match poll(&mut asked, PollTimeout::from(LOOK_MS)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Read for Stoppable {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.has_something()? {
            if self.stop.load(Ordering::Relaxed) {
                return Err(io::Error::new(ErrorKind::TimedOut, "stopped while waiting for data"));
            }
        }
        self.file.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn what_comes_is_read_and_a_wait_ends_with_the_flag() {
        let (reader, mut writer) = io::pipe().unwrap();
        let stop = Arc::new(AtomicBool::new(true));
        let file = File::from(std::os::fd::OwnedFd::from(reader));
        let mut stream = Stoppable::new(file, stop);
        writer.write_all(b"abc").unwrap();
        let mut buffer = [0; 8];
        assert_eq!(stream.read(&mut buffer).unwrap(), 3, "the flag does not lose what is there");
        assert_eq!(stream.read(&mut buffer).unwrap_err().kind(), ErrorKind::TimedOut);
        drop(writer);
        assert_eq!(stream.read(&mut buffer).unwrap(), 0);
    }
}
