//! The writing side of an archive.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::directory::Directory;
use super::engine::{Completion, Engine, LOSS_RECORD_BYTES, Reap, Record, Write, seal_loss};
use super::error::ArchiveError;
use super::index::IndexEntry;
use super::options::{ArchiveCounters, ArchiveOptions, Durability, Session};
use super::outage::{Outage, describe};
use super::queue::{Pending, Queue};
use super::segment::SegmentHeader;
use super::segment_file::SegmentFile;
use crate::clock::Moment;
use crate::frame::Frame;
use crate::loss::{Loss, LossReason};
use crate::record::{RECORD_HEADER_BYTES, RecordHeader, stored_body_crc};
use crate::ring::Timestamp;
use crate::slab::SlabPool;

/// A sync is not put off beyond this many records, so that memory is bounded.
const UNSYNCED_MAX: usize = 4096;
/// Detection times are kept for at most this many durable frames until someone asks for them.
const DURABLE_KEPT_MAX: usize = 1 << 16;

/// An archive that is being written. It has neither thread nor clock: whoever owns it calls
/// [`Archive::poll`] often enough.
///
/// Dropping it waits for the writes in flight and leaves the segment as after a crash, to be
/// mended by [`super::recover()`]; [`Archive::finish`] seals it.
#[derive(Debug)]
pub struct Archive {
    dir: Directory,
    session: Session,
    options: ArchiveOptions,
    output: Output,
    queue: Queue,
    outage: Outage,
    counters: ArchiveCounters,
    latest: Latest,
}

/// Where records go.
#[derive(Debug)]
struct Output {
    engine: Engine,
    /// Slabs for loss records: one more than can be in flight.
    losses: SlabPool,
    segment: Option<SegmentFile>,
    /// Number of the segment in use, or of the next one.
    number: u32,
    /// An attempt to begin that one has failed and left files behind.
    leftover: bool,
    /// Kept so that no call allocates.
    completions: Vec<Completion>,
}

/// What happened last.
#[derive(Debug, Default)]
struct Latest {
    sync_ns: u64,
    /// Frames of the segment in use that are confirmed but not durable.
    undurable: u64,
    durable_detected_ns: Vec<u64>,
}

impl Archive {
    /// Begins an archive in `dir`, which is made if it does not exist. Unrelated files in it are
    /// left alone.
    ///
    /// # Errors
    /// If the options are out of range, the directory holds an archive, is being written, or cannot
    /// be written, or io_uring was asked for and is not available.
    pub fn create(
        dir: &Path,
        session: Session,
        options: ArchiveOptions,
        now: Moment,
    ) -> Result<Archive, ArchiveError> {
        options.check()?;
        let engine = Engine::new(options.engine, options.depth)?;
        Archive::with_engine(dir, session, options, engine, now)
    }

    pub(super) fn with_engine(
        dir: &Path,
        session: Session,
        options: ArchiveOptions,
        engine: Engine,
        now: Moment,
    ) -> Result<Archive, ArchiveError> {
        let losses = SlabPool::new(SlabPool::class_bytes(LOSS_RECORD_BYTES) * (options.depth + 1));
        let counters = ArchiveCounters { engine: engine.name(), ..ArchiveCounters::default() };
        let (segment, number, leftover, completions) = (None, 0, false, Vec::new());
        let output = Output { engine, losses, segment, number, leftover, completions };
        let mut archive = Archive {
            dir: Directory::prepare(dir)?,
            session,
            options,
            output,
            queue: Queue::default(),
            outage: Outage::default(),
            counters,
            latest: Latest { sync_ns: now.monotonic_ns, ..Latest::default() },
        };
        archive.begin_segment(now)?;
        let mode = if archive.counters.direct { "past the page cache" } else { "buffered" };
        log::info!("archive {}: {}, {mode}", dir.display(), archive.counters.engine);
        Ok(archive)
    }

