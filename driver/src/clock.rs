//! The two clocks by which the driver stamps what it finds.

use std::cell::Cell;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// One moment by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moment {
    /// Nanoseconds since an arbitrary point; never runs backwards.
    pub monotonic_ns: u64,
    /// Nanoseconds since 1970; may be set.
    pub realtime_ns: u64,
}

impl Moment {
    /// Reads the clocks. Called where threads are run, never inside a stage; whoever does so at each step
    /// has it cheaper by a [`Clock`].
    #[must_use]
    pub fn now() -> Moment {
        Moment { monotonic_ns: monotonic_ns(), realtime_ns: read(ClockId::CLOCK_REALTIME) }
    }

    /// Time from `earlier` to this moment by the clock that never runs backwards.
    #[must_use]
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.monotonic_ns.saturating_sub(earlier.monotonic_ns))
    }
}

/// Both clocks at the price of one: they run alike, and only when somebody sets the time does their
/// distance change, which is looked up once a millisecond. Each thread has its own.
#[derive(Debug)]
pub struct Clock {
    /// Both clocks when they were last read together.
    both: Cell<Moment>,
    last: Cell<Moment>,
}

impl Clock {
    const STALE_NS: u64 = 1_000_000;

    /// Sets it by both clocks.
    #[must_use]
    pub fn new() -> Clock {
        let now = Moment::now();
        Clock { both: Cell::new(now), last: Cell::new(now) }
    }

    /// Reads the clock that never runs backwards; the other one is right unless it was set within the last
    /// millisecond.
    #[must_use]
    pub fn now(&self) -> Moment {
        let (both, monotonic_ns) = (self.both.get(), monotonic_ns());
        let passed_ns = monotonic_ns.saturating_sub(both.monotonic_ns);
        let now = if passed_ns < Self::STALE_NS {
            Moment { monotonic_ns, realtime_ns: both.realtime_ns.saturating_add(passed_ns) }
        } else {
            let now = Moment::now();
            self.both.set(now);
            now
        };
        self.last.set(now);
        now
    }

    /// The moment that was read last.
    pub(crate) fn last(&self) -> Moment {
        self.last.get()
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}

/// Nanoseconds since an arbitrary point, by the clock of [`Moment::monotonic_ns`].
pub(crate) fn monotonic_ns() -> u64 {
    read(ClockId::CLOCK_MONOTONIC)
}

fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock).expect("both clocks exist on every Linux");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheaper_clock_is_the_same_clock() {
        let clock = Clock::new();
        for _ in 0..100_000 {
            let before = monotonic_ns();
            let now = clock.now();
            assert!((before..=monotonic_ns()).contains(&now.monotonic_ns));
            assert_eq!(clock.last(), now);
            let both = clock.both.get();
            assert_eq!(now.realtime_ns - both.realtime_ns, now.monotonic_ns - both.monotonic_ns);
            assert!(now.monotonic_ns - both.monotonic_ns < Clock::STALE_NS);
        }
    }
}
