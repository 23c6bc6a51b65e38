//! A disk that stops for a while, as disks do: whoever captures never waits for it, what waits is
//! bounded, and what gave way is told.

use std::sync::Mutex;

use super::super::reader::ArchiveReader;
use super::super::scan::{Content, Found};
use super::super::scripted::{SESSION, Script, Scripted, frame};
use super::*;
use crate::dispatch::{Delivery, Inlet, Outlet};

const QUEUE: usize = 8;
const DEPTH: usize = 4;
/// In the queue, in flight, in the worker's hands, and the one that is being captured.
const SLABS: usize = QUEUE + DEPTH + 2;

/// As the pipeline's archive worker does it.
fn work(mut archive: Archive, frames: &Inlet) -> Archive {
    let now = Moment::default();
    while let Some(Delivery { frame, lost, .. }) = frames.recv() {
        lost.iter().for_each(|loss| archive.append_loss(loss, now));
        archive.append(frame, now);
        archive.poll(now);
    }
    archive
}

/// What stands in the archive: the first number behind all of it, frames, and frames told as lost.
fn read(dir: &Path) -> (u64, u64, u64) {
    let (mut next, mut frames, mut lost) = (0, 0, 0);
    for found in ArchiveReader::open(dir).unwrap().scan() {
        let Found::Record(entry) = found.unwrap() else { panic!("a sealed archive is whole") };
        assert_eq!(entry.header.sequence, next, "no hole and no overlap");
        match entry.content {
            Content::Frame { .. } => (next, frames) = (next + 1, frames + 1),
            Content::Loss(loss) => {
                assert_eq!(loss.reason, LossReason::QueueFull);
                (next, lost) = (next + loss.count, lost + loss.count);
            }
        }
    }
    (next, frames, lost)
}

#[test]
fn a_disk_that_stalls_costs_counted_frames_and_holds_nobody_up() {
    let (dir, script) = (tempfile::tempdir().unwrap(), Arc::<Mutex<Script>>::default());
    *script.lock().unwrap() = Script { hold: true, stall: true, ..Script::default() };
    let session = Session { session: SESSION, camera: 1, ..Session::default() };
    let options = ArchiveOptions { depth: DEPTH, ..ArchiveOptions::default() };
    let engine = Engine::Scripted(Scripted::new(&script));
    let archive = Archive::with_engine(dir.path(), session, options, engine, Moment::default());
    let archive = archive.unwrap();
    let (mut outlet, inlet) = Outlet::new("every:drop-newest".parse().unwrap(), QUEUE);
    let worker = std::thread::spawn(move || work(archive, &inlet));
    // `frame` finds a slab each time: the backlog is never larger than queue and depth.
    let pool = SlabPool::new(SLABS * SlabPool::class_bytes(1));
    let mut capture =
        |sequence| outlet.offer(frame(&pool, sequence, 5_000), Moment::default()).dropped;
    // The disk does not move until all of these are captured.
    let mut dropped: u64 = (0..1_000).map(&mut capture).sum();
    assert!(dropped >= 1_000 - (QUEUE + DEPTH + 1) as u64, "{dropped}");
    *script.lock().unwrap() = Script::default();
    dropped += (1_000..1_020).map(&mut capture).sum::<u64>();
    let untold = outlet.take_untold();
    drop(outlet);
    let mut archive = worker.join().unwrap();
    untold.iter().for_each(|loss| archive.append_loss(loss, Moment::default()));
    let counters = archive.finish(Moment::default());
    assert_eq!((counters.frames_lost_io, counters.io_errors), (0, 0));
    assert_eq!(read(dir.path()), (1_020, counters.frames_written, dropped));
    assert_eq!((counters.frames_written + dropped, pool.taken()), (1_020, 0));
}
