//! Holds an archive against the ledger of the camera that was archived: whether anything was handed on
//! that is not as the camera wrote it, and what became of every frame.
//!
//! Where the ring has counters, frames have the camera's numbers, and a frame is good only if number,
//! epoch, cursor, time, length and content are those of the ledger. A ring without counters leaves
//! numbers to the driver: frames are found by time, length and content then, and what became of those
//! that are missing is an estimate.

mod books;
mod table;
mod told;
mod verdict;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use circbuf_driver::archive::{ArchiveReader, ReadError};
use circbuf_emulator::ledger::LedgerError;
use serde::Serialize;

pub use books::{Difference, RunBooks};
pub use verdict::{Columns, Damage, FaultBook};

use table::Table;
use told::{Estimates, Survey, Told};
use verdict::Sums;

/// Version of [`Comparison`] as JSON.
pub const SCHEMA: &str = "circbuf.verify/1";

/// What an archive is worth by its camera's ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Frames in the ledger. The columns add up to these and [`Comparison::unknown`].
    pub frames: u64,
    /// What became of them.
    #[serde(flatten)]
    pub columns: Columns,
    /// Archived frames that the ledger does not have, or that are archived twice; in
    /// [`Columns::delivered_damaged`].
    pub unknown: u64,
    /// "exact" where losses name their frames, "estimated" where the driver numbered them itself.
    pub lost_is: &'static str,
    /// What became of the damaged frames.
    pub damage: Damage,
    /// Frames lost, by reason.
    pub by_reason: BTreeMap<&'static str, u64>,
    /// Frames refused, by the point of the law that did not hold.
    pub by_refusal: BTreeMap<&'static str, u64>,
    /// Frames by what was done to them; "none" are those without a fault.
    pub by_fault: BTreeMap<&'static str, FaultBook>,
    /// The ledger's last line, if it is not whole, as a camera that is killed may leave it.
    pub ledger_incomplete_line: Option<usize>,
    /// What the archive holds.
    pub archive: ArchiveSums,
    /// Numbers of the run's books that are not those of ledger and archive; `None` without books.
    pub books: Option<Vec<Difference>>,
}

/// What an archive holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ArchiveSums {
    /// Whole frames.
    pub frames: u64,
    /// Frames that its loss records tell, by reason.
    pub lost: BTreeMap<&'static str, u64>,
    /// Of these, frames that are told twice: archived or lost before. A frame that is archived although
    /// it was told as lost by `io` is none: it could not be synced.
    pub lost_twice: u64,
    /// Of these, frames that the ledger does not have.
    pub lost_unknown: u64,
    /// Archived frames that the ledger may have had in the line that is not whole.
    pub unjudged: u64,
    /// Records and stretches that are damaged on the disk: nothing can be said of their frames.
    pub damaged: u64,
}

/// Why ledger and archive cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum AnswerKeyError {
    /// The ledger cannot be read.
    #[error("{0}; a ledger is what circbuf run or emulate writes with --ledger FILE")]
    Ledger(#[from] LedgerError),
    /// The ledger does not tell of every frame.
    #[error(
        "{}, line {line}: frame {found} stands where frame {expected} belongs: lines are missing, or \
         two ledgers are in one file; use the ledger as the camera wrote it",
        path.display()
    )]
    Order {
        /// The ledger.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// Number of the frame in it.
        found: u64,
        /// Number that has to be in it.
        expected: u64,
    },
    /// The ledger is empty.
    #[error("{}: no frame is in this ledger; give the one of the run that was archived", path.display())]
    Empty {
        /// The ledger.
        path: PathBuf,
    },
    /// The archive cannot be read.
    #[error(transparent)]
    Archive(#[from] ReadError),
    /// Nothing in the archive is in the ledger.
    #[error(
        "{}: none of its {frames} frames is in the ledger {}: they are of different runs; give the \
         ledger of the run that was archived",
        archive.display(), ledger.display()
    )]
    OtherRun {
        /// The archive.
        archive: PathBuf,
        /// The ledger.
        ledger: PathBuf,
        /// Frames in the archive.
        frames: u64,
    },
    /// The books cannot be used.
    #[error(
        "{}: {why}; books are what circbuf run --archive DIR --json prints", path.display()
    )]
    Books {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Compares an archive with the ledger of its camera, and the books of the run with both. `progress`
/// is told the bytes of the archive that were read, and how many it has.
///
/// The ledger takes 68 bytes of memory a frame; the archive is read once, its record headers twice.
///
/// # Errors
/// If one of them cannot be read or is no such thing, or if they are of different runs.
pub fn compare(
    ledger: &Path,
    archive: &Path,
    books: Option<&RunBooks>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Comparison, AnswerKeyError> {
    let reader = ArchiveReader::open(archive)?;
    let mut table = Table::read(ledger)?;
    let survey = Survey::of(&reader, &table)?;
    if survey.frames > 0 && survey.fitting == 0 {
        let (archive, ledger) = (archive.to_owned(), ledger.to_owned());
        return Err(AnswerKeyError::OtherRun { archive, ledger, frames: survey.frames });
    }
    let by_books = books.and_then(RunBooks::is_estimated);
    let estimated = by_books.unwrap_or_else(|| survey.is_estimated());
    let estimates = estimated.then(Estimates::default);
    let told = told::enter(&reader, &mut table, estimates, progress)?;
    let answerable = answerable(&table, &told, estimated, books);
    let mut comparison = Comparison::of(&table, told, &answerable);
    comparison.lost_is = if estimated { "estimated" } else { "exact" };
    comparison.books = books.map(|books| books.differences(&comparison));
    Ok(comparison)
}

/// Numbers of the frames from the first that the driver told of, to the last. What its archive's
/// policy left at the end is known from the books only.
fn answerable(table: &Table, told: &Told, estimated: bool, books: Option<&RunBooks>) -> Range<u64> {
    if estimated {
        return table.told_range();
    }
    let Range { start, end } = told.numbers.clone().unwrap_or(table.first()..table.first());
    let expected = books.and_then(RunBooks::frames_expected);
    start..end.max(expected.map_or(0, |frames| start.saturating_add(frames)))
}

impl Comparison {
    fn of(table: &Table, told: Told, answerable: &Range<u64>) -> Comparison {
        let mut sums = Sums::of(table, answerable);
        sums.columns.delivered_damaged += told.unknown;
        sums.damage.accepted = sums.columns.delivered_damaged;
        Comparison {
            schema: SCHEMA,
            frames: table.rows.len() as u64,
            columns: sums.columns,
            unknown: told.unknown,
            lost_is: "exact",
            damage: sums.damage,
            by_reason: sums.by_reason,
            by_refusal: sums.by_refusal,
            by_fault: sums.by_fault,
            ledger_incomplete_line: table.incomplete_line,
            archive: ArchiveSums {
                frames: told.frames,
                lost: told.lost,
                lost_twice: told.lost_twice,
                lost_unknown: told.lost_unknown,
                unjudged: told.unjudged,
                damaged: told.damaged,
            },
            books: None,
        }
    }

    /// Whether columns of what was lost are estimates, because frames have the driver's numbers.
    #[must_use]
    pub fn is_estimated(&self) -> bool {
        self.lost_is == "estimated"
    }

    /// Whether nothing was handed on that is damaged, and nothing is damaged on the disk.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.columns.delivered_damaged == 0 && self.archive.damaged == 0
    }
}