    /// Writes a frame. Never fails: a frame that cannot be written is counted.
    ///
    /// Blocks while as many writes as the depth allows are in flight, and at the end of a segment
    /// until it is sealed. A write may be begun only with the next [`Archive::poll`].
    ///
    /// # Panics
    /// If the frame is no record: the [`Capture`](crate::capture::Capture) that it comes from has to have
    /// an outlet for the archive, which takes it.
    pub fn append(&mut self, frame: Frame, now: Moment) {
        let record_bytes = frame.record().len() as u64;
        if self.ready(record_bytes, now) {
            let (header, time) = (*frame.record_header(), frame.time());
            self.submit(Record::Frame(frame), &header, time, None);
        } else {
            self.lose(frame.sequence(), frame.time());
        }
        self.settle(false, now);
    }

    /// Writes a loss, so that a gap is data. One that cannot be written now is written later.
    pub fn append_loss(&mut self, loss: &Loss, now: Moment) {
        if self.ready(LOSS_RECORD_BYTES as u64, now) {
            self.put_loss(*loss, now);
        } else {
            self.outage.owe(*loss);
        }
        self.settle(false, now);
    }

    /// Takes in the writes that are complete, without waiting for any; then syncs and indexes what
    /// is due. To be called whenever nothing is there to be appended, and after a burst: with
    /// [`Durability::Frame`] all frames of the burst share one sync here.
    pub fn poll(&mut self, now: Moment) {
        self.settle(true, now);
    }

    /// Whether writes are under way.
    pub(crate) fn is_writing(&self) -> bool {
        self.output.engine.in_flight() > 0
    }

    /// Waits for all writes and seals the segment: cut to what is used, synced, its index too. The
    /// next record begins a new one.
    pub fn seal(&mut self, now: Moment) {
        while self.output.engine.in_flight() > 0 {
            self.reap(Reap::Wait, now);
        }
        self.confirm(now);
        let Some(segment) = self.output.segment.take() else { return };
        self.output.number += 1;
        let path = segment.path().to_owned();
        match segment.seal(|error| self.counters.give_index_up(&error)) {
            Ok(()) => self.counters.durable += self.latest.undurable,
            Err(error) => self.note(describe("seal", &path, &error), now),
        }
        self.latest.undurable = 0;
    }

    /// Seals the archive. Losses not told yet are told if the disk allows it.
    pub fn close(&mut self, now: Moment) {
        if self.output.segment.is_none() && self.outage.owes() {
            self.outage.retry_now();
            self.open(now);
        }
        self.seal(now);
    }

    /// [`Archive::close`], and tells what the archive has done.
    #[must_use]
    pub fn finish(mut self, now: Moment) -> ArchiveCounters {
        self.close(now);
        self.counters()
    }

    /// What the archive has done so far.
    #[must_use]
    pub fn counters(&self) -> ArchiveCounters {
        ArchiveCounters { in_flight: self.queue.frames(), ..self.counters.clone() }
    }

    /// Monotonic times, in nanoseconds, at which frames were detected that have become durable
    /// since this was last called. With [`Durability::None`] there are none: frames become durable
    /// with the segment there.
    pub fn drain_durable(&mut self) -> impl Iterator<Item = u64> {
        self.latest.durable_detected_ns.drain(..)
    }

    /// Makes sure that there is a segment with room for the record, and room for one more write.
    fn ready(&mut self, record_bytes: u64, now: Moment) -> bool {
        if self.rotation_due(record_bytes, now) {
            self.seal(now);
        }
        (self.output.segment.is_some() || self.open(now)) && self.make_room(now)
    }

    fn rotation_due(&self, record_bytes: u64, now: Moment) -> bool {
        let Some(segment) = &self.output.segment else { return false };
        let age_ns = now.monotonic_ns.saturating_sub(segment.opened_ns());
        let limit_ns = self.options.segment_seconds.map(|s| s.saturating_mul(1_000_000_000));
        let full = segment.end() + record_bytes > self.options.segment_bytes;
        !segment.is_empty() && (full || limit_ns.is_some_and(|limit| age_ns >= limit))
    }

