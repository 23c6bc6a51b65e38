//! When a frame is exposed and how fast it goes over the bus: computation on times in nanoseconds
//! since the camera's start, no clock.
use std::num::NonZeroU64;
use std::time::Duration;

/// The slowest frame rate, per second.
pub const FPS_MIN: f64 = 1e-6;

/// The fastest frame rate, per second: timestamps have microseconds.
pub const FPS_MAX: f64 = 1e6;

/// A camera sleeps only when it is ahead of the bus by so much, because a timer is some 50 us late.
const AHEAD_NS_MIN: u64 = 1_000_000;

/// How fast a camera is. With neither of them it is as fast as the machine.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pace {
    /// Frames per second, from [`FPS_MIN`] to [`FPS_MAX`]; `None`: one after the other.
    pub fps: Option<f64>,
    /// Rate of the bus into memory in bytes per second; `None`: without limit.
    pub bus_bytes_per_s: Option<NonZeroU64>,
}

/// A frame rate that no camera has.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("a frame rate of {fps:?} per second; take one from {FPS_MIN} to {FPS_MAX}")]
pub struct PaceError {
    /// The rate that was asked for.
    pub fps: f64,
}

impl Pace {
    /// As fast as the machine.
    pub const UNPACED: Self = Self { fps: None, bus_bytes_per_s: None };

    /// Checks that a schedule can be made of it.
    ///
    /// # Errors
    /// The frame rate is not a number from [`FPS_MIN`] to [`FPS_MAX`].
    pub fn check(&self) -> Result<(), PaceError> {
        match self.fps {
            Some(fps) if !(FPS_MIN..=FPS_MAX).contains(&fps) => Err(PaceError { fps }),
            _ => Ok(()),
        }
    }

    /// Time from one frame to the next in nanoseconds; 0 if it is not fixed.
    #[must_use]
    pub fn frame_period_ns(&self) -> u64 {
        self.fps.map_or(0, |fps| (1e9 / fps).round() as u64)
    }
}

/// The schedule of a running camera: frame k is exposed at k / fps. It begins when the first
/// picture is compressed, which has no frame before it whose time it could be made in.
///
/// A camera that is late makes up for at most one frame period. What is beyond it moves the
/// schedule: a sensor does not expose a second time what was missed, and after a long stop the
/// ring would be flooded.
#[derive(Debug)]
pub(crate) struct Schedule {
    period_ns: Option<f64>,
    bus_bytes_per_s: Option<NonZeroU64>,
    frames: u64,
    start_ns: u64,
    moved_ns: u64,
    bus_free_ns: u64,
    late_frames: u64,
    slip_ns_max: u64,
}

impl Schedule {
    pub(crate) fn new(pace: &Pace) -> Self {
        Self {
            period_ns: pace.fps.map(|fps| 1e9 / fps),
            bus_bytes_per_s: pace.bus_bytes_per_s,
            frames: 0,
            start_ns: 0,
            moved_ns: 0,
            bus_free_ns: 0,
            late_frames: 0,
            slip_ns_max: 0,
        }
    }

    /// When the next frame is exposed: at its time; at once, if that is past by half a period or
    /// there is none.
    pub(crate) fn exposure_ns(&self, now_ns: u64) -> u64 {
        let Some(period_ns) = self.period_ns else { return now_ns };
        let due_ns = self.due_ns(period_ns);
        if is_late(now_ns.saturating_sub(due_ns), period_ns) { now_ns } else { due_ns }
    }

    /// Begins the transfer of the next frame, which was exposed at `exposed_ns` and is compressed
    /// now. Returns the slip if the frame is the first late one.
    pub(crate) fn begin(&mut self, exposed_ns: u64, now_ns: u64) -> Option<Duration> {
        let start_ns = exposed_ns.max(self.bus_free_ns);
        // The bus is never faster than its rate, but a timer that fired late costs it nothing.
        let waited = now_ns.saturating_sub(start_ns) > AHEAD_NS_MIN;
        self.bus_free_ns = if waited { now_ns } else { start_ns };
        let first_late = self.period_ns.and_then(|period_ns| self.count_slip(now_ns, period_ns));
        self.frames += 1;
        first_late
    }

    /// Until when to sleep if `bytes` of the present frame have gone over the bus by `now_ns`,
    /// which is asked only where the bus has a rate.
    pub(crate) fn ahead_until_ns(&self, bytes: u64, now_ns: impl Fn() -> u64) -> Option<u64> {
        let until_ns = self.bus_free_ns.saturating_add(self.bus_ns(bytes)?);
        let now_ns = now_ns();
        (until_ns.saturating_sub(now_ns) >= AHEAD_NS_MIN).then_some(until_ns)
    }

    /// Ends the transfer of a frame of `bytes`.
    pub(crate) fn end(&mut self, bytes: u64) {
        let busy_ns = self.bus_ns(bytes).unwrap_or(0);
        self.bus_free_ns = self.bus_free_ns.saturating_add(busy_ns);
    }

    /// Whether frames follow each other without any limit.
    pub(crate) fn is_unpaced(&self) -> bool {
        self.period_ns.is_none() && self.bus_bytes_per_s.is_none()
    }

    /// Whether a frame takes its time on the bus.
    pub(crate) fn has_bus_rate(&self) -> bool {
        self.bus_bytes_per_s.is_some()
    }

