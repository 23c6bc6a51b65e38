//! How many frames there were, by their times, where nothing counts them.

use crate::ring::Timestamp;

/// From one frame to the next, as it was lately.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Period {
    us: Option<f64>,
}

impl Period {
    /// Frames were exposed at these times, the second so many behind the first.
    pub(super) fn learn(&mut self, before: Timestamp, after: Timestamp, frames: u64) {
        if before < after && frames > 0 {
            let gap_us = (after.micros() - before.micros()) as f64 / frames as f64;
            self.us = Some(self.us.map_or(gap_us, |known| known + (gap_us - known) / 8.0));
        }
    }

    /// How many frames lie between two exposures.
    pub(super) fn between(self, before: Timestamp, after: Timestamp) -> u64 {
        let gap_us = after.micros().saturating_sub(before.micros()) as f64;
        match self.us {
            Some(us) => ((gap_us / us).round() as u64).saturating_sub(1),
            None => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u32) -> Timestamp {
        Timestamp { sec: 7, usec: ms * 1000 }
    }

    #[test]
    fn frames_between_two_are_estimated_by_the_period() {
        let mut period = Period::default();
        assert_eq!(period.between(at(0), at(500)), 1, "nothing is known");
        period.learn(at(0), at(10), 1);
        period.learn(at(20), at(10), 1);
        assert_eq!(period.between(at(10), at(20)), 0);
        assert_eq!(period.between(at(10), at(54)), 3);
        assert_eq!(period.between(at(10), at(0)), 0);
        period.learn(at(100), at(140), 4);
        assert_eq!(period.between(at(10), at(50)), 3);
    }
}
