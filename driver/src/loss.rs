//! Frames that are missing, as data: how many, why, and when.

use serde::{Deserialize, Serialize};

use crate::ring::Timestamp;

/// Why frames are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossReason {
    /// The writer lapped the reader before it looked.
    Overrun,
    /// Overwritten, or changed, while it was copied.
    Torn,
    /// The bytes are no frame.
    Corrupt,
    /// No slab was free.
    NoSlab,
    /// The consumer's queue was full.
    QueueFull,
    /// The archive could not be written.
    Io,
}

impl LossReason {
    /// All reasons, in the order of their codes in a loss record, which count from 1.
    pub const ALL: [LossReason; 6] = [
        LossReason::Overrun,
        LossReason::Torn,
        LossReason::Corrupt,
        LossReason::NoSlab,
        LossReason::QueueFull,
        LossReason::Io,
    ];

    /// The name that stands in tables and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            LossReason::Overrun => "overrun",
            LossReason::Torn => "torn",
            LossReason::Corrupt => "corrupt",
            LossReason::NoSlab => "no_slab",
            LossReason::QueueFull => "queue_full",
            LossReason::Io => "io",
        }
    }
}

/// A stretch of missing frames with one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Why.
    pub reason: LossReason,
    /// Number of the first missing frame.
    pub sequence: u64,
    /// How many, at least 1.
    pub count: u64,
    /// Whether a frame counter told the count; otherwise it is estimated from times.
    pub exact: bool,
    /// Exposure time of the first one, or of the last frame before it; `None` if unknown.
    pub first: Option<Timestamp>,
    /// Exposure time of the last one; `None` if unknown.
    pub last: Option<Timestamp>,
}

impl Loss {
    /// Joins `next` to this stretch if it has the same reason and follows it without a frame
    /// between; gives it back if not.
    ///
    /// # Errors
    /// `next` itself, if it is a stretch of its own.
    pub fn join(&mut self, next: Loss) -> Result<(), Loss> {
        let follows = self.sequence + self.count == next.sequence;
        if self.reason != next.reason || self.exact != next.exact || !follows {
            return Err(next);
        }
        self.count += next.count;
        self.last = next.last.or(self.last);
        Ok(())
    }
}
