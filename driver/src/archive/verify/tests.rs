use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::super::engine::Engine;
use super::super::options::{ArchiveOptions, Durability, EngineChoice, Session};
use super::super::recover::recover;
use super::super::scripted::{SESSION, Script, Scripted, frame};
use super::super::writer::Archive;
use super::*;
use crate::clock::Moment;
use crate::loss::{Loss, LossReason};
use crate::slab::SlabPool;

const NOW: Moment = Moment { monotonic_ns: 1, realtime_ns: 2 };

struct Bench {
    dir: tempfile::TempDir,
    pool: SlabPool,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        Bench { dir, pool: SlabPool::new(1 << 20) }
    }

    fn archive(&self, engine: Engine, index: bool) -> Archive {
        let session = Session { session: SESSION, camera: 1, ..Session::default() };
        let options = ArchiveOptions {
            durability: Durability::Frame,
            segment_bytes: 65_536,
            index,
            ..ArchiveOptions::default()
        };
        Archive::with_engine(self.dir.path(), session, options, engine, NOW).unwrap()
    }

    /// A sealed archive of one record of 4096 bytes a frame, fifteen to a segment.
    fn sealed(index: bool, sequences: impl IntoIterator<Item = u64>) -> Bench {
        let bench = Bench::new();
        let mut archive = bench.archive(Engine::new(EngineChoice::Pwrite, 2).unwrap(), index);
        for sequence in sequences {
            archive.append(frame(&bench.pool, sequence, 100), NOW);
        }
        assert_eq!(archive.finish(NOW).frames_lost_io, 0);
        bench
    }

    fn segment(&self, number: u32) -> PathBuf {
        self.dir.path().join(format!("seg-{number:06}.cbs"))
    }

    fn change(&self, number: u32, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.segment(number)).unwrap();
        change(&mut bytes);
        fs::write(self.segment(number), bytes).unwrap();
    }

    fn verify(&self) -> VerifyReport {
        verify(self.dir.path(), |_, _| {}).unwrap()
    }
}

/// The last record of a segment with fifteen.
const LAST: usize = 15 * 4096;

#[test]
fn a_damaged_end_is_a_problem_in_all_but_the_last_segment() {
    for index in [false, true] {
        let bench = Bench::sealed(index, 0..45);
        assert_eq!((bench.verify().segments, bench.verify().is_clean()), (3, true));
        bench.change(1, |bytes| bytes[LAST + 200] ^= 1);
        let report = bench.verify();
        assert_eq!(report.problems.problems[0].offset, LAST as u64, "{report:?}");
        assert_eq!((report.torn, report.skipped, report.unaccounted), (None, 0, 1));
        // With an index it was named; without one the segment was sealed before the next was begun.
        let recovered = recover(bench.dir.path(), false, |_, _| {}).unwrap();
        assert_eq!((recovered.bytes_cut, recovered.damaged.problems_total > 0), (0, true));
    }
}

#[test]
fn a_torn_record_at_the_very_end_is_told_whether_or_not_it_was_finished_once() {
    let bench = Bench::sealed(false, 0..30);
    bench.change(1, |bytes| bytes[LAST + 200] ^= 1);
    let report = bench.verify();
    assert!(report.is_clean(), "{report:?}");
    let torn = report.torn.unwrap();
    assert_eq!((torn.segment, torn.sequence, torn.records), (1, Some(29), 1));
    bench.change(1, |bytes| bytes[LAST..].fill(0));
    assert_eq!((bench.verify().torn, bench.verify().tail_bytes), (None, 4096));
}

#[test]
fn a_missing_segment_is_a_problem_the_first_one_too() {
    for (missing, what, unaccounted) in
        [(0, "segments 0 to 0 are missing", 0), (1, "segments 1 to 1 are missing", 15)]
    {
        let bench = Bench::sealed(true, 0..45);
        fs::remove_file(bench.segment(missing)).unwrap();
        fs::remove_file(bench.segment(missing).with_extension("idx")).unwrap();
        let report = bench.verify();
        assert_eq!(report.problems.problems_total, 1, "{report:?}");
        assert_eq!(report.problems.problems[0].what, what);
        assert_eq!((report.skipped, report.unaccounted), (0, unaccounted));
    }
}

#[test]
fn numbers_are_called_skipped_only_where_nothing_else_can_have_taken_them() {
    let bench = Bench::sealed(true, (0..30).filter(|number| number % 10 != 3));
    assert_eq!((bench.verify().skipped, bench.verify().unaccounted), (3, 0));

    let holed = Bench::sealed(false, 0..10);
    holed.change(0, |bytes| bytes[3 * 4096..5 * 4096].fill(0));
    let report = holed.verify();
    assert_eq!((report.skipped, report.unaccounted, report.hole_bytes), (0, 2, 8192));

    let cut = Bench::sealed(false, 0..30);
    cut.change(0, |bytes| bytes.truncate(10 * 4096));
    assert_eq!((cut.verify().skipped, cut.verify().unaccounted), (0, 6));
}