    /// When the first frame was ready.
    pub(crate) fn start_ns(&self) -> u64 {
        self.start_ns
    }

    /// Number of frames that began later than half a period after their time.
    pub(crate) fn late_frames(&self) -> u64 {
        self.late_frames
    }

    /// The most that a frame was behind the schedule as it was before anything moved it.
    pub(crate) fn slip_max(&self) -> Duration {
        Duration::from_nanos(self.slip_ns_max)
    }

    fn due_ns(&self, period_ns: f64) -> u64 {
        ((self.frames as f64 * period_ns).round() as u64)
            .saturating_add(self.start_ns)
            .saturating_add(self.moved_ns)
    }

    fn count_slip(&mut self, now_ns: u64, period_ns: f64) -> Option<Duration> {
        let slip_ns = now_ns.saturating_sub(self.due_ns(period_ns));
        if self.frames == 0 {
            self.start_ns = slip_ns;
            return None;
        }
        self.slip_ns_max = self.slip_ns_max.max(slip_ns.saturating_add(self.moved_ns));
        if !is_late(slip_ns, period_ns) {
            return None;
        }
        self.moved_ns += slip_ns.saturating_sub(period_ns as u64);
        self.late_frames += 1;
        (self.late_frames == 1).then_some(Duration::from_nanos(slip_ns))
    }

    fn bus_ns(&self, bytes: u64) -> Option<u64> {
        let rate = u128::from(self.bus_bytes_per_s?.get());
        Some(u64::try_from(u128::from(bytes) * 1_000_000_000 / rate).unwrap_or(u64::MAX))
    }
}

fn is_late(slip_ns: u64, period_ns: f64) -> bool {
    slip_ns as f64 > period_ns / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn ten_per_second() -> Schedule {
        Schedule::new(&Pace { fps: Some(10.0), bus_bytes_per_s: NonZeroU64::new(80_000_000) })
    }

    #[test]
    fn frames_are_due_at_whole_multiples_however_many_there_were() {
        let mut schedule = Schedule::new(&Pace { fps: Some(3.0), ..Pace::UNPACED });
        for frame in 0..3_000_000 {
            let due_ns = schedule.exposure_ns(0);
            assert_eq!(due_ns, (frame as f64 * 1e9 / 3.0).round() as u64);
            assert_eq!(schedule.begin(due_ns, due_ns), None);
        }
        assert_eq!(schedule.exposure_ns(0), 1_000_000 * 1000 * MS);
    }

    #[test]
    fn a_late_camera_makes_up_for_one_period_and_no_more() {
        let mut schedule = ten_per_second();
        assert_eq!(schedule.begin(0, 0), None);
        // The second frame, due at 100 ms, begins after 1 s.
        let exposed_ns = schedule.exposure_ns(1000 * MS);
        assert_eq!(exposed_ns, 1000 * MS);
        assert_eq!(schedule.begin(exposed_ns, 1000 * MS), Some(Duration::from_millis(900)));
        // The third is due at once, the fourth a period later.
        assert_eq!(schedule.exposure_ns(1001 * MS), 1000 * MS);
        assert_eq!(schedule.begin(1000 * MS, 1001 * MS), None);
        assert_eq!(schedule.exposure_ns(1002 * MS), 1100 * MS);
        assert_eq!(schedule.late_frames(), 1);
        assert_eq!(schedule.slip_max(), Duration::from_millis(900));
    }

    #[test]
    fn the_schedule_begins_with_the_first_picture() {
        let mut schedule = ten_per_second();
        assert_eq!(schedule.begin(0, 300 * MS), None);
        assert_eq!(schedule.exposure_ns(301 * MS), 400 * MS);
        assert_eq!((schedule.late_frames(), schedule.slip_max()), (0, Duration::ZERO));
    }

    #[test]
    fn the_bus_takes_its_time_and_is_never_faster_than_its_rate() {
        let mut schedule = ten_per_second();
        schedule.begin(0, 0);
        assert_eq!(schedule.ahead_until_ns(8192, || 0), None, "0.1 ms is not worth a sleep");
        assert_eq!(schedule.ahead_until_ns(160_000, || 0), Some(2 * MS));
        assert_eq!(schedule.ahead_until_ns(160_000, || 2 * MS), None);
        // A frame that takes longer than the period keeps the bus from the next one.
        schedule.end(16_000_000);
        schedule.begin(100 * MS, 200 * MS);
        assert_eq!(schedule.ahead_until_ns(80_000_000, || 200 * MS), Some(1200 * MS));
        // A frame that was compressed late does not hurry over the bus.
        let mut schedule = ten_per_second();
        schedule.begin(0, 30 * MS);
        assert_eq!(schedule.ahead_until_ns(800_000, || 30 * MS), Some(40 * MS));
    }

    #[test]
    fn impossible_rates_are_refused() {
        for fps in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e7, 1e-7] {
            let pace = Pace { fps: Some(fps), ..Pace::UNPACED };
            assert!(pace.check().is_err(), "{fps}");
        }
        let pace = Pace { fps: Some(12.0), ..Pace::UNPACED };
        assert_eq!(pace.check(), Ok(()));
        assert_eq!(pace.frame_period_ns(), 83_333_333);
        assert_eq!(Pace::UNPACED.frame_period_ns(), 0);
    }
}
