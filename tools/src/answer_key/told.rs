//! Enters what an archive tells, record by record, into the table of the ledger.

use std::collections::BTreeMap;
use std::ops::Range;

use circbuf_driver::archive::{ArchiveReader, Content, Entry, Found, ReadError};
use circbuf_driver::loss::{Loss, LossReason};
use circbuf_driver::record::PAYLOAD_OFFSET;
use circbuf_driver::ring::Timestamp;

use super::table::{Archived, Fate, Table};

/// What an archive tells, beside the fates of the ledger's frames.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Frames that can be read.
    pub(super) frames: u64,
    /// Of these, frames that the ledger does not have, or that were told before.
    pub(super) unknown: u64,
    /// Of these, frames that the ledger may have had in a last line that is not whole.
    pub(super) unjudged: u64,
    /// Frames of all loss records, by reason.
    pub(super) lost: BTreeMap<&'static str, u64>,
    /// Of these, frames that were told before.
    pub(super) lost_twice: u64,
    /// Of these, frames that the ledger does not have.
    pub(super) lost_unknown: u64,
    /// Records and stretches that are damaged.
    pub(super) damaged: u64,
    /// Numbers from the first record to behind the last one.
    pub(super) numbers: Option<Range<u64>>,
}

/// What the record headers tell at a first look.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Frames.
    pub(super) frames: u64,
    /// Frames that the ledger has at their number, or of their time, with their length.
    pub(super) fitting: u64,
    /// Of these, frames that stand at their number where the ledger says.
    pub(super) in_place: u64,
    /// Whether a loss is estimated.
    pub(super) has_estimates: bool,
}

impl Survey {
    /// Looks at all record headers.
    pub(super) fn of(archive: &ArchiveReader, table: &Table) -> Result<Survey, ReadError> {
        let mut survey = Survey::default();
        for found in archive.scan() {
            let Found::Record(entry) = found? else { continue };
            match entry.content {
                Content::Loss(loss) => survey.has_estimates |= !loss.exact,
                Content::Frame { time, .. } => {
                    let archived = archived(&entry, time, 0);
                    let fits = |place: &usize| archived.fits(&table.rows[*place].entry);
                    let numbered = table.place_of(archived.number).filter(fits);
                    let place = numbered.or_else(|| table.place_alike(&archived).filter(fits));
                    let is_at = |place: usize| archived.is_at(&table.rows[place].entry);
                    survey.frames += 1;
                    survey.in_place += u64::from(numbered.is_some_and(is_at));
                    survey.fitting += u64::from(place.is_some());
                }
            }
        }
        Ok(survey)
    }

    /// Whether the driver numbered the frames itself, because its ring had no counters. Frames that
    /// are all in the ledger and none at its number tell it, where no loss does.
    pub(super) fn is_estimated(&self) -> bool {
        self.has_estimates || (self.in_place == 0 && self.fitting > 0)
    }
}

fn archived(entry: &Entry, time: Timestamp, crc32c: u32) -> Archived {
    let header = &entry.header;
    Archived {
        number: header.sequence,
        epoch: header.epoch,
        start: header.cursor,
        time,
        length: header.length,
        crc32c,
    }
}

