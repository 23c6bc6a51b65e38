//! Whether an archive is what it claims to be.

use std::path::Path;

use serde::Serialize;

use super::directory::Directory;
use super::error::ReadError;
use super::index::IndexEntry;
use super::reader::{ArchiveReader, SegmentPath, indexes};
use super::scan::{Content, Entry, Extent};
use super::segment::INDEX_SUFFIX;
use super::walk::{Step, Walk};
use super::witness::Witness;

/// Problems that are told one by one; the others are only counted.
const PROBLEMS_KEPT: usize = 100;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Number of the segment.
    pub segment: u32,
    /// Where in it, in bytes.
    pub offset: u64,
    /// What.
    pub what: String,
}

/// The first hundred problems, and how many there are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Problems {
    /// The first hundred.
    pub problems: Vec<Problem>,
    /// All of them.
    pub problems_total: u64,
}

impl Problems {
    pub(super) fn add(&mut self, segment: u32, offset: u64, what: impl Into<String>) {
        self.problems_total += 1;
        if self.problems.len() < PROBLEMS_KEPT {
            self.problems.push(Problem { segment, offset, what: what.into() });
        }
    }
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct VerifyReport {
    /// The archive is being written. What its writer had not indexed when this began is no damage.
    pub live: bool,
    /// Segments read.
    pub segments: u64,
    /// Whole frames.
    pub frames: u64,
    /// Whole loss records.
    pub losses: u64,
    /// Frames that the loss records tell.
    pub frames_lost: u64,
    /// Numbers missing between adjoining frames that no loss accounts for: skipped by the policy of
    /// the run.
    pub skipped: u64,
    /// Numbers missing that may have been skipped or may be gone: across damage, a hole or a missing
    /// segment, and behind a segment that has no index.
    pub unaccounted: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What is wrong.
    #[serde(flatten)]
    pub problems: Problems,
    /// Whole records that no index names. No harm: `recover` makes the index again.
    pub unindexed: u64,
    /// Bytes between records that were reserved and never written, as a killed program leaves them, or
    /// erased by [`super::recover()`];
    /// in a live archive also those of records that are being written.
    pub hole_bytes: u64,
    /// Bytes behind the last whole record of a segment, which `recover` would cut.
    pub tail_bytes: u64,
    /// That of the last segment, if it is not all zeros: never finished, or damaged since. It was
    /// not indexed, so nobody knows.
    pub torn: Option<Extent>,
}

impl VerifyReport {
    /// Whether nothing is wrong. Unindexed records, holes and the last segment's tail are what a
    /// killed program leaves, not damage.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.problems.problems_total == 0
    }
}

/// Reads all of an archive and checks it: checksums, slots, order of the frames, indexes.
/// `progress` is told the bytes read and the bytes in all.
///
/// # Errors
/// If there is no archive, it cannot be read, or is of another version. Damage is no error; it
/// stands in the report.
pub fn verify(dir: &Path, mut progress: impl FnMut(u64, u64)) -> Result<VerifyReport, ReadError> {
    // Whatever an archive that is being written gets from here on is more than was looked for.
    let live = Directory::is_held(dir).map_err(ReadError::at("list", dir))?;
    let indexes = indexes(dir)?;
    let archive = ArchiveReader::open(dir)?;
    let mut verifier = Verifier::new(&archive, live);
    verifier.check_indexes(&archive, &indexes);
    let total = archive.bytes();
    for segment in archive.segments() {
        let done = verifier.report.bytes;
        verifier.segment(segment, &mut |bytes| progress(done + bytes, total))?;
    }
    Ok(verifier.report)
}

#[derive(Debug)]
struct Verifier {
    report: VerifyReport,
    order: Order,
    session: u64,
    /// Number that the next segment has to have, and that of the last one.
    next: u32,
    last: u32,
}

/// What the sequence numbers have to fit.
#[derive(Debug, Default)]
struct Order {
    last: Option<u64>,
    lost_since: u64,
    /// Something that may have been a record cannot be read, or may be gone, since.
    doubtful_since: bool,
}

impl Verifier {
    fn new(archive: &ArchiveReader, live: bool) -> Verifier {
        Verifier {
            report: VerifyReport { live, ..VerifyReport::default() },
            order: Order::default(),
            session: archive.session().session,
            next: 0,
            last: archive.segments().last().map_or(0, |segment| segment.number),
        }
    }

    fn check_indexes(&mut self, archive: &ArchiveReader, indexes: &[u32]) {
        for index in indexes {
            if !archive.segments().iter().any(|segment| segment.number == *index) {
                self.report.problems.add(*index, 0, "an index without its segment");
            }
        }
    }

