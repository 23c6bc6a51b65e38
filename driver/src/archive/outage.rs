//! What an archive remembers while its disk cannot be written.

use std::io;

use crate::clock::Moment;
use crate::dispatch::Losses;
use crate::loss::Loss;

/// A new segment is tried at most once in this time.
const RETRY_NS: u64 = 1_000_000_000;

/// The state of failure: since when, and which losses are still to be told.
#[derive(Debug, Default)]
pub(super) struct Outage {
    /// Whether something failed and nothing has been written since.
    active: bool,
    retry_at_ns: u64,
    owed: Losses,
}

impl Outage {
    /// Notes a failure; logs the first one of an outage only.
    pub(super) fn begin(&mut self, what: &str, now: Moment) {
        if !self.active {
            log::error!("the archive cannot be written: {what}; frames are lost until it can");
        }
        self.active = true;
        self.retry_at_ns = now.monotonic_ns + RETRY_NS;
    }

    /// A record was written.
    pub(super) fn end(&mut self) {
        if std::mem::take(&mut self.active) {
            log::warn!("the archive is written again");
        }
    }

    /// Whether a new segment may be tried.
    pub(super) fn may_try(&self, now: Moment) -> bool {
        !self.active || now.monotonic_ns >= self.retry_at_ns
    }

    /// Lets the next try come at once.
    pub(super) fn retry_now(&mut self) {
        self.retry_at_ns = 0;
    }

    /// Remembers a loss that is to be told when the archive can be written again.
    pub(super) fn owe(&mut self, loss: Loss) {
        self.owed.push(loss);
    }

    pub(super) fn owes(&self) -> bool {
        !self.owed.is_empty()
    }

    /// The losses to be told, by their first frame.
    pub(super) fn take_owed(&mut self) -> Vec<Loss> {
        let mut owed: Vec<Loss> = std::mem::take(&mut self.owed).iter().copied().collect();
        owed.sort_by_key(|loss| loss.sequence);
        owed
    }
}

/// What the log and the counters say about a failed operation.
pub(super) fn describe(op: &str, path: &std::path::Path, error: &io::Error) -> String {
    format!("cannot {op} {}: {error}", path.display())
}
