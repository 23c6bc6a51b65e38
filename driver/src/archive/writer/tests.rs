use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use tempfile::TempDir;

use super::super::index::{INDEX_ENTRY_BYTES, IndexEntry};
use super::super::options::EngineChoice;
use super::super::reader::ArchiveReader;
use super::super::recover::recover;
use super::super::scan::{Content, Found};
use super::super::scripted::{SESSION, Script, Scripted, frame};
use super::super::verify::verify;
use super::*;

/// An archive under test, with the clock that the test is.
struct Bench {
    dir: TempDir,
    pool: SlabPool,
    script: Arc<Mutex<Script>>,
    now: Moment,
}

impl Bench {
    fn new() -> Bench {
        let now = Moment { monotonic_ns: 5_000, realtime_ns: 7_000 };
        let (dir, pool) = (tempfile::tempdir().unwrap(), SlabPool::new(64 << 20));
        Bench { dir, pool, script: Arc::default(), now }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("archive")
    }

    fn create(&self, options: ArchiveOptions) -> Archive {
        Archive::create(&self.path(), session(), options, self.now).unwrap()
    }

    fn scripted(&self, options: ArchiveOptions) -> Archive {
        let engine = Engine::Scripted(Scripted::new(&self.script));
        Archive::with_engine(&self.path(), session(), options, engine, self.now).unwrap()
    }

    fn append(&self, archive: &mut Archive, sequences: std::ops::Range<u64>) {
        for sequence in sequences {
            archive.append(frame(&self.pool, sequence, 5_000 + 137 * sequence as u32), self.now);
        }
    }

    fn file(&self, name: &str) -> Vec<u8> {
        fs::read(self.path().join(name)).unwrap()
    }

    /// Sequences that the index names.
    fn indexed(&self, number: u32) -> Vec<u64> {
        let bytes = self.file(&format!("seg-{number:06}.idx"));
        let entries = bytes.as_chunks::<INDEX_ENTRY_BYTES>().0.iter();
        entries.map(|entry| IndexEntry::parse(entry).unwrap().sequence).collect()
    }

    /// Sequences of the frames, and the losses, in the order in which they stand.
    fn content(&self) -> (Vec<u64>, Vec<Loss>) {
        let (mut frames, mut losses) = (Vec::new(), Vec::new());
        let archive = ArchiveReader::open(&self.path()).unwrap();
        for found in archive.scan() {
            match found.unwrap() {
                Found::Record(entry) => match entry.content {
                    Content::Frame { .. } => frames.push(entry.header.sequence),
                    Content::Loss(loss) => losses.push(loss),
                },
                other => panic!("{other:?}"),
            }
        }
        (frames, losses)
    }
}

fn session() -> Session {
    Session { session: SESSION, camera: 1, ..Session::default() }
}

fn options(durability: Durability) -> ArchiveOptions {
    let (segment_bytes, depth) = (1 << 20, 4);
    ArchiveOptions { segment_bytes, durability, depth, ..ArchiveOptions::default() }
}

fn overrun(sequence: u64, count: u64) -> Loss {
    let (reason, exact) = (LossReason::Overrun, true);
    Loss { reason, refusal: None, sequence, count, exact, first: None, last: None }
}

#[test]
fn both_engines_write_the_same_bytes_and_what_was_appended_is_read_back() {
    let mut files = Vec::new();
    for engine in [EngineChoice::Pwrite, EngineChoice::Auto] {
        let bench = Bench::new();
        let mut archive = bench.create(ArchiveOptions { engine, ..options(Durability::Frame) });
        bench.append(&mut archive, 0..20);
        archive.append_loss(&overrun(20, 5), bench.now);
        bench.append(&mut archive, 25..40);
        let counters = archive.finish(bench.now);
        assert_eq!(
            (counters.frames_written, counters.durable, counters.losses_written),
            (35, 35, 1)
        );
        assert_eq!((counters.in_flight, counters.frames_lost_io, counters.io_errors), (0, 0, 0));
        let (frames, losses) = bench.content();
        assert_eq!(frames, (0..20).chain(25..40).collect::<Vec<_>>());
        assert_eq!(losses, [overrun(20, 5)]);
        let segment = bench.file("seg-000000.cbs");
        assert_eq!(segment.len() as u64, 4096 + counters.bytes_written);
        assert_eq!(segment[4096..][..8192], frame(&bench.pool, 0, 5_000).record()[..8192]);
        let report = verify(&bench.path(), |_, _| {}).unwrap();
        assert!(report.is_clean(), "{report:?}");
        assert_eq!((report.frames, report.losses, report.frames_lost), (35, 1, 5));
        assert_eq!((report.skipped, report.unindexed, report.tail_bytes), (0, 0, 0));
        files.push((segment, bench.file("seg-000000.idx")));
    }
    assert_eq!(files[0], files[1]);
}

