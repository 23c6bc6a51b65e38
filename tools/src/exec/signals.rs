//! Signals: those that are sent to the supervisor and meant for the program, and those that wait
//! for a parked thread.
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use super::target;

/// What is passed on to the program.
const FORWARDED: [Signal; 6] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Signals that do nothing unless they are caught.
const IGNORED: [Signal; 4] = [Signal::SIGCHLD, Signal::SIGCONT, Signal::SIGURG, Signal::SIGWINCH];

/// Signals that come to this process, as something to be read.
#[derive(Debug)]
pub(super) struct Signals {
    arriving: SignalFd,
    /// What was blocked before, and is to be for the program.
    before: SigSet,
}

/// What has come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrived {
    /// A child has ended.
    Child,
    /// A signal for the program, from another process.
    Forward(Signal),
    /// One that the terminal has sent to the program as well.
    Shared,
}

impl Signals {
    /// Takes the signals for this thread and those that it will start.
    pub(super) fn take() -> nix::Result<Signals> {
        let mut set = SigSet::empty();
        FORWARDED.into_iter().chain([Signal::SIGCHLD]).for_each(|signal| set.add(signal));
        let before = set.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let arriving = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Signals { arriving, before })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.arriving.as_fd()
    }

    /// The mask that the program is to have.
    pub(super) fn before(&self) -> SigSet {
        self.before
    }

    /// The next one, if there is one.
    pub(super) fn next(&self) -> Option<Arrived> {
        let arrived = self.arriving.read_signal().ok()??;
        let signal = Signal::try_from(arrived.ssi_signo as i32).ok()?;
        Some(match signal {
            Signal::SIGCHLD => Arrived::Child,
            _ if arrived.ssi_code == libc::SI_KERNEL => Arrived::Shared,
            signal => Arrived::Forward(signal),
        })
    }
}

/// Sends a signal; whoever is gone needs none.
pub(super) fn send(pid: i32, signal: Signal) {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(errno) => log::warn!("cannot send {signal} to process {pid}: {errno}"),
    }
}

/// Whether a signal is pending that the thread will act on.
pub(super) fn is_pending(tid: i32) -> bool {
    target::status(tid).is_some_and(|status| is_pending_in(&status))
}

fn is_pending_in(status: &str) -> bool {
    let field = |name| target::status_field(status, name).unwrap_or(0);
    let bit = |signal: Signal| 1_u64 << (signal as i32 - 1);
    let unheard = IGNORED.map(bit).into_iter().sum::<u64>() & !field("SigCgt");
    let pending = field("SigPnd") | field("ShdPnd");
    pending & !field("SigBlk") & !field("SigIgn") & !unheard != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_counts_if_the_thread_will_act_on_it() {
        let status = |own: u64, shared: u64, blocked: u64, ignored: u64, caught: u64| {
            is_pending_in(&format!(
                "Name:\tx\nSigQ:\t1/2\nSigPnd:\t{own:016x}\nShdPnd:\t{shared:016x}\n\
                 SigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\n"
            ))
        };
        let (interrupt, child) = (1 << 1, 1 << 16);
        assert!(!status(0, 0, 0, 0, interrupt));
        assert!(status(interrupt, 0, 0, 0, 0));
        assert!(status(0, interrupt, 0, 0, interrupt));
        assert!(!status(0, interrupt, interrupt, 0, interrupt), "blocked");
        assert!(!status(0, interrupt, 0, interrupt, 0), "ignored");
        assert!(!status(child, 0, 0, 0, 0), "ignored unless caught");
        assert!(status(child, 0, 0, 0, child));
    }
}
