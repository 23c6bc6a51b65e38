//! When to look for the next frame: computed from when those before it came, without a clock.

use std::time::Duration;

use crate::wait::Wait;

/// What the capturing thread does before it looks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pause {
    /// Nothing.
    Spin,
    /// Sleeps: a ring has no way to wake it up.
    Sleep(Duration),
}

/// When frames came.
#[derive(Debug)]
pub(super) struct Rhythm {
    wait: Wait,
    last_ns: u64,
    /// From one frame to the next, of the last ones that had to be waited for. One that came late does
    /// not make the next one late.
    intervals_ns: [u64; 4],
    intervals: usize,
    waited: bool,
    /// The last pause was to end when a frame is due.
    slept: bool,
    /// Naps since a frame was due.
    naps: u32,
}

impl Rhythm {
    /// A timer fires some 25 us late on a virtual machine, and what it wakes has cold caches.
    const LEAD_NS: u64 = 50_000;

    /// How long a frame may be late and is still spun for. An idle camera costs no more than that.
    const LAG_NS: u64 = 100_000;

    /// The shortest nap, hardly longer than what it takes to get up from it.
    const NAP_NS_MIN: u64 = 50_000;

    /// Naps of one length, before the next ones are twice as long.
    const NAPS: u32 = 16;

    /// The longest: a camera at 80 MB/s writes 160 KB in it.
    const NAP_NS_MAX: u64 = 2_000_000;

    pub(super) fn new(wait: Wait) -> Rhythm {
        Rhythm {
            wait,
            last_ns: 0,
            intervals_ns: [0; 4],
            intervals: 0,
            waited: false,
            slept: false,
            naps: 0,
        }
    }

    /// Something was found at this time.
    pub(super) fn found(&mut self, now_ns: u64) {
        // What was there already when it was looked for says nothing about when it came.
        if self.waited {
            let interval_ns = now_ns.saturating_sub(self.last_ns);
            // A frame that was there at the end of a sleep came earlier, nobody knows how much.
            let overslept_ns = if self.slept { interval_ns / 64 } else { 0 };
            let place = self.intervals % self.intervals_ns.len();
            self.intervals_ns[place] = interval_ns - overslept_ns;
            self.intervals += 1;
        }
        (self.last_ns, self.waited, self.slept, self.naps) = (now_ns, false, false, 0);
    }

    /// Nothing was found at this time.
    pub(super) fn pause(&mut self, now_ns: u64) -> Pause {
        (self.waited, self.slept) = (true, false);
        let due_ns = match self.wait {
            Wait::Spin => return Pause::Spin,
            Wait::Adaptive | Wait::Sleep => self.due_ns(),
        };
        let Some(due_ns) = due_ns else { return self.nap() };
        let looks_from_ns = due_ns.saturating_sub(Self::LEAD_NS);
        if now_ns < looks_from_ns {
            self.slept = true;
            return sleep(looks_from_ns - now_ns);
        }
        match self.wait == Wait::Adaptive && now_ns < due_ns.saturating_add(Self::LAG_NS) {
            true => Pause::Spin,
            false => self.nap(),
        }
    }

    fn nap(&mut self) -> Pause {
        let nap_ns = Self::NAP_NS_MIN << (self.naps / Self::NAPS).min(6);
        self.naps = self.naps.saturating_add(1);
        sleep(nap_ns)
    }

    /// When the next frame may come at the earliest, if that is known.
    fn due_ns(&self) -> Option<u64> {
        let known = &self.intervals_ns[..self.intervals.min(self.intervals_ns.len())];
        known.iter().min().map(|shortest_ns| self.last_ns.saturating_add(*shortest_ns))
    }
}

fn sleep(ns: u64) -> Pause {
    Pause::Sleep(Duration::from_nanos(ns.min(Rhythm::NAP_NS_MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What waiting came to.
    #[derive(Debug, Default)]
    struct Cost {
        spun_ns: u64,
        naps: u64,
        /// The most that a frame waited until it was found.
        late_ns_max: u64,
    }

    /// Waits for frames at these times. A nap takes 25 us longer, a look 100 ns.
    fn wait_for(frames_ns: impl Iterator<Item = u64>, wait: Wait) -> Cost {
        let (mut rhythm, mut cost, mut now_ns) = (Rhythm::new(wait), Cost::default(), 0);
        for (number, frame_ns) in frames_ns.enumerate() {
            while now_ns < frame_ns {
                let step_ns = match rhythm.pause(now_ns) {
                    Pause::Spin => {
                        cost.spun_ns += 100;
                        100
                    }
                    Pause::Sleep(nap) => {
                        cost.naps += 1;
                        assert!(!nap.is_zero());
                        25_000 + nap.as_nanos() as u64
                    }
                };
                now_ns += step_ns;
            }
            // The first ones make the rhythm known.
            if number > 20 {
                cost.late_ns_max = cost.late_ns_max.max(now_ns - frame_ns);
            }
            rhythm.found(now_ns);
        }
        cost
    }

    fn every(period_ns: u64, frames: u64) -> impl Iterator<Item = u64> {
        (1..=frames).map(move |number| number * period_ns)
    }

    #[test]
    fn frames_at_a_steady_rate_are_spun_for_when_they_are_due_alone() {
        for (period_ns, frames) in [(1_000_000, 1000), (500_000, 1000), (83_333_333, 100)] {
            let cost = wait_for(every(period_ns, frames), Wait::Adaptive);
            assert!(cost.late_ns_max <= 100, "{cost:?}");
            assert!(cost.spun_ns <= frames * 60_000, "{cost:?}");
        }
    }

    #[test]
    fn frames_that_come_faster_than_a_nap_ends_are_spun_for() {
        let cost = wait_for(every(20_000, 10_000), Wait::Adaptive);
        assert!(cost.late_ns_max <= 100 && cost.naps < 10, "{cost:?}");
    }

    #[test]
    fn whoever_sleeps_never_spins_and_is_hardly_late() {
        for period_ns in [20_000, 1_000_000, 83_333_333] {
            let cost = wait_for(every(period_ns, 1000), Wait::Sleep);
            assert!(cost.spun_ns == 0 && cost.late_ns_max <= 125_000, "{cost:?}");
        }
    }

    #[test]
    fn whoever_spins_never_sleeps() {
        let cost = wait_for(every(10_000_000, 10), Wait::Spin);
        assert!(cost.naps == 0 && cost.late_ns_max <= 100, "{cost:?}");
    }

    #[test]
    fn a_camera_that_stops_costs_no_core() {
        let then_silence = every(1_000_000, 100).chain([10_000_000_000]);
        let cost = wait_for(then_silence, Wait::Adaptive);
        assert!(cost.spun_ns <= 101 * 150_000 && cost.naps < 6000, "{cost:?}");
    }

    #[test]
    fn frames_that_jitter_are_found_in_time() {
        let jitter = (1..2000).map(|n: u64| n * 1_000_000 + n * 7919 % 40_000);
        let cost = wait_for(jitter, Wait::Adaptive);
        assert!(cost.late_ns_max <= 75_000 && cost.spun_ns <= 2000 * 120_000, "{cost:?}");
    }
}