#[test]
fn a_slab_is_not_free_before_its_write_is_complete() {
    // The C++ program freed the slab when the write was submitted; the next frame was copied over
    // bytes that the kernel was still reading, and up to 43 % of the archive was wrong.
    let bench = Bench::new();
    let mut archive = bench.scripted(options(Durability::None));
    bench.script.lock().unwrap().hold = true;
    bench.append(&mut archive, 0..3);
    assert_eq!((bench.pool.taken(), archive.counters().in_flight), (3, 3));
    bench.script.lock().unwrap().release.push_back(0);
    archive.poll(bench.now);
    assert_eq!((bench.pool.taken(), archive.counters().frames_written), (2, 1));
    drop(archive);
}

#[test]
fn the_index_names_only_what_is_complete_together_with_all_before_it() {
    let bench = Bench::new();
    let mut archive = bench.scripted(options(Durability::Frame));
    bench.script.lock().unwrap().hold = true;
    bench.append(&mut archive, 0..4);
    for (released, indexed) in [(2, 0), (1, 0), (0, 3), (3, 4)] {
        bench.script.lock().unwrap().release.push_back(released);
        archive.poll(bench.now);
        assert_eq!(bench.indexed(0), (0..indexed).collect::<Vec<_>>());
        assert_eq!(archive.counters().durable, indexed);
    }
    assert_eq!(archive.drain_durable().collect::<Vec<_>>(), [10, 11, 12, 13]);
}

#[test]
fn frames_of_a_burst_are_durable_together_with_the_next_poll() {
    let bench = Bench::new();
    let engine = EngineChoice::Pwrite;
    let mut archive = bench.create(ArchiveOptions { engine, ..options(Durability::Frame) });
    bench.append(&mut archive, 0..3);
    assert_eq!((archive.counters().durable, archive.counters().in_flight), (0, 3));
    archive.poll(bench.now);
    assert_eq!((archive.counters().durable, bench.indexed(0)), (3, vec![0, 1, 2]));
}

#[test]
fn with_an_interval_nothing_counts_before_it_is_synced() {
    let mut bench = Bench::new();
    let mut archive = bench.create(options(Durability::Interval(100)));
    bench.append(&mut archive, 0..3);
    assert_eq!((bench.indexed(0), archive.counters().durable), (vec![], 0));
    assert_eq!((archive.counters().in_flight, archive.counters().frames_written), (3, 0));
    bench.now.monotonic_ns += 100_000_000;
    // io_uring may need a moment for its completions: seal waits for them.
    archive.seal(bench.now);
    assert_eq!((bench.indexed(0), archive.counters().durable), (vec![0, 1, 2], 3));
}

#[test]
fn without_durability_frames_are_indexed_and_durable_when_the_segment_is_sealed() {
    let bench = Bench::new();
    let engine = EngineChoice::Pwrite;
    let mut archive = bench.create(ArchiveOptions { engine, ..options(Durability::None) });
    bench.append(&mut archive, 0..3);
    let counters = archive.counters();
    assert_eq!((counters.frames_written, counters.durable, bench.indexed(0)), (3, 0, vec![]));
    assert_eq!((archive.finish(bench.now).durable, bench.indexed(0)), (3, vec![0, 1, 2]));
}

#[test]
fn without_durability_names_do_not_pile_up_in_memory() {
    let bench = Bench::new();
    let engine = EngineChoice::Pwrite;
    let segment_bytes = 1 << 30;
    let lazy = ArchiveOptions { engine, segment_bytes, ..options(Durability::None) };
    let mut archive = bench.create(lazy);
    for sequence in 0..5_000 {
        archive.append(frame(&bench.pool, sequence, 100), bench.now);
    }
    let counters = archive.counters();
    assert_eq!((counters.frames_written, counters.durable), (5_000, 4_096));
    assert_eq!(bench.indexed(0), (0..4_096).collect::<Vec<_>>());
    let finished = archive.finish(bench.now);
    assert_eq!((finished.durable, bench.indexed(0).len()), (5_000, 5_000));
}

