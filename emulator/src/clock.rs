//! The emulator's only clock.
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::model::FrameTime;

/// Which time a camera lives in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Clock {
    /// That of the machine.
    #[default]
    Real,
    /// Computed: nothing sleeps, and the first frame is exposed at 2007-09-30 07:04:34 UTC, so that
    /// the same source gives the same bytes every time.
    Virtual,
}

/// When virtual time begins, in seconds since 1970.
pub const VIRTUAL_START_SEC: u32 = 0x46FF_4A82;

/// How long a sleeping camera may take to see that it is to stop.
const SLEEP_MAX: Duration = Duration::from_millis(50);

/// A clock that runs. Times are nanoseconds since its start.
#[derive(Debug)]
pub(crate) enum RunningClock {
    Real { start: Instant, start_time: FrameTime },
    Virtual { now_ns: u64 },
}

impl Clock {
    pub(crate) fn start(self) -> RunningClock {
        match self {
            Self::Real => {
                let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                let nanos = since_1970.map_or(0, nanos);
                RunningClock::Real {
                    start: Instant::now(),
                    start_time: FrameTime::from_nanos(nanos),
                }
            }
            Self::Virtual => RunningClock::Virtual { now_ns: 0 },
        }
    }
}

impl RunningClock {
    pub(crate) fn now_ns(&self) -> u64 {
        match self {
            Self::Real { start, .. } => nanos(start.elapsed()),
            Self::Virtual { now_ns } => *now_ns,
        }
    }

    pub(crate) fn is_virtual(&self) -> bool {
        matches!(self, Self::Virtual { .. })
    }

    /// The time that a trailer tells for an exposure at `at_ns`.
    pub(crate) fn frame_time(&self, at_ns: u64) -> FrameTime {
        match self {
            Self::Real { start_time, .. } => start_time.plus_nanos(at_ns),
            Self::Virtual { .. } => FrameTime { sec: VIRTUAL_START_SEC, usec: 0 }.plus_nanos(at_ns),
        }
    }

    /// Sleeps until `at_ns`, or until `stop`.
    pub(crate) fn sleep_until(&mut self, at_ns: u64, stop: &AtomicBool) {
        match self {
            Self::Virtual { now_ns } => *now_ns = at_ns.max(*now_ns),
            Self::Real { start, .. } => {
                while let Some(left) = at_ns.checked_sub(nanos(start.elapsed()))
                    && left > 0
                    && !stop.load(Ordering::Relaxed)
                {
                    std::thread::sleep(Duration::from_nanos(left).min(SLEEP_MAX));
                }
            }
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