    /// Begins a new segment after one was sealed or failed, and tells the losses owed.
    fn open(&mut self, now: Moment) -> bool {
        if !self.outage.may_try(now) {
            return false;
        }
        let in_the_way = !self.output.leftover && self.dir.holds(self.output.number);
        if let Err(error) = self.begin_segment(now) {
            self.note(error.to_string(), now);
            // What was in the way is not ours to remove; the next try passes it by. Our own number
            // must be used again: nobody knows whether its name would survive a power cut.
            self.output.number += u32::from(in_the_way);
            self.output.leftover = !in_the_way && self.dir.holds(self.output.number);
            return false;
        }
        for loss in self.outage.take_owed() {
            self.put_loss(loss, now);
        }
        self.output.segment.is_some()
    }

    fn begin_segment(&mut self, now: Moment) -> Result<(), ArchiveError> {
        let number = self.output.number;
        if std::mem::take(&mut self.output.leftover) {
            SegmentFile::remove_leftover(&self.dir, number)?;
        }
        let header = SegmentHeader { number, session: self.session, created_ns: now.realtime_ns };
        let index = self.options.index;
        let segment = SegmentFile::create(&self.dir, &header, index, now.monotonic_ns)?;
        self.counters.direct = segment.is_direct();
        self.counters.segments = self.counters.segments.max(u64::from(number) + 1);
        self.output.segment = Some(segment);
        Ok(())
    }

    /// Waits until there is room for one more write; false if the segment was lost meanwhile.
    fn make_room(&mut self, now: Moment) -> bool {
        while self.output.engine.in_flight() >= self.options.depth {
            self.reap(Reap::Wait, now);
        }
        self.output.segment.is_some()
    }

    fn put_loss(&mut self, loss: Loss, now: Moment) {
        if self.output.segment.is_none() || !self.make_room(now) {
            return self.outage.owe(loss);
        }
        let slab = self.output.losses.take(LOSS_RECORD_BYTES);
        let Some(mut slab) = slab else { return self.outage.owe(loss) };
        let header = seal_loss(&mut slab, &loss, &self.session, now);
        let time = loss.first.unwrap_or_default();
        self.submit(Record::Loss(slab), &header, time, Some(loss));
    }

    /// Gives a record its place and begins to write it. There is a segment, and room in the engine.
    fn submit(
        &mut self,
        record: Record,
        header: &RecordHeader,
        time: Timestamp,
        loss: Option<Loss>,
    ) {
        let Output { engine, segment, .. } = &mut self.output;
        let segment = segment.as_mut().expect("whoever submits has made sure of a segment");
        let record_bytes = header.record_bytes() as u64;
        let offset = segment.place(record_bytes, self.options.segment_bytes);
        let head = record.bytes().first_chunk::<RECORD_HEADER_BYTES>();
        let body_crc = stored_body_crc(head.expect("a record is longer than its header"));
        let entry = IndexEntry::of(header, offset, time, body_crc);
        let ticket = self.queue.push(Pending::new(entry, loss, record_bytes));
        engine.submit(Write::new(ticket, record, Arc::clone(segment.file()), offset));
    }

    fn lose(&mut self, sequence: u64, time: Timestamp) {
        self.counters.frames_lost_io += 1;
        let (first, last) = (Some(time), Some(time));
        let reason = LossReason::Io;
        self.outage.owe(Loss {
            reason,
            refusal: None,
            sequence,
            count: 1,
            exact: true,
            first,
            last,
        });
    }

    fn reap(&mut self, how: Reap, now: Moment) {
        if let Some(error) = self.take_completions(how) {
            self.fail("write", &error, now);
        }
    }

