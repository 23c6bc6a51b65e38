//! The capturing thread.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::view::UNKNOWN;
use super::{EndedBy, Limits};
use crate::capture::{Capture, Captured, lock};
use crate::clock::Moment;
use crate::device::DeviceError;
use crate::dispatch::Losses;

/// The capturing thread.
pub(super) struct Run {
    pub(super) capture: Capture,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) limits: Limits,
    /// Losses that no frame followed, for the archive.
    pub(super) left: Arc<Mutex<Losses>>,
}

impl Run {
    /// How often the device is looked at from outside while nothing comes.
    const CHECK: Duration = Duration::from_millis(250);

    /// How long a consumer with a full queue may take no frame when the camera has ended.
    const PATIENCE: Duration = Duration::from_secs(1);

    pub(super) fn run(mut self, expected: &AtomicU64) -> Result<EndedBy, DeviceError> {
        let ended_by = self.capture();
        let frames = self.capture.expected();
        // A driver that ends before its camera is not answerable for what that completes later.
        let found = || {
            let books = lock(&self.capture.books);
            books.detected + books.overrun
        };
        let camera_ended = matches!(ended_by, Ok(EndedBy::Camera | EndedBy::Abandoned));
        let frames = frames.map(|frames| if camera_ended { frames } else { found() });
        expected.store(frames.unwrap_or(UNKNOWN), Ordering::Release);
        if let Some(arch) = &mut self.capture.arch {
            *self.left.lock().unwrap_or_else(PoisonError::into_inner) = arch.take_untold();
        }
        ended_by
    }

    fn capture(&mut self) -> Result<EndedBy, DeviceError> {
        let mut pause = Pause::default();
        let mut quiet_since = Moment::now();
        let mut checked = quiet_since;
        let (mut last_look, mut abandoned) = (None, false);
        let mut frames = 0;
        while !self.stop.load(Ordering::Relaxed) {
            if self.has_lost_too_much() {
                return Ok(EndedBy::Loss);
            }
            let now = Moment::now();
            let captured = self.capture.step(now, Moment::now)?;
            if now.since(checked) >= Self::CHECK {
                checked = now;
                self.capture.device.check()?;
                abandoned =
                    now.since(quiet_since) >= Self::CHECK && self.capture.device.is_abandoned();
            }
            if captured != Captured::Nothing {
                frames += u64::from(captured == Captured::Frame);
                if self.limits.frames.is_some_and(|limit| frames >= limit) {
                    return Ok(EndedBy::Frames);
                }
                (quiet_since, last_look) = (now, None);
                pause.reset();
                continue;
            }
            // Whatever was complete when the camera was found to be gone is read by one more step.
            let drained = self.capture.is_drained();
            if let Some(ended_by) = last_look.filter(|_| drained) {
                return Ok(ended_by);
            }
            last_look = match self.capture.device.has_ended() {
                true => Some(EndedBy::Camera),
                false => abandoned.then_some(EndedBy::Abandoned),
            };
            if self.limits.silence.is_some_and(|limit| now.since(quiet_since) >= limit) {
                return Ok(EndedBy::Silence);
            }
            if last_look.is_some() && now.since(quiet_since) >= Self::PATIENCE {
                self.capture.hurry();
            }
            if last_look.is_none() || !drained {
                pause.sleep();
            }
        }
        Ok(EndedBy::Stop)
    }

    fn has_lost_too_much(&self) -> bool {
        self.limits.lost.is_some_and(|limit| {
            let books = lock(&self.capture.books);
            limit.is_exceeded(books.lost(), books.detected + books.overrun)
        })
    }
}

/// How long to sleep when nothing has come: not at all at first, then longer and longer up to 2 ms, in
/// which a camera at 80 MB/s writes 160 KB.
#[derive(Default)]
struct Pause {
    tries: u32,
}

impl Pause {
    const YIELDS: u32 = 20;

    fn reset(&mut self) {
        self.tries = 0;
    }

    fn sleep(&mut self) {
        self.tries = self.tries.saturating_add(1);
        match self.tries.checked_sub(Self::YIELDS) {
            None => std::thread::yield_now(),
            Some(tries) => std::thread::sleep(
                Duration::from_micros(50 << tries.min(6)).min(Duration::from_millis(2)),
            ),
        }
    }
}
