//! Which frames a consumer takes, and what gives way when it is too slow.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use crate::ring::Timestamp;

/// A consumer's policy, written `every`, `nth=N` or `fps=F`, with `:drop-newest`, `:drop-oldest` or
/// `:latest-only` behind it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// Which frames it takes.
    pub take: Take,
    /// What gives way when its queue is full.
    pub when_full: WhenFull,
}

/// Which frames a consumer takes. What it leaves is its choice, not a loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Take {
    /// Every frame.
    Every,
    /// The first of every N frames that were found whole.
    Nth(NonZeroU64),
    /// At most so many frames a second, by the camera's own time. Above zero, at most 1,000,000.
    Fps(f64),
}

/// What gives way when a frame comes and the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// The frame that comes.
    DropNewest,
    /// The frame that has waited longest.
    DropOldest,
    /// All that wait.
    LatestOnly,
}

/// A policy that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{text}' is no policy: write every, nth=N (N from 1) or fps=F (F above 0, at most 1000000), and \
     after a colon drop-newest, drop-oldest or latest-only if you like"
)]
pub struct PolicyError {
    text: String,
}

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Policy, PolicyError> {
        let (take, when_full) = text.split_once(':').unwrap_or((text, "drop-newest"));
        match (parse_take(take), parse_when_full(when_full)) {
            (Some(take), Some(when_full)) => Ok(Policy { take, when_full }),
            _ => Err(PolicyError { text: text.to_owned() }),
        }
    }
}

fn parse_take(text: &str) -> Option<Take> {
    match text.split_once('=') {
        None if text == "every" => Some(Take::Every),
        Some(("nth", n)) => n.parse().ok().map(Take::Nth),
        Some(("fps", fps)) => {
            let fps = fps.parse().ok()?;
            (fps > 0.0 && fps <= 1e6).then_some(Take::Fps(fps))
        }
        _ => None,
    }
}

fn parse_when_full(text: &str) -> Option<WhenFull> {
    match text {
        "drop-newest" => Some(WhenFull::DropNewest),
        "drop-oldest" => Some(WhenFull::DropOldest),
        "latest-only" => Some(WhenFull::LatestOnly),
        _ => None,
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.take {
            Take::Every => f.write_str("every")?,
            Take::Nth(n) => write!(f, "nth={n}")?,
            Take::Fps(fps) => write!(f, "fps={fps}")?,
        }
        f.write_str(match self.when_full {
            WhenFull::DropNewest => ":drop-newest",
            WhenFull::DropOldest => ":drop-oldest",
            WhenFull::LatestOnly => ":latest-only",
        })
    }
}

/// Frames that may come closer together than the rate allows, in microseconds of them: exposures
/// jitter, and a camera that runs at exactly the rate must not lose frames to the policy.
const BURST_US: f64 = 50_000.0;

/// Decides frame by frame.
#[derive(Debug, Clone)]
pub(crate) struct Sieve {
    take: Take,
    frames: u64,
    /// When the next frame would be due if all came evenly, in microseconds of the camera's clock.
    due_us: f64,
}

impl Sieve {
    pub(crate) fn new(take: Take) -> Sieve {
        Sieve { take, frames: 0, due_us: 0.0 }
    }

    /// What [`Sieve::takes`] would say.
    pub(crate) fn would_take(&self, time: Timestamp) -> bool {
        self.clone().takes(time)
    }

    /// Whether the consumer takes the frame of this exposure time.
    pub(crate) fn takes(&mut self, time: Timestamp) -> bool {
        let number = self.frames;
        self.frames += 1;
        match self.take {
            Take::Every => true,
            Take::Nth(n) => number.is_multiple_of(n.get()),
            Take::Fps(fps) => self.is_due(time.micros() as f64, 1e6 / fps),
        }
    }

    fn is_due(&mut self, now_us: f64, period_us: f64) -> bool {
        // A due time further ahead than any burst can put it means that the camera's clock was set
        // back.
        if self.due_us > now_us + BURST_US + 2.0 * period_us {
            self.due_us = now_us;
        }
        let due = now_us >= self.due_us - BURST_US;
        if due {
            self.due_us = self.due_us.max(now_us) + period_us;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(policy: &str, times_us: impl Iterator<Item = u64>) -> usize {
        let mut sieve = Sieve::new(policy.parse::<Policy>().unwrap().take);
        let time =
            |us: u64| Timestamp { sec: (us / 1_000_000) as u32, usec: (us % 1_000_000) as u32 };
        times_us.filter(|&us| sieve.takes(time(us))).count()
    }

    #[test]
    fn policies_are_read_as_they_are_printed() {
        for text in ["every:drop-newest", "nth=10:drop-oldest", "fps=12.5:latest-only"] {
            assert_eq!(text.parse::<Policy>().unwrap().to_string(), text);
        }
        assert_eq!("every".parse::<Policy>().unwrap().when_full, WhenFull::DropNewest);
        for bad in ["", "nth", "nth=0", "nth=-1", "fps=0", "fps=nan", "fps=inf", "every:", "all"] {
            assert!(bad.parse::<Policy>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn nth_takes_the_first_of_every_n() {
        assert_eq!(taken("nth=3", 0..10), 4);
    }

    #[test]
    fn a_camera_at_exactly_the_rate_loses_nothing_to_the_policy() {
        let jitter = |n: u64| 1_000_000_000 + n * 1000 + (n * 7919) % 900;
        assert_eq!(taken("fps=1000", (0..5000).map(jitter)), 5000);
    }

    #[test]
    fn a_rate_is_kept_on_average() {
        let frames = taken("fps=2", (0..1200).map(|n| 1_000_000 + n * 1_000_000 / 12));
        assert!((200..=202).contains(&frames), "{frames} of 100 s at 2 a second");
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_stop_a_rate() {
        let back =
            (0..100).map(|n| 9_000_000_000 + n * 100_000).chain((0..100).map(|n| n * 100_000));
        let frames = taken("fps=5", back);
        assert!((98..=104).contains(&frames), "{frames}");
    }
}