#[test]
fn an_io_uring_that_breaks_costs_what_is_in_flight_and_the_archive_goes_on() {
    let mut bench = Bench::new();
    let uring = ArchiveOptions { engine: EngineChoice::Uring, ..options(Durability::Frame) };
    let created = Archive::create(&bench.path(), session(), uring, bench.now);
    // Where containers forbid io_uring, there is nothing to be tested.
    let Ok(mut archive) = created else { return };
    bench.append(&mut archive, 0..3);
    while archive.counters().durable < 3 {
        archive.poll(bench.now);
    }
    archive.output.engine.break_down();
    bench.append(&mut archive, 3..5);
    archive.poll(bench.now);
    let counters = archive.counters();
    assert_eq!((counters.durable, counters.frames_lost_io, counters.in_flight), (3, 2, 0));
    assert_eq!(counters.engine, "pwrite");
    bench.now.monotonic_ns += 1_000_000_000;
    bench.append(&mut archive, 5..8);
    let counters = archive.finish(bench.now);
    assert_eq!((counters.frames_written, counters.durable, counters.segments), (6, 6, 2));
    let (frames, losses) = bench.content();
    assert_eq!(frames, [0, 1, 2, 5, 6, 7]);
    assert_eq!((losses[0].reason, losses[0].sequence, losses[0].count), (LossReason::Io, 3, 2));
    let report = verify(&bench.path(), |_, _| {}).unwrap();
    assert!(report.is_clean() && report.skipped + report.tail_bytes == 0, "{report:?}");
}

#[test]
fn segments_rotate_before_they_exceed_their_size_and_when_they_are_old() {
    let mut bench = Bench::new();
    let mut archive = bench.create(ArchiveOptions {
        segment_bytes: 20_480,
        segment_seconds: Some(10),
        ..options(Durability::Frame)
    });
    // 8192 bytes each: two fit; one of 53248 gets a segment of its own.
    bench.append(&mut archive, 0..5);
    archive.append(frame(&bench.pool, 5, 50_000), bench.now);
    bench.append(&mut archive, 6..7);
    bench.now.monotonic_ns += 10_000_000_000;
    bench.append(&mut archive, 7..8);
    let counters = archive.finish(bench.now);
    let indexed: Vec<_> = (0..6).map(|number| bench.indexed(number)).collect();
    assert_eq!(indexed, [vec![0, 1], vec![2, 3], vec![4], vec![5], vec![6], vec![7]]);
    assert_eq!((counters.segments, counters.durable), (6, 8));
    assert_eq!(bench.file("seg-000000.cbs").len(), 20_480);
    assert_eq!(bench.file("seg-000003.cbs").len(), 4096 + 53_248);
    assert!(verify(&bench.path(), |_, _| {}).unwrap().is_clean());
}

#[test]
fn a_disk_that_fails_costs_the_frames_from_there_on_and_the_gap_is_told() {
    let mut bench = Bench::new();
    let mut archive = bench.scripted(options(Durability::Frame));
    {
        let mut script = bench.script.lock().unwrap();
        (script.hold, script.fail) = (true, vec![(4, libc::ENOSPC)]);
    }
    bench.append(&mut archive, 0..4);
    archive.append_loss(&overrun(4, 2), bench.now);
    bench.append(&mut archive, 6..8);
    archive.poll(bench.now);
    bench.script.lock().unwrap().hold = false;
    archive.poll(bench.now);
    // The loss record at ticket 4 failed: frames 0 to 3 stay, it and 6 and 7 do not.
    let counters = archive.counters();
    assert_eq!((counters.frames_written, counters.frames_lost_io, counters.in_flight), (4, 2, 0));
    assert!(counters.last_error.unwrap().contains("No space left"));
    assert_eq!(bench.indexed(0), [0, 1, 2, 3]);
    assert_eq!(bench.pool.taken(), 0);
    bench.now.monotonic_ns += 999_999_999;
    bench.append(&mut archive, 8..10);
    assert_eq!(archive.counters().frames_lost_io, 4);
    bench.now.monotonic_ns += 1;
    bench.append(&mut archive, 10..12);
    let counters = archive.finish(bench.now);
    assert_eq!((counters.frames_written, counters.frames_lost_io), (6, 4));
    assert_eq!((counters.losses_written, counters.segments), (2, 2));
    let (frames, losses) = bench.content();
    assert_eq!(frames, [0, 1, 2, 3, 10, 11]);
    assert_eq!(losses[0], overrun(4, 2));
    let io = losses[1];
    assert_eq!((io.reason, io.sequence, io.count, io.exact), (LossReason::Io, 6, 4, true));
    assert_eq!(io.first.unwrap().sec + 3, io.last.unwrap().sec);
    let report = verify(&bench.path(), |_, _| {}).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.frames_lost, report.skipped, report.tail_bytes), (6, 0, 0));
}