    fn segment(
        &mut self,
        segment: &SegmentPath,
        progress: &mut impl FnMut(u64),
    ) -> Result<(), ReadError> {
        let index_path = segment.path.with_extension(INDEX_SUFFIX);
        let mut walk = Walk::open(segment.number, &segment.path, Witness::open(&index_path)?)?;
        let (is_indexed, named_end) = (walk.witness().exists(), walk.witness().named_end());
        self.check_number(segment.number);
        self.check_header(segment.number, &walk);
        self.check_readable(segment.number, walk.witness());
        while let Some((step, named)) = walk.next()? {
            match step {
                Step::Whole { entry, flaw } => {
                    self.record(&entry);
                    self.check_index(&entry, named);
                    if let Some(flaw) = flaw {
                        self.report.problems.add(entry.segment, entry.offset, flaw.what);
                    }
                }
                Step::Damaged(extent) => {
                    self.damaged(&extent, named_end);
                    self.misnamed(extent.segment, named);
                }
                Step::Tail(extent) => self.tail(extent),
            }
            progress(walk.scan().position());
        }
        self.misnamed(segment.number, walk.named_beyond());
        let end = walk.scan().file_bytes();
        self.order.doubtful_since |= !is_indexed;
        self.report.segments += 1;
        self.report.bytes += end;
        Ok(())
    }

    fn check_number(&mut self, number: u32) {
        if number != self.next {
            let what = format!("segments {} to {} are missing", self.next, number - 1);
            self.report.problems.add(self.next, 0, what);
            self.order.doubtful_since = true;
        }
        // Behind the last number that a name can tell comes no other segment.
        self.next = number.saturating_add(1);
    }

    fn check_header(&mut self, number: u32, walk: &Walk) {
        let problems = &mut self.report.problems;
        match walk.scan().header() {
            Err(error) => problems.add(number, 0, error.to_string()),
            Ok(header) if header.number != number => {
                problems.add(number, 0, format!("the header is that of segment {}", header.number));
            }
            Ok(header) if header.session.session != self.session => {
                let other = header.session.session;
                problems.add(number, 0, format!("the segment belongs to session {other:016x}"));
            }
            Ok(_) => {}
        }
    }

    fn record(&mut self, entry: &Entry) {
        match entry.content {
            Content::Loss(loss) => {
                self.report.losses += 1;
                add(&mut self.report.frames_lost, loss.count);
                add(&mut self.order.lost_since, loss.count);
            }
            Content::Frame { .. } => {
                self.report.frames += 1;
                self.check_order(entry);
            }
        }
    }

    fn check_order(&mut self, entry: &Entry) {
        let sequence = entry.header.sequence;
        let order = std::mem::take(&mut self.order);
        self.order.last = Some(sequence);
        let Some(last) = order.last else { return };
        if sequence <= last {
            let what = format!("sequence {sequence} stands behind sequence {last}");
            return self.report.problems.add(entry.segment, entry.offset, what);
        }
        let told = order.lost_since.max(entry.header.lost_before);
        let missing = (sequence - last - 1).saturating_sub(told);
        match order.doubtful_since {
            true => add(&mut self.report.unaccounted, missing),
            false => add(&mut self.report.skipped, missing),
        }
    }

    fn damaged(&mut self, extent: &Extent, named_end: u64) {
        self.order.doubtful_since = true;
        let is_last = extent.segment == self.last;
        let in_flight = self.report.live && is_last && extent.offset >= named_end;
        if extent.zeros || in_flight {
            self.report.hole_bytes += extent.bytes;
        } else {
            self.report.problems.add(extent.segment, extent.offset, &*extent.what);
        }
    }

    /// Only the last segment may end in something else than zeros: a writer ends a segment before it
    /// begins another.
    fn tail(&mut self, extent: Extent) {
        self.order.doubtful_since = true;
        self.report.tail_bytes += extent.bytes;
        match extent.zeros {
            true => {}
            false if extent.segment == self.last => self.report.torn = Some(extent),
            false => self.report.problems.add(extent.segment, extent.offset, extent.what),
        }
    }

    fn check_readable(&mut self, segment: u32, witness: &Witness) {
        for (number, error) in witness.unreadable() {
            self.report.problems.add(segment, 0, format!("entry {number}: {error}"));
        }
    }

    /// The index may name a whole record, and if it does, has to tell the same.
    fn check_index(&mut self, entry: &Entry, named: &[IndexEntry]) {
        let expected = entry.indexed();
        let is_here = |named: &&IndexEntry| named.offset == entry.offset;
        self.report.unindexed += u64::from(!named.iter().any(|named| is_here(&named)));
        for other in named.iter().filter(|named| **named != expected) {
            match is_here(&other) {
                true => {
                    let what = format!("the index contradicts sequence {}", expected.sequence);
                    self.report.problems.add(entry.segment, entry.offset, what);
                }
                false => self.misnamed(entry.segment, std::slice::from_ref(other)),
            }
        }
    }

    /// The index must not name anything where no whole record stands.
    fn misnamed(&mut self, segment: u32, named: &[IndexEntry]) {
        for entry in named {
            self.report.problems.add(segment, entry.offset, not_whole(entry.sequence));
        }
    }
}

/// Any number may stand in a record: what no counter holds is counted as the largest number.
fn add(sum: &mut u64, count: u64) {
    *sum = sum.saturating_add(count);
}

/// What to say where the index names a record that does not stand there whole.
pub(super) fn not_whole(sequence: u64) -> String {
    format!("the index names sequence {sequence}, which is not whole")
}

#[cfg(test)]
mod tests;
