//! How a consumer's thread comes by its next frame.

use std::time::Duration;

use crate::clock::monotonic_ns;
use crate::dispatch::{Delivery, Inlet, NoDelivery};
use crate::wait::{Spin, Wait};

/// A queue and the way to wait at it.
#[derive(Debug, Clone)]
pub(super) struct Intake {
    frames: Inlet,
    wait: Wait,
    spin: Spin,
    /// When the last frame was found, and how long after the one before.
    detected_ns: u64,
    interval_ns: u64,
}

impl Intake {
    /// Frames that come closer together than this find their consumer awake: a wake-up costs the one
    /// who wakes 12 to 14 us and takes 25 to 30 us, so that with frames at half of this distance the
    /// capture would be busy with nothing else.
    const BRISK_NS: u64 = 60_000;

    /// How long to spin behind a frame that came so soon.
    const SPIN_NS: u64 = 2 * Self::BRISK_NS;

    pub(super) fn new(frames: Inlet, wait: Wait, spin: Spin) -> Intake {
        Intake { frames, wait, spin, detected_ns: 0, interval_ns: u64::MAX }
    }

    /// The queue, for whoever does not wait.
    pub(super) fn frames(&self) -> &Inlet {
        &self.frames
    }

    /// The next frame; waits for it at most for so long, if that is told.
    pub(super) fn next(&mut self, patience: Option<Duration>) -> Result<Delivery, NoDelivery> {
        let spins_ns = match self.wait {
            Wait::Spin => u64::MAX,
            Wait::Adaptive if self.interval_ns < Self::BRISK_NS => Self::SPIN_NS,
            Wait::Adaptive | Wait::Sleep => 0,
        };
        let patience_ns = patience.map_or(u64::MAX, |patience| patience.as_nanos() as u64);
        let mut next = match spins_ns {
            0 => Err(NoDelivery::Yet),
            _ => self.spin(spins_ns.min(patience_ns)),
        };
        if matches!(next, Err(NoDelivery::Yet)) && self.wait != Wait::Spin {
            next = match patience {
                None => self.frames.recv().ok_or(NoDelivery::EverAgain),
                Some(patience) => self.frames.recv_timeout(patience),
            };
        }
        if let Ok(delivery) = &next {
            self.note(delivery.detected.monotonic_ns);
        }
        next
    }

    fn spin(&mut self, most_ns: u64) -> Result<Delivery, NoDelivery> {
        self.spin.reset();
        let mut began_ns = None;
        loop {
            let next = self.frames.look();
            if !matches!(next, Err(NoDelivery::Yet)) {
                return next;
            }
            // For ever needs no clock.
            if self.spin.relax() && most_ns < u64::MAX {
                let now_ns = monotonic_ns();
                if now_ns.saturating_sub(*began_ns.get_or_insert(now_ns)) >= most_ns {
                    return next;
                }
            }
        }
    }

    fn note(&mut self, detected_ns: u64) {
        self.interval_ns = detected_ns.saturating_sub(self.detected_ns);
        self.detected_ns = detected_ns;
    }
}
