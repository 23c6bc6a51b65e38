//! Calls that wait for a frame, and what ends them.
use std::os::fd::BorrowedFd;
use std::time::Instant;

use nix::errno::Errno;
use nix::libc::SEEK_END;
use nix::poll::{PollFd, PollFlags};

use super::device::Devices;
use super::lookup::Opened;
use super::seccomp::Call;
use super::seek;
use super::select::Selection;
use super::signals;
use super::supervisor::Reply;

/// What a parked call waits for.
#[derive(Debug)]
pub(super) enum Wait {
    /// `lseek` with a command that sleeps.
    Frame { opened: Opened, command: i64 },
    /// `poll`, `select` and their like.
    Selection(Selection),
}

/// A call that is not answered yet.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) call: Call,
    pub(super) wait: Wait,
}

impl Parked {
    /// What the call returns, if it need not wait longer.
    pub(super) fn ended(&self, devices: &mut Devices) -> Option<Reply> {
        match &self.wait {
            Wait::Frame { opened, command } => {
                seek::sought(devices, opened, *command, SEEK_END).map(Reply::from)
            }
            Wait::Selection(selection) => selection.ended(devices, &self.call),
        }
    }

    /// EINTR, if a signal is there that the thread will take. The wait for a frame takes none: as
    /// on a camera, only its end does.
    pub(super) fn interrupted(&self) -> Option<Reply> {
        match self.wait {
            Wait::Frame { .. } => None,
            Wait::Selection(_) => {
                signals::is_pending(self.call.tid).then(|| Err(Errno::EINTR).into())
            }
        }
    }

    /// When it ends without a frame.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.wait {
            Wait::Frame { .. } => None,
            Wait::Selection(selection) => selection.deadline(),
        }
    }

    /// The other descriptors that may end it.
    pub(super) fn others(&self) -> Vec<PollFd<'_>> {
        match &self.wait {
            Wait::Frame { .. } => Vec::new(),
            Wait::Selection(selection) => selection.others().collect(),
        }
    }
}

/// A descriptor of ours to be looked at.
pub(super) fn readable(descriptor: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::new(descriptor, PollFlags::POLLIN)
}
