//! An archive whose writes complete in any order, on a disk that fails now and then, driven by a
//! seed: whatever happens, the books close, the index is never ahead, and nothing is untold.

use std::sync::Mutex;

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};

use super::super::reader::ArchiveReader;
use super::super::scan::{Content, Found};
use super::super::scripted::{SESSION, Script, Scripted, frame};
use super::super::verify::verify;
use super::*;

struct World {
    random: Xoshiro256PlusPlus,
    dir: tempfile::TempDir,
    pool: SlabPool,
    script: Arc<Mutex<Script>>,
    now: Moment,
    sequence: u64,
    appended: u64,
    overrun: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        World {
            random: Xoshiro256PlusPlus::seed_from_u64(seed),
            dir,
            pool: SlabPool::new(16 << 20),
            script: Arc::default(),
            now: Moment::default(),
            sequence: 0,
            appended: 0,
            overrun: 0,
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random.next_u64() % limit
    }

    fn archive(&mut self) -> Archive {
        let interval = Durability::Interval(300);
        let durability = [Durability::None, interval, Durability::Frame][self.below(3) as usize];
        let options = ArchiveOptions {
            segment_bytes: 80_000,
            segment_seconds: Some(5),
            durability,
            depth: 1 + self.below(6) as usize,
            ..ArchiveOptions::default()
        };
        let engine = Engine::Scripted(Scripted::new(&self.script));
        let session = Session { session: SESSION, camera: 1, ..Session::default() };
        Archive::with_engine(self.dir.path(), session, options, engine, self.now).unwrap()
    }

    fn step(&mut self, archive: &mut Archive) {
        match self.below(20) {
            0..9 => {
                let length = 1 + self.below(12_000) as u32;
                archive.append(frame(&self.pool, self.sequence, length), self.now);
                self.sequence += 1;
                self.appended += 1;
            }
            9 => {
                let count = 1 + self.below(3);
                let (reason, exact) = (LossReason::Overrun, true);
                let sequence = self.sequence;
                let loss =
                    Loss { reason, refusal: None, sequence, count, exact, first: None, last: None };
                archive.append_loss(&loss, self.now);
                self.sequence += count;
                self.overrun += count;
            }
            10..14 => {
                let ticket = self.sequence.saturating_sub(self.below(8));
                self.script.lock().unwrap().release.push_back(ticket);
                archive.poll(self.now);
            }
            14..17 => self.now.monotonic_ns += self.below(400_000_000),
            17 => self.script.lock().unwrap().hold ^= true,
            18 => archive.poll(self.now),
            _ => {
                let broken = self.below(4) == 0;
                self.script.lock().unwrap().broken = broken;
            }
        }
    }

    /// Frames that stand in the archive, and frames told as lost to the disk and in the ring.
    fn told(&self) -> (u64, u64, u64) {
        let (mut frames, mut io, mut overrun) = (0, 0, 0);
        for found in ArchiveReader::open(self.dir.path()).unwrap().scan() {
            let Found::Record(entry) = found.unwrap() else { panic!("a sealed archive is whole") };
            match entry.content {
                Content::Frame { .. } => frames += 1,
                Content::Loss(loss) if loss.reason == LossReason::Io => io += loss.count,
                Content::Loss(loss) => overrun += loss.count,
            }
        }
        (frames, io, overrun)
    }
}

#[test]
fn whatever_the_disk_does_the_books_close_and_the_index_is_never_ahead() {
    let mut lost = 0;
    for seed in 0..60 {
        let mut world = World::new(seed);
        let mut archive = world.archive();
        for step in 0..250 {
            world.step(&mut archive);
            let counters = archive.counters();
            let accounted = counters.frames_written + counters.frames_lost_io + counters.in_flight;
            assert_eq!(accounted, world.appended, "seed {seed} step {step}");
            assert!(counters.durable <= counters.frames_written, "seed {seed} step {step}");
            // While the disk fails there may be no segment at all.
            if step % 10 == 0
                && let Ok(report) = verify(world.dir.path(), |_, _| {})
            {
                assert!(report.is_clean(), "seed {seed} step {step}: {report:?}");
                assert!(report.frames >= counters.frames_written, "seed {seed} step {step}");
            }
        }
        *world.script.lock().unwrap() = Script::default();
        world.now.monotonic_ns += 1_000_000_000;
        let counters = archive.finish(world.now);
        let told = (counters.frames_written, counters.frames_lost_io, world.overrun);
        assert_eq!(world.told(), told, "seed {seed}");
        assert_eq!(told.0 + told.1, world.appended, "seed {seed}");
        assert_eq!((counters.durable, world.pool.taken()), (told.0, 0), "seed {seed}");
        let report = verify(world.dir.path(), |_, _| {}).unwrap();
        assert!(report.is_clean(), "seed {seed}: {report:?}");
        let left = (report.unindexed, report.skipped, report.hole_bytes, report.tail_bytes);
        assert_eq!(left, (0, 0, 0, 0), "seed {seed}");
        lost += told.1;
    }
    assert!(lost > 500, "the disk has failed often enough to prove something: {lost} frames lost");
}
