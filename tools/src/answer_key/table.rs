//! The ledger as a table, and what the archive says became of each of its frames.

use std::ops::Range;
use std::path::Path;

use circbuf_driver::loss::{Loss, LossReason, Refusal};
use circbuf_driver::ring::Timestamp;
use circbuf_emulator::ledger::{self, LedgerEntry, LedgerError};

use super::AnswerKeyError;

/// What became of a frame, as far as the archive tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Neither a frame nor a loss names it.
    Untold,
    /// It is archived, as it was written or not.
    Delivered { as_written: bool },
    /// A loss names it.
    Lost { reason: LossReason, refusal: Option<Refusal> },
}

/// One frame of the ledger.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) entry: LedgerEntry,
    pub(super) fate: Fate,
}

/// An archived frame: where and when it was, and what its bytes are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Archived {
    pub(super) number: u64,
    pub(super) epoch: u64,
    pub(super) start: u64,
    pub(super) time: Timestamp,
    pub(super) length: u32,
    pub(super) crc32c: u32,
}

impl Archived {
    /// Whether time, length and content are those of the ledger.
    pub(super) fn is_alike(&self, entry: &LedgerEntry) -> bool {
        self.fits(entry) && self.crc32c == entry.crc32c
    }

    /// Whether time and length are those of the ledger.
    pub(super) fn fits(&self, entry: &LedgerEntry) -> bool {
        self.time == time(entry) && self.length == entry.length
    }

    /// Whether it stands where the ledger says.
    pub(super) fn is_at(&self, entry: &LedgerEntry) -> bool {
        (self.number, self.epoch, self.start) == (entry.number, entry.epoch, entry.start)
    }
}

fn time(entry: &LedgerEntry) -> Timestamp {
    Timestamp { sec: entry.sec, usec: entry.usec }
}

/// All frames of a ledger, in order: 68 bytes a frame.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) rows: Vec<Row>,
    /// Number of the last line, if it is not whole: its camera was killed.
    pub(super) incomplete_line: Option<usize>,
    /// Places of the rows by time.
    by_time: Vec<u32>,
}

impl Table {
    /// Reads a ledger; of every frame nothing is told yet.
    pub(super) fn read(path: &Path) -> Result<Table, AnswerKeyError> {
        let mut table = Table { rows: Vec::new(), incomplete_line: None, by_time: Vec::new() };
        let mut lines = ledger::read(path)?.enumerate().peekable();
        while let Some((index, line)) = lines.next() {
            match line {
                Ok(entry) => table.add(entry, path, index + 1)?,
                Err(LedgerError::Line { line, source, .. })
                    if source.is_eof() && lines.peek().is_none() =>
                {
                    table.incomplete_line = Some(line);
                }
                Err(error) => return Err(error.into()),
            }
        }
        if table.rows.is_empty() {
            return Err(AnswerKeyError::Empty { path: path.to_owned() });
        }
        table.sort_by_time();
        Ok(table)
    }

    fn add(&mut self, entry: LedgerEntry, path: &Path, line: usize) -> Result<(), AnswerKeyError> {
        // A line is written before its frame. One that a stop cut short was never told of: the next
        // epoch begins with a frame of its number.
        let is_instead =
            |row: &mut Row| row.entry.number == entry.number && row.entry.epoch < entry.epoch;
        self.rows.pop_if(is_instead);
        let last = self.rows.last().map(|row| row.entry.number);
        let expected = last.map_or(entry.number, |last| last.saturating_add(1));
        if entry.number != expected || last == Some(expected) {
            let (path, found) = (path.to_owned(), entry.number);
            return Err(AnswerKeyError::Order { path, line, found, expected });
        }
        self.rows.push(Row { entry, fate: Fate::Untold });
        Ok(())
    }

    /// Number of the first frame.
    pub(super) fn first(&self) -> u64 {
        self.rows[0].entry.number
    }

    /// Number behind the last frame.
    pub(super) fn end(&self) -> u64 {
        self.first().saturating_add(self.rows.len() as u64)
    }

    /// Numbers from the first frame of which anything is told to behind the last one.
    pub(super) fn told_range(&self) -> Range<u64> {
        let is_told = |row: &Row| row.fate != Fate::Untold;
        let first = self.rows.iter().position(is_told).unwrap_or(self.rows.len()) as u64;
        let end = self.rows.iter().rposition(is_told).map_or(first, |place| place as u64 + 1);
        let number = |place| self.first().saturating_add(place);
        number(first)..number(end)
    }

    /// Place of the frame with this number.
    pub(super) fn place_of(&self, number: u64) -> Option<usize> {
        let place = number.checked_sub(self.first())? as usize;
        (place < self.rows.len()).then_some(place)
    }

    fn sort_by_time(&mut self) {
        let places = u32::try_from(self.rows.len()).expect("64 bytes a row: memory ends before");
        self.by_time = (0..places).collect();
        self.by_time.sort_unstable_by_key(|&place| (time(&self.rows[place as usize].entry), place));
    }

    /// Place of the frame that the archived one is: of the same time, and if there are several, one
    /// that is the same and untold.
    pub(super) fn place_alike(&self, archived: &Archived) -> Option<usize> {
        let key = |&place: &u32| time(&self.rows[place as usize].entry);
        let begin = self.by_time.partition_point(|place| key(place) < archived.time);
        let same_time = self.by_time[begin..].iter().take_while(|&p| key(p) == archived.time);
        same_time.map(|&place| place as usize).min_by_key(|&place| {
            let Row { entry, fate } = &self.rows[place];
            (!archived.is_alike(entry), !archived.fits(entry), *fate != Fate::Untold, place)
        })
    }

    /// A loss is told of the frame at this place; false if something else was told before.
    pub(super) fn lose(&mut self, place: usize, loss: &Loss) -> bool {
        let fate = &mut self.rows[place].fate;
        let is_first = *fate == Fate::Untold;
        if is_first {
            *fate = Fate::Lost { reason: loss.reason, refusal: loss.refusal };
        }
        is_first
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn table(frames: &[(u64, u64, u32)]) -> Result<Table, AnswerKeyError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        for (number, epoch, length) in frames {
            writeln!(
                file,
                r#"{{"number":{number},"epoch":{epoch},"start":0,"offset":0,"length":{length},"crc32c":"00000000","sec":{number},"usec":0,"faults":[],"damaged":false,"undetectable":false}}"#
            )
            .unwrap();
        }
        Table::read(file.path())
    }

    #[test]
    fn a_frame_that_a_stop_cut_short_gives_its_number_to_the_next_epoch() {
        let stopped = table(&[(6, 0, 10), (7, 0, 11), (7, 1, 12), (7, 2, 13), (8, 2, 14)]).unwrap();
        let lengths: Vec<u32> = stopped.rows.iter().map(|row| row.entry.length).collect();
        assert_eq!(lengths, [10, 13, 14]);
    }

    #[test]
    fn a_number_that_is_there_twice_or_missing_is_refused_with_its_line() {
        for (wrong, told) in [
            (&[(6, 0, 10), (6, 0, 10)][..], "line 2: frame 6 stands where frame 7"),
            (&[(6, 1, 10), (6, 0, 10)], "line 2: frame 6 stands where frame 7"),
            (&[(6, 0, 10), (6, 1, 10), (8, 1, 10)], "line 3: frame 8 stands where frame 7"),
        ] {
            let refused = table(wrong).unwrap_err().to_string();
            assert!(refused.contains(told), "{refused}");
        }
    }
}
