//! The books of a run, held against ledger and archive: they have to be equal to the frame.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::{AnswerKeyError, Comparison};

/// The object that `circbuf run --json` printed.
#[derive(Debug)]
pub struct RunBooks {
    object: Value,
}

/// A number of the books that is not that of ledger and archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its path in the books, such as `ring.lost.torn`.
    pub number: &'static str,
    /// What the books say.
    pub books: Option<u64>,
    /// What ledger and archive say.
    pub found: u64,
}

impl RunBooks {
    /// Reads the books of a run from a file; of a run with several channels those of `channel`.
    ///
    /// # Errors
    /// If the file cannot be read, or does not hold the books of a run that archived.
    pub fn read(path: &Path, channel: Option<u32>) -> Result<RunBooks, AnswerKeyError> {
        let refuse = |why| AnswerKeyError::Books { path: path.to_owned(), why };
        let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
        let mut object: Value =
            serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
        match (object["channels"].as_array(), channel) {
            (None, None) => {}
            (None, Some(_)) => return Err(refuse("the run had one channel".to_owned())),
            (Some(channels), None) => {
                let most = channels.len().saturating_sub(1);
                return Err(refuse(format!("which of its channels? --channel 0 to {most}")));
            }
            (Some(channels), Some(number)) => {
                let found = channels.get(number as usize).cloned();
                object = found.ok_or_else(|| refuse(format!("it has no channel {number}")))?;
            }
        }
        if object["schema"] != circbuf_driver::stats::SCHEMA {
            return Err(refuse(format!("its schema is {}", object["schema"])));
        }
        if object["consumers"]["arch"]["enabled"] != true {
            return Err(refuse("the run had no archive".to_owned()));
        }
        Ok(RunBooks { object })
    }

    /// The books of a run that archived, as they would be printed.
    #[must_use]
    pub fn of(object: Value) -> RunBooks {
        RunBooks { object }
    }

    /// Frames that the driver was answerable for, if a counter told it.
    pub(super) fn frames_expected(&self) -> Option<u64> {
        self.number("ring.frames_expected")
    }

    /// Whether the driver numbered the frames itself: where they are not the camera's, its numbers and
    /// cursors differ from the ledger's, though none may be lost.
    pub(super) fn is_estimated(&self) -> Option<bool> {
        let ring = &self.object["ring"];
        let lost_is = ring["lost_is"].as_str()?;
        Some(lost_is == "estimated" || ring["numbered_by"] == "driver")
    }

    fn number(&self, path: &str) -> Option<u64> {
        self.object.pointer(&format!("/{}", path.replace('.', "/")))?.as_u64()
    }

    /// All numbers that differ.
    pub(super) fn differences(&self, comparison: &Comparison) -> Vec<Difference> {
        let mut found = sums_of_the_archive(comparison);
        if !comparison.is_estimated() {
            // A driver whose camera has ended has come to its last frame.
            let all = self.object["ended_by"] == "camera";
            found.extend(numbers_of_the_ledger(comparison, all));
            let is_whole = comparison.ledger_incomplete_line.is_none();
            let embedded = self.number("camera.frames").filter(|_| is_whole);
            found.extend(embedded.map(|_| ("camera.frames", comparison.frames)));
        }
        let differs = found.into_iter().filter_map(|(number, found)| {
            let books = self.number(number);
            (books != Some(found)).then_some(Difference { number, books, found })
        });
        differs.collect()
    }
}

/// What frames and losses in the archive add up to.
fn sums_of_the_archive(comparison: &Comparison) -> Vec<(&'static str, u64)> {
    let lost = |reason| comparison.archive.lost.get(reason).copied().unwrap_or_default();
    vec![
        ("ring.lost.overrun", lost("overrun")),
        ("ring.lost.torn", lost("torn")),
        ("ring.lost.corrupt", lost("corrupt")),
        ("consumers.arch.lost.no_slab", lost("no_slab")),
        ("consumers.arch.lost.queue_full", lost("queue_full")),
        ("consumers.arch.lost.io", lost("io")),
        ("consumers.arch.delivered", comparison.archive.frames),
    ]
}

/// What follows from the ledger, where numbers are the camera's own.
fn numbers_of_the_ledger(comparison: &Comparison, all: bool) -> Vec<(&'static str, u64)> {
    let columns = &comparison.columns;
    let reason = |name| comparison.by_reason.get(name).copied().unwrap_or_default();
    let after_end = if all { 0 } else { columns.after_end };
    let expected = comparison.frames - columns.before_attach - after_end;
    let ring_lost = reason("overrun") + reason("torn") + reason("corrupt");
    let archive_lost = reason("no_slab") + reason("queue_full") + reason("io");
    vec![
        ("ring.frames_expected", expected),
        ("ring.frames_detected", expected - reason("overrun")),
        ("ring.passed", expected - ring_lost),
        // A loss without a slab may tell a refusal as well, if the archive is not our driver's.
        ("consumers.arch.policy", columns.not_archived.saturating_sub(archive_lost)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_a_driver_without_counters_are_its_own_though_it_lost_nothing() {
        let is_estimated = |lost_is, numbered_by| {
            let ring = serde_json::json!({ "lost_is": lost_is, "numbered_by": numbered_by });
            RunBooks::of(serde_json::json!({ "ring": ring })).is_estimated()
        };
        assert_eq!(is_estimated("exact", "camera"), Some(false));
        assert_eq!(is_estimated("exact", "driver"), Some(true));
        assert_eq!(is_estimated("estimated", "camera"), Some(true));
        assert_eq!(RunBooks::of(serde_json::json!({})).is_estimated(), None);
    }
}