    /// Takes in completions; the first failure among them, if there is one.
    fn take_completions(&mut self, how: Reap) -> Option<io::Error> {
        let Output { engine, completions, .. } = &mut self.output;
        let mut failure = engine.reap(how, completions).err();
        if failure.is_some() {
            *engine = Engine::plain();
            self.counters.engine = engine.name();
        }
        for Completion { ticket, result } in completions.drain(..) {
            match result {
                Ok(()) => self.queue.complete(ticket),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure
    }

    fn settle(&mut self, burst_over: bool, now: Moment) {
        self.reap(if burst_over { Reap::Begin } else { Reap::Seen }, now);
        let since_ns = now.monotonic_ns.saturating_sub(self.latest.sync_ns);
        let due = match self.options.durability {
            Durability::None => true,
            Durability::Interval(ms) => since_ns >= ms.saturating_mul(1_000_000),
            Durability::Frame => burst_over,
        };
        if due || self.queue.whole() >= UNSYNCED_MAX {
            self.confirm(now);
        }
    }

    fn confirm(&mut self, now: Moment) {
        if let Err(error) = self.try_confirm(now) {
            self.fail("sync", &error, now);
        }
    }

    /// Makes all records that are whole part of the archive: synced, indexed, counted.
    fn try_confirm(&mut self, now: Moment) -> io::Result<()> {
        let Some(segment) = &mut self.output.segment else { return Ok(()) };
        if self.queue.whole() == 0 {
            return Ok(());
        }
        let lazy = self.options.durability == Durability::None;
        let sync = !lazy || segment.unnamed() + self.queue.whole() >= UNSYNCED_MAX;
        let counters = &mut self.counters;
        let index_error = |error| counters.give_index_up(&error);
        segment.confirm(self.queue.whole_entries(), sync, index_error)?;
        self.latest.sync_ns = now.monotonic_ns;
        if sync {
            counters.durable += std::mem::take(&mut self.latest.undurable);
        }
        for record in self.queue.take_whole() {
            segment.confirmed_to(record.entry.offset + record.record_bytes);
            counters.bytes_written += record.record_bytes;
            if !record.is_frame() {
                counters.losses_written += 1;
                continue;
            }
            counters.frames_written += 1;
            if !sync {
                self.latest.undurable += 1;
                continue;
            }
            counters.durable += 1;
            if !lazy && self.latest.durable_detected_ns.len() < DURABLE_KEPT_MAX {
                self.latest.durable_detected_ns.push(record.entry.monotonic_ns);
            }
        }
        self.outage.end();
        Ok(())
    }

    /// Ends the segment behind its last whole record; what lies behind that is lost. What could not
    /// be synced is counted as lost, too, though it stays for recovery to find.
    fn fail(&mut self, op: &str, error: &io::Error, now: Moment) {
        while self.output.engine.in_flight() > 0 {
            self.counters.io_errors += u64::from(self.take_completions(Reap::Wait).is_some());
        }
        // After a failed sync nobody knows what is on the disk, and a second one would not tell.
        let is_saved = op != "sync" && self.save_whole(now);
        if let (false, Some(segment)) = (is_saved, &mut self.output.segment) {
            segment.forget_names();
            self.latest.undurable = 0;
        }
        let path = self.output.segment.as_ref().map_or(self.dir.path(), SegmentFile::path);
        self.note(describe(op, path, error), now);
        let whole_bytes = self.queue.whole_bytes().sum();
        for record in self.queue.take_all() {
            match record.loss {
                None => self.lose(record.entry.sequence, record.entry.time),
                Some(loss) => self.outage.owe(loss),
            }
        }
        self.abandon_segment(whole_bytes);
    }

    fn save_whole(&mut self, now: Moment) -> bool {
        let Some(segment) = &self.output.segment else { return true };
        let released = segment.release(self.queue.whole_bytes());
        let saved = released.and_then(|()| self.try_confirm(now)).is_ok();
        self.counters.io_errors += u64::from(!saved);
        saved
    }

    fn abandon_segment(&mut self, whole_bytes: u64) {
        let Some(segment) = self.output.segment.take() else { return };
        let index_error = |error| self.counters.give_index_up(&error);
        let (stays, result) =
            segment.abandon(&self.dir, self.output.number, whole_bytes, index_error);
        self.output.number += u32::from(stays);
        self.output.leftover = !stays && result.is_err();
        match result {
            Ok(()) => self.counters.durable += self.latest.undurable,
            Err(error) => {
                log::debug!("the failed segment cannot be ended: {error}");
                self.counters.io_errors += 1;
            }
        }
        self.latest.undurable = 0;
    }

    fn note(&mut self, what: String, now: Moment) {
        self.outage.begin(&what, now);
        self.counters.io_errors += 1;
        self.counters.last_error = Some(what);
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod stall;
#[cfg(test)]
mod tests;
