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
    /// Frames that may wait for a moment, so that several are taken at once.
    unhurried_frames: u64,
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

    /// What frames wait for who is not in a hurry, if the next one is likely to come within it. Nobody has to
    /// wake him up, and one look finds them all.
    const NAP: Duration = Duration::from_millis(2);

    pub(super) fn new(frames: Inlet, wait: Wait, spin: Spin) -> Intake {
        Intake { frames, wait, spin, unhurried_frames: 0, detected_ns: 0, interval_ns: u64::MAX }
    }

    /// For a consumer on whom nobody waits, in whose hands so many frames may be: a part of them is spent
    /// on naps.
    pub(super) fn unhurried(self, frames: usize) -> Intake {
        Intake { unhurried_frames: frames as u64 / 4, ..self }
    }

    /// The frames that wait, and those that come meanwhile.
    pub(super) fn try_iter(&mut self) -> impl Iterator<Item = Delivery> + '_ {
        std::iter::from_fn(|| {
            let delivery = self.frames.try_recv().ok()?;
            self.note(&delivery);
            Some(delivery)
        })
    }

    /// The next frame; waits for it at most for so long, if that is told.
    pub(super) fn next(&mut self, patience: Option<Duration>) -> Result<Delivery, NoDelivery> {
        let patience_ns = patience.map_or(u64::MAX, |patience| patience.as_nanos() as u64);
        let mut next = match self.spin_ns() {
            0 => Err(NoDelivery::Yet),
            spin_ns => self.spin(spin_ns.min(patience_ns)),
        };
        if matches!(next, Err(NoDelivery::Yet)) && self.naps() {
            std::thread::sleep(Self::NAP);
            next = self.frames.try_recv();
        }
        if matches!(next, Err(NoDelivery::Yet)) && self.wait != Wait::Spin {
            next = match patience {
                None => self.frames.recv().ok_or(NoDelivery::EverAgain),
                Some(patience) => self.frames.recv_timeout(patience),
            };
        }
        if let Ok(delivery) = &next {
            self.note(delivery);
        }
        next
    }

    /// How long to spin before sleeping; `u64::MAX` for ever.
    fn spin_ns(&self) -> u64 {
        match self.wait {
            Wait::Spin => u64::MAX,
            Wait::Adaptive if self.interval_ns < Self::BRISK_NS => Self::SPIN_NS,
            Wait::Adaptive | Wait::Sleep => 0,
        }
    }

    /// Whether the next frame is likely to come within a nap, and no more than may wait.
    fn naps(&self) -> bool {
        let due = Self::NAP.as_nanos() as u64 / self.interval_ns.max(1);
        self.wait == Wait::Adaptive && (1..=self.unhurried_frames).contains(&due)
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

    fn note(&mut self, delivery: &Delivery) {
        self.note_at(delivery.detected.monotonic_ns);
    }

    fn note_at(&mut self, detected_ns: u64) {
        self.interval_ns = detected_ns.saturating_sub(self.detected_ns);
        self.detected_ns = detected_ns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::Outlet;

    /// How long it spins for the frame behind two that were found so far from each other.
    fn spins_after(wait: Wait, interval_ns: u64) -> u64 {
        let inlet = Outlet::new("every".parse().unwrap(), 1).1;
        let mut intake = Intake::new(inlet, wait, Spin::of(1));
        intake.note_at(1_000_000_000);
        intake.note_at(1_000_000_000 + interval_ns);
        intake.spin_ns()
    }

    #[test]
    fn whoever_adapts_stays_awake_for_frames_that_come_faster_than_wake_ups_pay() {
        assert_eq!(spins_after(Wait::Adaptive, 10_000), Intake::SPIN_NS);
        assert_eq!(spins_after(Wait::Adaptive, 1_000_000), 0);
        assert_eq!(spins_after(Wait::Spin, 1_000_000), u64::MAX);
        assert_eq!(spins_after(Wait::Sleep, 10_000), 0);
    }

    /// Whether an archive with room for so many frames naps behind two so far from each other.
    fn naps_after(wait: Wait, interval_ns: u64, frames: usize) -> bool {
        let inlet = Outlet::new("every".parse().unwrap(), 1).1;
        let mut intake = Intake::new(inlet, wait, Spin::of(1)).unhurried(frames);
        intake.note_at(1_000_000_000);
        intake.note_at(1_000_000_000 + interval_ns);
        intake.naps()
    }

    #[test]
    fn whoever_is_not_in_a_hurry_naps_if_frames_are_near_and_find_room_meanwhile() {
        assert!(naps_after(Wait::Adaptive, 1_000_000, 128));
        assert!(!naps_after(Wait::Adaptive, 1_000_000, 7));
        assert!(!naps_after(Wait::Adaptive, 5_000_000, 128));
        assert!(!naps_after(Wait::Adaptive, 10_000, 128));
        assert!(!naps_after(Wait::Sleep, 1_000_000, 128));
    }

    #[test]
    fn whoever_waits_hears_of_the_end_and_of_the_end_of_his_patience() {
        for wait in [Wait::Spin, Wait::Adaptive, Wait::Sleep] {
            for interval_ns in [1000, 1_000_000] {
                let (outlet, inlet) = Outlet::new("every".parse().unwrap(), 1);
                let mut intake = Intake::new(inlet, wait, Spin::of(usize::MAX));
                intake.note_at(interval_ns);
                let next = intake.next(Some(Duration::from_micros(300)));
                assert_eq!(next.err(), Some(NoDelivery::Yet), "{wait:?}");
                drop(outlet);
                assert_eq!(intake.next(None).err(), Some(NoDelivery::EverAgain), "{wait:?}");
            }
        }
    }
}