/// Walks through the archive and fills the table. `estimates` are made where numbers are the driver's own.
pub(super) fn enter(
    archive: &ArchiveReader,
    table: &mut Table,
    mut estimates: Option<Estimates>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Told, ReadError> {
    let (mut told, mut record, total) = (Told::default(), Vec::new(), archive.bytes());
    let mut scan = archive.scan();
    while let Some(found) = scan.next() {
        match found? {
            Found::Record(entry) => match entry.content {
                Content::Loss(loss) => told.loss(table, estimates.as_mut(), &loss),
                Content::Frame { time, .. } => match archive.read_record(&entry, &mut record) {
                    Ok(()) => {
                        let payload = &record[PAYLOAD_OFFSET..][..entry.header.length as usize];
                        let archived = archived(&entry, time, crc_fast::crc32_iscsi(payload));
                        told.frame(table, estimates.as_mut(), &archived);
                    }
                    Err(ReadError::Damaged { .. }) => told.damaged += 1,
                    Err(error) => return Err(error),
                },
            },
            Found::Damaged(extent) => told.damaged += u64::from(!extent.zeros),
            Found::Tail(_) => {}
        }
        progress(scan.position(), total);
    }
    if let Some(estimates) = &mut estimates {
        estimates.spend(table, table.rows.len());
    }
    Ok(told)
}

impl Told {
    fn frame(&mut self, table: &mut Table, estimates: Option<&mut Estimates>, found: &Archived) {
        self.frames += 1;
        self.widen(found.number, 1);
        let numbered = estimates.is_none();
        let place = match numbered {
            true => table.place_of(found.number),
            false => table.place_alike(found),
        };
        let Some(place) = place else {
            let is_cut = numbered && table.incomplete_line.is_some() && found.number == table.end();
            self.unjudged += u64::from(is_cut);
            self.unknown += u64::from(!is_cut);
            return;
        };
        if let Some(estimates) = estimates {
            estimates.reach(table, place);
        }
        let row = &mut table.rows[place];
        match row.fate {
            Fate::Delivered { .. } => {
                self.unknown += 1;
                return;
            }
            Fate::Lost { reason, .. } => self.lost_twice += u64::from(reason != LossReason::Io),
            Fate::Untold => {}
        }
        let in_place = !numbered || found.is_at(&row.entry);
        row.fate = Fate::Delivered { as_written: in_place && found.is_alike(&row.entry) };
    }

    fn loss(&mut self, table: &mut Table, estimates: Option<&mut Estimates>, loss: &Loss) {
        let lost = self.lost.entry(loss.reason.name()).or_default();
        *lost = lost.saturating_add(loss.count);
        self.widen(loss.sequence, loss.count);
        if let Some(estimates) = estimates {
            return estimates.pending.push(*loss);
        }
        let (first, end) = (table.first(), table.end());
        let begin = loss.sequence.clamp(first, end);
        let until = loss.sequence.saturating_add(loss.count).clamp(begin, end);
        let unknown = loss.count - (until - begin);
        self.lost_unknown = self.lost_unknown.saturating_add(unknown);
        for number in begin..until {
            let is_first = table.lose((number - first) as usize, loss);
            // What could not be synced is told as lost, and stays for whoever can read it.
            self.lost_twice += u64::from(!is_first && loss.reason != LossReason::Io);
        }
    }

    fn widen(&mut self, number: u64, count: u64) {
        let end = number.saturating_add(count);
        let known = self.numbers.get_or_insert(number..end);
        *known = known.start.min(number)..known.end.max(end);
    }
}

/// Gives losses whose numbers are estimated to frames of the ledger: to those between the archived
/// frames between which they stand, in order.
#[derive(Debug, Default)]
pub(super) struct Estimates {
    pending: Vec<Loss>,
    /// Place behind the last archived frame.
    next: Option<usize>,
}

impl Estimates {
    /// The frame at this place is archived.
    fn reach(&mut self, table: &mut Table, place: usize) {
        self.spend(table, place);
        self.next = Some(self.next.unwrap_or(0).max(place + 1));
    }

    /// Gives what is pending to the frames up to `end`. In front of the first archived frame that is the
    /// nearest ones; what is left over was estimated too high.
    fn spend(&mut self, table: &mut Table, end: usize) {
        let pending = std::mem::take(&mut self.pending);
        let total = pending.iter().fold(0u64, |sum, loss| sum.saturating_add(loss.count));
        let nearest = || end.saturating_sub(usize::try_from(total).unwrap_or(usize::MAX));
        let mut places = self.next.unwrap_or_else(nearest)..end;
        for loss in &pending {
            for _ in 0..loss.count {
                let Some(place) = places.next() else { return };
                table.lose(place, loss);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A ledger of so many frames, a second apart; the last two have the same time.
    fn table(frames: u32) -> Table {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        for number in 0..frames {
            let sec = number.min(frames - 2);
            writeln!(
                file,
                r#"{{"number":{number},"epoch":0,"start":0,"offset":0,"length":{},"crc32c":"00000000","sec":{sec},"usec":0}}"#,
                number + 1
            )
            .unwrap();
        }
        Table::read(file.path()).unwrap()
    }

    fn frame(sec: u32, length: u32) -> Archived {
        let time = Timestamp { sec, usec: 0 };
        Archived { number: 77, epoch: 0, start: 32, time, length, crc32c: 0 }
    }

    /// Any number may stand in a record with a right checksum.
    #[test]
    fn losses_that_reach_far_beyond_the_ledger_take_no_longer_than_it_is() {
        let (mut table, mut told) = (table(5), Told::default());
        for (sequence, count) in [(2, u64::MAX), (0, 1 << 60), (u64::MAX, 7), (4, u64::MAX)] {
            told.loss(&mut table, None, &Loss { sequence, exact: true, ..loss(count) });
        }
        assert_eq!(fates(&table), "lllll");
        assert_eq!((told.lost["overrun"], told.lost_unknown), (u64::MAX, u64::MAX));
        assert_eq!((told.lost_twice, told.numbers.clone()), (4, Some(0..u64::MAX)));
        let mut estimates = Estimates::default();
        for _ in 0..3 {
            told.loss(&mut table, Some(&mut estimates), &loss(u64::MAX));
        }
        estimates.spend(&mut table, 5);
        assert_eq!(fates(&table), "lllll");
    }

    fn loss(count: u64) -> Loss {
        let reason = LossReason::Overrun;
        Loss { reason, refusal: None, sequence: 0, count, exact: false, first: None, last: None }
    }

    /// The fates as letters: delivered, wrong, lost, untold.
    fn fates(table: &Table) -> String {
        let letter = |fate| match fate {
            Fate::Delivered { as_written: true } => 'd',
            Fate::Delivered { .. } => 'w',
            Fate::Lost { .. } => 'l',
            Fate::Untold => '.',
        };
        table.rows.iter().map(|row| letter(row.fate)).collect()
    }

    #[test]
    fn estimated_losses_go_to_the_frames_between_which_they_stand() {
        let (mut table, mut told) = (table(20), Told::default());
        let mut estimates = Estimates::default();
        told.loss(&mut table, Some(&mut estimates), &loss(3));
        told.frame(&mut table, Some(&mut estimates), &frame(6, 7));
        told.loss(&mut table, Some(&mut estimates), &loss(2));
        told.frame(&mut table, Some(&mut estimates), &frame(10, 11));
        // More than there is room for.
        told.loss(&mut table, Some(&mut estimates), &loss(u64::MAX));
        told.frame(&mut table, Some(&mut estimates), &frame(11, 12));
        told.frame(&mut table, Some(&mut estimates), &frame(12, 999));
        told.loss(&mut table, Some(&mut estimates), &loss(4));
        estimates.spend(&mut table, 20);
        assert_eq!(fates(&table), "...llldll.ddwllll...");
        assert_eq!((told.frames, told.unknown), (4, 0));
    }

    #[test]
    fn of_frames_of_one_time_the_one_that_is_alike_is_meant_and_each_only_once() {
        let (mut table, mut told) = (table(5), Told::default());
        let mut estimates = Estimates::default();
        for (length, fates_then) in [(5, "....d"), (4, "...dd"), (4, "...dd")] {
            told.frame(&mut table, Some(&mut estimates), &frame(3, length));
            assert_eq!(fates(&table), fates_then);
        }
        told.frame(&mut table, Some(&mut estimates), &frame(9, 1));
        assert_eq!((told.frames, told.unknown), (4, 2));
    }
}