#[test]
fn an_archive_is_verified_while_it_is_written() {
    let bench = Bench::new();
    let mut archive = bench.archive(Engine::new(EngineChoice::Pwrite, 2).unwrap(), true);
    archive.append(frame(&bench.pool, 0, 100), NOW);
    let mut sequence = 1;
    // At every step of the walk frames are added, so that segments are sealed under its feet.
    for _ in 0..3 {
        let report = verify(bench.dir.path(), |_, _| {
            for _ in 0..3 {
                archive.append(frame(&bench.pool, sequence, 100), NOW);
                sequence += 1;
            }
            archive.poll(NOW);
        });
        let report = report.unwrap();
        assert!(report.live && report.is_clean() && report.skipped == 0, "{report:?}");
    }
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for sequence in sequence..sequence + 300 {
                archive.append(frame(&bench.pool, sequence, 100), NOW);
                archive.poll(NOW);
            }
        });
        while !writer.is_finished() {
            let report = bench.verify();
            assert!(report.live && report.is_clean(), "{report:?}");
        }
    });
    assert_eq!(archive.finish(NOW).frames_lost_io, 0);
    let report = bench.verify();
    assert!(!report.live && report.is_clean(), "{report:?}");
    assert_eq!((report.frames, report.unindexed), (sequence + 300, 0));
}

#[test]
fn a_segment_that_is_sealed_under_the_feet_of_the_walk_ends_there() {
    let bench = Bench::new();
    let mut archive = bench.archive(Engine::new(EngineChoice::Pwrite, 2).unwrap(), true);
    archive.append(frame(&bench.pool, 0, 100), NOW);
    archive.poll(NOW);
    let reserved = fs::metadata(bench.segment(0)).unwrap().len();
    let report = verify(bench.dir.path(), |_, _| archive.seal(NOW)).unwrap();
    assert!(report.is_clean() && reserved > 8192, "{reserved}: {report:?}");
    assert_eq!((report.frames, report.bytes, report.tail_bytes), (1, 8192, 0));
}

#[test]
fn a_record_that_is_being_written_is_no_damage_while_it_is() {
    let bench = Bench::new();
    let script = Arc::new(Mutex::new(Script { hold: true, ..Script::default() }));
    let mut archive = bench.archive(Engine::Scripted(Scripted::new(&script)), true);
    archive.append(frame(&bench.pool, 0, 100), NOW);
    archive.append(frame(&bench.pool, 1, 100), NOW);
    script.lock().unwrap().release.push_back(1);
    archive.poll(NOW);
    // Half of record 0 is there, all of record 1.
    bench.change(0, |bytes| bytes[4096..4196].fill(0xA5));
    let report = bench.verify();
    assert!(report.live && report.is_clean(), "{report:?}");
    assert_eq!((report.frames, report.unindexed, report.hole_bytes), (1, 1, 4096));
}

#[test]
fn an_index_that_grows_later_names_only_what_it_named_before() {
    let bench = Bench::sealed(true, 0..3);
    let path = bench.segment(0).with_extension("idx");
    let index = fs::read(&path).unwrap();
    fs::write(&path, &index[..70]).unwrap();
    let mut witness = Witness::open(&path).unwrap();
    fs::write(&path, &index).unwrap();
    assert_eq!(witness.named_end(), 8192);
    assert_eq!(witness.take_below(u64::MAX).len(), 1);
    assert_eq!(witness.take_rest().len(), 0);
}

/// Found by fuzzing: any number may stand in a loss record with a right checksum.
#[test]
fn losses_that_no_counter_holds_are_counted_as_the_largest_number() {
    let bench = Bench::new();
    let mut archive = bench.archive(Engine::new(EngineChoice::Pwrite, 2).unwrap(), false);
    for sequence in [0, 1] {
        let (reason, exact) = (LossReason::Overrun, true);
        let count = u64::MAX;
        let loss = Loss { reason, refusal: None, sequence, count, exact, first: None, last: None };
        archive.append_loss(&loss, NOW);
    }
    let _ = archive.finish(NOW);
    assert_eq!(bench.verify().frames_lost, u64::MAX);
}

/// Found by fuzzing: the last number that a name can tell has none behind it.
#[test]
fn a_segment_may_have_the_last_number_that_there_is() {
    let bench = Bench::sealed(true, [0]);
    let name = |ending: &str| bench.dir.path().join(format!("seg-{}.{ending}", u32::MAX));
    fs::rename(bench.segment(0), name("cbs")).unwrap();
    fs::rename(bench.segment(0).with_extension("idx"), name("idx")).unwrap();
    let problems = bench.verify().problems.problems;
    assert_eq!(problems[0].what, "segments 0 to 4294967294 are missing");
}
