//! The outcome of a comparison: columns that together are the ledger.

use std::collections::BTreeMap;
use std::ops::Range;

use circbuf_driver::loss::{LossReason, Refusal};
use circbuf_emulator::fault::FaultKind;
use serde::Serialize;

use super::table::{Fate, Row, Table};

/// Frames of a ledger by what became of them. Each stands in one column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Columns {
    /// Good, and archived as they were written: number, epoch, cursor, time, length and content.
    pub delivered_good: u64,
    /// Archived although they are damaged, or otherwise than they were written; with the archived frames
    /// that the ledger does not have.
    pub delivered_damaged: u64,
    /// Good, and refused: the price of the law.
    pub refused_good: u64,
    /// Damaged, and refused.
    pub refused_damaged: u64,
    /// Refused because the writer had come back to them.
    pub overwritten: u64,
    /// Never examined: the writer lapped the reader.
    pub missed: u64,
    /// Damaged in a way that leaves a lawful frame, and archived as they were written.
    pub undetectable: u64,
    /// Not archived for another reason: left by the archive's policy, no slab, full queue, no disk.
    pub not_archived: u64,
    /// Written before the first frame or loss that the archive tells: the driver was not there yet.
    pub before_attach: u64,
    /// Written behind the last one: the driver had ended, or the archive's policy left them.
    pub after_end: u64,
}

/// The frames with one kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct FaultBook {
    /// How many there are.
    pub injected: u64,
    /// Good frames without a fault of their own that were refused, and to which one of these is the
    /// nearest frame with a fault; in front of them if two are equally near.
    pub needless: u64,
    /// What became of them.
    #[serde(flatten)]
    pub columns: Columns,
}

/// What became of the frames that must not be handed on, the undetectable ones apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Damage {
    /// How many there are.
    pub damaged: u64,
    /// Of these, refused.
    pub found: u64,
    /// Archived frames that are damaged or not as they were written; [`Columns::delivered_damaged`].
    pub accepted: u64,
    /// Of the damaged ones, frames that the driver never looked at, or did not archive.
    pub not_examined: u64,
}

/// All that follows from the table.
#[derive(Debug, Default)]
pub(super) struct Sums {
    pub(super) columns: Columns,
    pub(super) damage: Damage,
    pub(super) by_reason: BTreeMap<&'static str, u64>,
    pub(super) by_refusal: BTreeMap<&'static str, u64>,
    pub(super) by_fault: BTreeMap<&'static str, FaultBook>,
}

/// Key of the frames without a fault.
const NO_FAULT: &str = "none";

impl Columns {
    /// All frames, with those that the ledger does not have.
    #[must_use]
    pub const fn total(&self) -> u64 {
        let delivered = self.delivered_good + self.delivered_damaged + self.undetectable;
        let refused = self.refused_good + self.refused_damaged + self.overwritten;
        let outside = self.before_attach + self.after_end;
        delivered + refused + self.missed + self.not_archived + outside
    }

    /// The column of a row. `answerable` are the numbers from the driver's first to its last.
    fn of(&mut self, row: &Row, answerable: &Range<u64>) -> &mut u64 {
        let entry = &row.entry;
        match row.fate {
            Fate::Delivered { as_written: false } => &mut self.delivered_damaged,
            Fate::Delivered { .. } if !entry.damaged => &mut self.delivered_good,
            Fate::Delivered { .. } if entry.undetectable => &mut self.undetectable,
            Fate::Delivered { .. } => &mut self.delivered_damaged,
            Fate::Lost { reason: LossReason::Overrun, .. } => &mut self.missed,
            Fate::Lost { refusal: Some(Refusal::Overtaken), .. } => &mut self.overwritten,
            Fate::Lost { reason: LossReason::Torn | LossReason::Corrupt, .. } => {
                match entry.damaged {
                    true => &mut self.refused_damaged,
                    false => &mut self.refused_good,
                }
            }
            Fate::Lost { .. } => &mut self.not_archived,
            Fate::Untold if entry.number < answerable.start => &mut self.before_attach,
            Fate::Untold if entry.number >= answerable.end => &mut self.after_end,
            Fate::Untold => &mut self.not_archived,
        }
    }
}

impl Sums {
    pub(super) fn of(table: &Table, answerable: &Range<u64>) -> Sums {
        let mut sums = Sums::default();
        table.rows.iter().for_each(|row| sums.add(row, answerable));
        sums.blame(&table.rows);
        sums
    }

    fn add(&mut self, row: &Row, answerable: &Range<u64>) {
        *self.columns.of(row, answerable) += 1;
        if let Fate::Lost { reason, refusal } = row.fate {
            *self.by_reason.entry(reason.name()).or_default() += 1;
            if let Some(refusal) = refusal {
                *self.by_refusal.entry(refusal.name()).or_default() += 1;
            }
        }
        if row.entry.damaged && !row.entry.undetectable {
            self.damage.add(row.fate);
        }
        let faults = row.entry.faults;
        let names = faults.iter().map(FaultKind::name);
        for name in names.chain(faults.is_empty().then_some(NO_FAULT)) {
            let book = self.by_fault.entry(name).or_default();
            book.injected += 1;
            *book.columns.of(row, answerable) += 1;
        }
    }

    /// Finds for each good frame that was refused, and has no fault, the fault that is to blame.
    fn blame(&mut self, rows: &[Row]) {
        let faulty: Vec<usize> =
            (0..rows.len()).filter(|&place| !rows[place].entry.faults.is_empty()).collect();
        for (place, _) in rows.iter().enumerate().filter(|(_, row)| is_needless(row)) {
            let behind = faulty.partition_point(|&other| other < place);
            let before = behind.checked_sub(1).map(|index| faulty[index]);
            let nearest = [before, faulty.get(behind).copied()]
                .into_iter()
                .flatten()
                .min_by_key(|other| other.abs_diff(place));
            let kinds = nearest.and_then(|other| rows[other].entry.faults.iter().next());
            let name = kinds.map_or(NO_FAULT, FaultKind::name);
            self.by_fault.entry(name).or_default().needless += 1;
        }
    }
}

/// Whether a good frame without a fault was refused although the writer had not come back to it.
fn is_needless(row: &Row) -> bool {
    let Fate::Lost { reason: LossReason::Torn | LossReason::Corrupt, refusal } = row.fate else {
        return false;
    };
    let is_good = !row.entry.damaged && row.entry.faults.is_empty();
    is_good && refusal != Some(Refusal::Overtaken)
}

impl Damage {
    fn add(&mut self, fate: Fate) {
        self.damaged += 1;
        match fate {
            Fate::Delivered { .. } => {}
            Fate::Lost { reason: LossReason::Torn | LossReason::Corrupt, .. } => self.found += 1,
            Fate::Lost { .. } | Fate::Untold => self.not_examined += 1,
        }
    }
}
