//! What a camera did: while it runs, and at its end.
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::fault::Tally;
use crate::ledger::{LedgerEntry, LedgerError};

/// Why a camera ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedBy {
    /// All frames of [`Limit::frames`](crate::camera::Limit::frames) are written.
    Frames,
    /// [`Limit::time`](crate::camera::Limit::time) is over.
    Time,
    /// The source has no more pictures.
    Source,
    /// Somebody stopped it.
    Stop,
}

/// What a camera did.
#[derive(Debug)]
pub struct Report {
    /// Whole frames written.
    pub frames: u64,
    /// Sum of their payloads in stuffed bytes.
    pub payload_bytes: u64,
    /// Why it ended.
    pub ended_by: EndedBy,
    /// Frames that began later than half a period after their time: the source or the machine is
    /// too slow for the frame rate.
    pub late_frames: u64,
    /// The most that a frame was behind the schedule.
    pub slip_max: Duration,
    /// The faults that were injected.
    pub faults: Tally,
    /// The ledger, if it was kept in memory.
    pub ledger: Vec<LedgerEntry>,
    /// Why the ledger file is incomplete, if it is.
    pub ledger_error: Option<LedgerError>,
}

/// What a camera has done so far, for a status line.
#[derive(Debug, Default)]
pub struct Emitted {
    frames: AtomicU64,
    payload_bytes: AtomicU64,
    interrupt_line: OnceLock<OwnedFd>,
}

impl Emitted {
    /// Connects the interrupt of the camera: from now on each whole frame, and the camera's end, adds
    /// 1 to this eventfd, after the register page tells of it. There is one line; a later one is
    /// left alone.
    pub fn connect(&self, eventfd: OwnedFd) {
        let _taken = self.interrupt_line.set(eventfd);
    }

    pub(crate) fn interrupt(&self) {
        if let Some(line) = self.interrupt_line.get() {
            // A counter that nobody has looked at for 2^64 frames is full, and says so already.
            let _full = nix::unistd::write(line, &1_u64.to_ne_bytes());
        }
    }

    /// Whole frames written.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    /// Sum of their payloads in stuffed bytes.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes.load(Ordering::Relaxed)
    }

    /// Counts a frame. Only the camera does, so that no locked instruction is needed, which would wait
    /// until the whole frame has left the processor.
    pub(crate) fn add(&self, payload: &[u8]) {
        self.payload_bytes.store(self.payload_bytes() + payload.len() as u64, Ordering::Relaxed);
        self.frames.store(self.frames() + 1, Ordering::Relaxed);
        self.interrupt();
    }
}
