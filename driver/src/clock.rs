//! The two clocks by which the driver stamps what it finds.

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
    /// Reads the clocks. Called where threads are run, never inside a stage.
    #[must_use]
    pub fn now() -> Moment {
        Moment {
            monotonic_ns: read(ClockId::CLOCK_MONOTONIC),
            realtime_ns: read(ClockId::CLOCK_REALTIME),
        }
    }

    /// Time from `earlier` to this moment by the clock that never runs backwards.
    #[must_use]
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.monotonic_ns.saturating_sub(earlier.monotonic_ns))
    }
}

fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock).expect("both clocks exist on every Linux");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}
