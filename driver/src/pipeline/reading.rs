//! One channel as the capturing thread has it: what it finds, when to look again, when it is over.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::ending::Teller;
use super::rhythm::{Pause, Rhythm};
use super::view::UNKNOWN;
use super::{EndedBy, Limits, PipelineError};
use crate::capture::{Capture, Captured};
use crate::clock::{Clock, Moment};
use crate::device::DeviceError;
use crate::dispatch::Losses;
use crate::wait::Wait;

/// One channel at work.
pub(super) struct Reading {
    capture: Capture,
    limits: Limits,
    wait: Wait,
    shared: Shared,
    rhythm: Rhythm,
    quiet_since: Moment,
    checked: Moment,
    /// The camera was found to be gone: one more step reads whatever was complete then.
    last_look: Option<EndedBy>,
    abandoned: bool,
    /// How the device failed. What it had completed is still read.
    failed: Option<DeviceError>,
    frames: u64,
    /// The last field: when it is dropped, the consumers' queues are closed.
    teller: Teller,
}

/// What others have to do with it.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    /// Asks for the end.
    pub(super) stop: Arc<AtomicBool>,
    /// Frames that the device had completed at the end.
    pub(super) expected: Arc<AtomicU64>,
    /// Losses that no frame followed, for the archive.
    pub(super) left: Arc<Mutex<Losses>>,
}

/// What a turn came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// A frame was found, and is in the queues.
    Frame,
    /// Something was lost.
    Loss,
    /// There is one more look to take.
    Again,
    /// There was nothing.
    Idle(Pause),
    /// It is over.
    Over(EndedBy),
}

impl Reading {
    /// How often the device is looked at from outside while nothing comes.
    const CHECK: Duration = Duration::from_millis(250);

    /// The longest sleep at a node: nobody but the camera interrupts it.
    const NODE_NAP: Duration = Duration::from_millis(100);

    /// How long a consumer with a full queue may take no frame when the camera has ended.
    const PATIENCE: Duration = Duration::from_secs(1);

    pub(super) fn new(
        capture: Capture,
        (limits, wait): (Limits, Wait),
        shared: Shared,
        teller: Teller,
    ) -> Reading {
        let now = Moment::now();
        Reading {
            capture,
            limits,
            wait,
            shared,
            rhythm: Rhythm::new(wait),
            quiet_since: now,
            checked: now,
            last_look: None,
            abandoned: false,
            failed: None,
            frames: 0,
            teller,
        }
    }

    /// One step of the capture, and what follows from it.
    pub(super) fn turn(&mut self, now: Moment, clock: &Clock) -> Result<Turn, DeviceError> {
        if self.shared.stop.load(Ordering::Relaxed) {
            return Ok(Turn::Over(EndedBy::Stop));
        }
        if self.has_lost_too_much() {
            return Ok(Turn::Over(EndedBy::Loss));
        }
        let step = self.capture.step(now, || clock.now());
        let captured = step.or_else(|error| self.outlive(error).map(|()| Captured::Nothing))?;
        if self.failed.is_none() && now.since(self.checked) >= Self::CHECK {
            self.check(now).or_else(|error| self.outlive(error))?;
        }
        Ok(match captured {
            Captured::Nothing => self.found_nothing(now),
            Captured::Frame | Captured::Loss => self.found(captured, now),
        })
    }

    /// Which share of the ring the writer may still write before it reaches what is read next.
    pub(super) fn headroom(&self) -> Option<f64> {
        let device = &self.capture.device;
        let bytes = self.capture.tail().headroom_bytes(device)?;
        Some(bytes as f64 / device.ring().bytes() as f64)
    }

