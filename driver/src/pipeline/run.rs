//! The capturing thread.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::prctl::set_timerslack;

use super::rhythm::{Pause, Rhythm};
use super::view::UNKNOWN;
use super::{EndedBy, Limits};
use crate::capture::{Capture, Captured};
use crate::clock::Clock;
use crate::device::DeviceError;
use crate::dispatch::Losses;
use crate::wait::{Spin, Wait};

/// The capturing thread.
pub(super) struct Run {
    pub(super) capture: Capture,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) limits: Limits,
    pub(super) wait: Wait,
    pub(super) spin: Spin,
    /// Losses that no frame followed, for the archive.
    pub(super) left: Arc<Mutex<Losses>>,
}

impl Run {
    /// How often the device is looked at from outside while nothing comes.
    const CHECK: Duration = Duration::from_millis(250);

    /// How long a consumer with a full queue may take no frame when the camera has ended.
    const PATIENCE: Duration = Duration::from_secs(1);

    pub(super) fn run(mut self, expected: &AtomicU64) -> Result<EndedBy, DeviceError> {
        // Naps are short: with the usual 50 us of slack they would end twice as late. Where it cannot be
        // had, they do.
        let _as_it_was = set_timerslack(1);
        let ended_by = self.capture();
        let frames = self.capture.expected();
        // A driver that ends before its camera is not answerable for what that completes later.
        let found = || {
            let books = self.capture.books();
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
        let (clock, mut rhythm) = (Clock::new(), Rhythm::new(self.wait));
        let mut now = clock.now();
        let (mut quiet_since, mut checked) = (now, now);
        let (mut last_look, mut abandoned) = (None, false);
        let mut frames = 0;
        while !self.stop.load(Ordering::Relaxed) {
            if self.has_lost_too_much() {
                return Ok(EndedBy::Loss);
            }
            let captured = self.capture.step(now, || clock.now())?;
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
                rhythm.found(now.monotonic_ns);
                self.spin.reset();
                // The end of this frame is the beginning of the next: one look at the clock for both.
                now = if captured == Captured::Frame { clock.last() } else { clock.now() };
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
                self.pause(&mut rhythm, now.monotonic_ns);
            }
            now = clock.now();
        }
        Ok(EndedBy::Stop)
    }

    fn pause(&mut self, rhythm: &mut Rhythm, now_ns: u64) {
        match rhythm.pause(now_ns) {
            Pause::Spin => drop(self.spin.relax()),
            Pause::Sleep(nap) => {
                self.spin.reset();
                self.capture.device.sleep(nap);
            }
        }
    }

    fn has_lost_too_much(&self) -> bool {
        self.limits.lost.is_some_and(|limit| {
            let books = self.capture.books();
            limit.is_exceeded(books.lost(), books.detected + books.overrun)
        })
    }
}