#[test]
fn records_that_could_not_be_synced_are_counted_as_lost_and_left_for_recovery() {
    for confirmed in [0, 2] {
        let mut bench = Bench::new();
        let mut archive = bench.scripted(options(Durability::Frame));
        bench.append(&mut archive, 0..confirmed);
        archive.poll(bench.now);
        bench.script.lock().unwrap().hold = true;
        bench.append(&mut archive, confirmed..4);
        archive.output.segment.as_mut().unwrap().fail_syncs();
        bench.script.lock().unwrap().hold = false;
        archive.poll(bench.now);
        let counters = archive.counters();
        assert_eq!((counters.frames_written, counters.frames_lost_io), (confirmed, 4 - confirmed));
        assert!(counters.last_error.unwrap().contains("cannot sync"));
        bench.now.monotonic_ns += 2_000_000_000;
        bench.append(&mut archive, 4..6);
        let counters = archive.finish(bench.now);
        assert_eq!((counters.frames_written, counters.segments), (confirmed + 2, 2));
        let report = verify(&bench.path(), |_, _| {}).unwrap();
        assert!(report.is_clean(), "{report:?}");
        assert_eq!((report.frames, report.unindexed), (6, 4 - confirmed));
        assert_eq!(recover(&bench.path(), false, |_, _| {}).unwrap().frames, 6);
        assert_eq!(bench.indexed(0), [0, 1, 2, 3]);
        assert_eq!(bench.content().0, [0, 1, 2, 3, 4, 5]);
    }
}

#[test]
fn a_full_disk_does_not_collect_empty_segments() {
    let mut bench = Bench::new();
    let mut archive = bench.scripted(options(Durability::Frame));
    let failures = (0..100).map(|ticket| (ticket, libc::EIO)).collect();
    bench.script.lock().unwrap().fail = failures;
    for sequence in 0..8 {
        bench.append(&mut archive, sequence..sequence + 1);
        bench.now.monotonic_ns += 2_000_000_000;
    }
    assert_eq!(fs::read_dir(bench.path()).unwrap().count(), 0);
    bench.script.lock().unwrap().fail.clear();
    let counters = archive.finish(bench.now);
    assert_eq!((counters.frames_written, counters.frames_lost_io, counters.segments), (0, 8, 1));
    let (frames, losses) = bench.content();
    assert_eq!((frames.len(), losses.len(), losses[0].count), (0, 1, 8));
}

#[test]
fn a_file_in_the_way_of_the_next_segment_is_passed_by_and_left_alone() {
    let mut bench = Bench::new();
    let mut archive = bench.create(options(Durability::Frame));
    bench.append(&mut archive, 0..1);
    archive.seal(bench.now);
    fs::write(bench.path().join("seg-000001.cbs"), "not ours").unwrap();
    bench.append(&mut archive, 1..2);
    bench.now.monotonic_ns += 1_000_000_000;
    bench.append(&mut archive, 2..3);
    let counters = archive.finish(bench.now);
    assert_eq!((counters.frames_written, counters.frames_lost_io), (2, 1));
    assert_eq!(bench.file("seg-000001.cbs"), b"not ours");
    assert_eq!(bench.indexed(2), [1, 2]);
}

#[test]
fn a_directory_that_vanishes_is_survived_until_it_is_back() {
    let mut bench = Bench::new();
    let mut archive = bench.create(options(Durability::Frame));
    bench.append(&mut archive, 0..2);
    archive.seal(bench.now);
    let away = bench.dir.path().join("away");
    fs::rename(bench.path(), &away).unwrap();
    bench.append(&mut archive, 2..5);
    assert_eq!((archive.counters().frames_lost_io, archive.counters().io_errors), (3, 1));
    fs::rename(&away, bench.path()).unwrap();
    bench.now.monotonic_ns += 1_000_000_000;
    bench.append(&mut archive, 5..6);
    assert_eq!(archive.finish(bench.now).frames_written, 3);
    assert_eq!(bench.content().0, [0, 1, 5]);
}

#[test]
fn a_directory_that_holds_an_archive_or_is_none_is_refused_and_left_alone() {
    let bench = Bench::new();
    let create = |path: &Path| {
        let now = Moment::default();
        Archive::create(path, session(), options(Durability::None), now).map(drop)
    };
    fs::create_dir(bench.path()).unwrap();
    fs::write(bench.path().join("notes.txt"), "mine").unwrap();
    let archive = bench.create(options(Durability::None));
    assert!(matches!(create(&bench.path()), Err(ArchiveError::Busy { .. })));
    let _sealed = archive.finish(bench.now);
    let error = create(&bench.path()).unwrap_err();
    assert!(matches!(&error, ArchiveError::Occupied { .. }), "{error}");
    assert!(error.to_string().contains("name another directory"));
    assert_eq!(bench.file("notes.txt"), b"mine");
    let file = bench.path().join("notes.txt");
    assert!(matches!(create(&file), Err(ArchiveError::NotADirectory { .. })));
    let one = ArchiveOptions { depth: 0, ..ArchiveOptions::default() };
    let refused = Archive::create(&bench.dir.path().join("new"), session(), one, bench.now);
    assert!(matches!(refused, Err(ArchiveError::Options { name: "depth", .. })));
}