    /// Sleeps for so long, or at a camera's node until the pointer moves. Whoever only sleeps need not get up
    /// before, but in time to know that it has not gone round.
    pub(super) fn sleep(&self, nap: Duration) {
        let device = &self.capture.device;
        match (device.node(), device.pointer()) {
            (Some(node), Some(pointer)) if !self.capture.is_settling() => {
                let patience = Duration::from_nanos(pointer.window_ns() / 4).min(Self::NODE_NAP);
                node.wait(if self.wait == Wait::Sleep { patience } else { nap });
            }
            _ => device.sleep(nap),
        }
    }

    /// Closes the books of the ring, lets the consumers go and tells that it is over.
    pub(super) fn end(mut self, ended_by: Result<EndedBy, DeviceError>) {
        let ended_by = self.first_failure(ended_by);
        let frames = self.capture.expected();
        // A driver that ends before its camera is not answerable for what that completes later.
        let found = || {
            let books = self.capture.books();
            books.detected + books.overrun
        };
        let camera_ended = matches!(ended_by, Ok(EndedBy::Camera | EndedBy::Abandoned));
        let frames = frames.map(|frames| if camera_ended { frames } else { found() });
        self.shared.expected.store(frames.unwrap_or(UNKNOWN), Ordering::Release);
        if let Some(arch) = &mut self.capture.arch {
            let mut left = self.shared.left.lock().unwrap_or_else(PoisonError::into_inner);
            *left = arch.take_untold();
        }
        self.teller.ended = Some(ended_by.map_err(PipelineError::from));
    }

    /// Goes on after the failure of a device that leaves its ring, as if it had been abandoned.
    fn outlive(&mut self, error: DeviceError) -> Result<(), DeviceError> {
        if self.failed.is_some() || !error.leaves_ring() {
            return Err(error);
        }
        self.capture.outlive_device();
        self.failed = Some(error);
        Ok(())
    }

    /// How it ended: whatever came of a device that had failed, that is what is told.
    fn first_failure(
        &mut self,
        ended_by: Result<EndedBy, DeviceError>,
    ) -> Result<EndedBy, DeviceError> {
        let Some(failed) = self.failed.take() else { return ended_by };
        self.capture.give_up();
        Err(failed)
    }

    fn check(&mut self, now: Moment) -> Result<(), DeviceError> {
        let device = &self.capture.device;
        device.check()?;
        let is_quiet = now.since(self.quiet_since) >= Self::CHECK;
        (self.checked, self.abandoned) = (now, is_quiet && device.is_abandoned());
        Ok(())
    }

    fn found(&mut self, captured: Captured, now: Moment) -> Turn {
        self.frames += u64::from(captured == Captured::Frame);
        if self.limits.frames.is_some_and(|limit| self.frames >= limit) {
            return Turn::Over(EndedBy::Frames);
        }
        (self.quiet_since, self.last_look) = (now, None);
        self.rhythm.found(now.monotonic_ns);
        if captured == Captured::Frame { Turn::Frame } else { Turn::Loss }
    }

    fn found_nothing(&mut self, now: Moment) -> Turn {
        let drained = self.capture.is_drained();
        if let Some(ended_by) = self.last_look.filter(|_| drained) {
            return Turn::Over(ended_by);
        }
        self.last_look = match self.capture.device.has_ended() {
            true => Some(EndedBy::Camera),
            false => (self.abandoned || self.failed.is_some()).then_some(EndedBy::Abandoned),
        };
        let quiet = now.since(self.quiet_since);
        if self.limits.silence.is_some_and(|limit| quiet >= limit) {
            return Turn::Over(EndedBy::Silence);
        }
        if self.last_look.is_some() && quiet >= Self::PATIENCE {
            self.capture.hurry();
        }
        match self.last_look.is_some() && drained {
            true => Turn::Again,
            false => Turn::Idle(self.rhythm.pause(now.monotonic_ns)),
        }
    }

    fn has_lost_too_much(&self) -> bool {
        self.limits.lost.is_some_and(|limit| {
            let books = self.capture.books();
            limit.is_exceeded(books.lost(), books.detected + books.overrun)
        })
    }
}
