//! The real archive as a consumer, on a disk that fails now and then.

use std::path::Path;

use circbuf_driver::archive::{
    Archive, ArchiveCounters, ArchiveOptions, ArchiveReader, Content, Durability, EngineChoice,
    Found, Session, VerifyReport, recover, verify,
};
use circbuf_driver::clock::Moment;
use circbuf_driver::dispatch::{Inlet, Outlet};
use circbuf_driver::loss::LossReason;
use circbuf_driver::record::PAYLOAD_OFFSET;
use circbuf_driver::stats::Account;
use circbuf_tests::Random;

use crate::consumer::outlet;
use crate::disk::Disk;
use crate::told::Told;
use crate::truths::Truths;

/// The archive and whoever feeds it.
pub(crate) struct Archivist {
    archive: Archive,
    disk: Disk,
    pub(crate) queue: Inlet,
    pub(crate) told: Told,
    appended: u64,
    /// What stands in the books.
    entered: ArchiveCounters,
}

/// What is in an archive.
#[derive(Debug, Default)]
struct Kept {
    frames: u64,
    lost_io: u64,
    lost_before: u64,
}

impl Archivist {
    pub(crate) fn of(random: &mut Random, now: Moment) -> (Outlet, Archivist) {
        let disk = Disk::new();
        let (outlet, queue, policy) = outlet(random);
        let options = ArchiveOptions {
            segment_bytes: 8192 + random.below(80_000),
            segment_seconds: random.once_in(2).then_some(2),
            durability: random.one_of(&[
                Durability::None,
                Durability::Interval(300),
                Durability::Frame,
            ]),
            // One after the other, so that a seed does the same every time.
            engine: EngineChoice::Pwrite,
            ..ArchiveOptions::default()
        };
        let archive = Archive::create(disk.dir(), Session::default(), options, now).unwrap();
        let told = Told::new(policy);
        let entered = ArchiveCounters::default();
        (outlet, Archivist { archive, disk, queue, told, appended: 0, entered })
    }

    pub(crate) fn act(&mut self, random: &mut Random, now: Moment, truths: &Truths<'_>) {
        match random.below(12) {
            0..8 => {
                let burst = 1 + random.below(4);
                (0..burst).for_each(|_| self.append(now, truths));
            }
            8 => self.disk.change(random),
            9 if random.once_in(8) => self.look(),
            10 if random.once_in(6) => {
                let next = format!("seg-{:06}.cbs.new", self.archive.counters().segments);
                self.disk.trap(&next);
            }
            _ => self.poll(now),
        }
    }

    pub(crate) fn poll(&mut self, now: Moment) {
        let _limited = self.disk.limit();
        self.archive.poll(now);
    }

    pub(crate) fn append(&mut self, now: Moment, truths: &Truths<'_>) {
        let Ok(delivery) = self.queue.try_recv() else { return };
        truths.check(&delivery.frame);
        self.told.note(delivery.frame.sequence(), &delivery.lost);
        let _limited = self.disk.limit();
        delivery.lost.iter().for_each(|loss| self.archive.append_loss(loss, now));
        self.archive.append(delivery.frame, now);
        self.appended += 1;
    }

    /// Enters in the books what the archive has done.
    pub(crate) fn enter(&mut self, account: &mut Account) {
        let counters = self.archive.counters();
        let done = counters.frames_written + counters.frames_lost_io + counters.in_flight;
        assert_eq!(done, self.appended, "the archive's own books: {counters:?}");
        assert!(counters.durable <= counters.frames_written, "{counters:?}");
        let lost = counters.frames_lost_io - self.entered.frames_lost_io;
        account.deliver(counters.frames_written - self.entered.frames_written);
        account.io += lost;
        account.in_flight -= lost;
        self.entered = counters;
    }

    /// Frames in the queue, or appended and neither written nor lost.
    pub(crate) fn holds(&self) -> u64 {
        self.queue.len() as u64 + self.entered.in_flight
    }

    /// Reads the archive while it is written.
    fn look(&self) {
        // While the disk fails there may be no segment at all.
        let Ok(report) = verify(self.disk.dir(), |_, _| {}) else { return };
        check_clean(&report);
        let counters = self.archive.counters();
        assert!(report.frames >= counters.frames_written, "{report:?} {counters:?}");
    }

    /// Closes the archive, or dies with it and recovers it, and reads it.
    pub(crate) fn finish(mut self, dies: bool, now: Moment, truths: &Truths<'_>) -> Finished {
        self.disk.mend();
        let told = self.told.lost();
        if dies {
            let counters = self.archive.counters();
            drop(self.archive);
            let kept = match recover(self.disk.dir(), false, |_, _| {}) {
                Ok(_) => read(self.disk.dir(), truths),
                Err(_) => Kept::default(),
            };
            assert!(kept.frames >= counters.frames_written, "{kept:?} {counters:?}");
            return Finished { told: self.told, counters };
        }
        let counters = self.archive.finish(now);
        assert_eq!(counters.frames_written + counters.frames_lost_io, self.appended);
        assert_eq!((counters.in_flight, counters.durable), (0, counters.frames_written));
        let kept = read(self.disk.dir(), truths);
        assert_eq!(kept.frames, counters.frames_written, "what was reported is there");
        assert_eq!((kept.lost_io, kept.lost_before), (counters.frames_lost_io, told));
        Finished { told: self.told, counters }
    }
}

/// What is left of an archivist.
pub(crate) struct Finished {
    pub(crate) told: Told,
    pub(crate) counters: ArchiveCounters,
}

fn check_clean(report: &VerifyReport) {
    assert!(report.problems.problems.is_empty() && report.torn.is_none(), "{report:?}");
}

/// Reads a whole archive and holds every frame against the truth.
fn read(dir: &Path, truths: &Truths<'_>) -> Kept {
    let report = verify(dir, |_, _| {}).unwrap();
    check_clean(&report);
    assert_eq!((report.hole_bytes, report.tail_bytes), (0, 0), "{report:?}");
    let reader = ArchiveReader::open(dir).unwrap();
    let (mut kept, mut record, mut last) = (Kept::default(), Vec::new(), None);
    for found in reader.scan() {
        let Found::Record(entry) = found.unwrap() else { panic!("a clean archive is whole") };
        match entry.content {
            Content::Loss(loss) if loss.reason == LossReason::Io => kept.lost_io += loss.count,
            Content::Loss(loss) => kept.lost_before += loss.count,
            Content::Frame { time, .. } => {
                reader.read_record(&entry, &mut record).unwrap();
                let payload = &record[PAYLOAD_OFFSET..][..entry.header.length as usize];
                truths.check_parts(&entry.header, time, payload);
                assert!(last < Some(entry.header.sequence), "order in the archive");
                last = Some(entry.header.sequence);
                kept.frames += 1;
            }
        }
    }
    kept
}
