//! Runs that are killed with SIGKILL while they archive, and what can be recovered.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use circbuf_driver::record::RecordKind;
use nix::sys::signal::Signal;

use crate::util::{Running, assert_verified, disk_dir, ends, index_entries, json, number};

const SEED: u64 = 20;

/// The next number of a seeded sequence.
fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// Kills a run once its index names so many records, and a while later.
fn kill_in_the_middle(archive: &Path, options: &str, records: usize, later: Duration) {
    let mut run = Running::circbuf(&format!(
        "run --source noise:500-60000 --fps 400 --bus-mb-s unlimited --arch-policy every \
         --segment-bytes 2MiB --archive {} {options}",
        archive.display()
    ));
    run.waits("archiving", || index_entries(archive).len() >= records);
    // Anywhere between two of the states that can be told apart from outside.
    let end = Instant::now() + later;
    while Instant::now() < end {
        std::hint::spin_loop();
    }
    run.signal(Signal::SIGKILL);
    assert_eq!(run.end().code, None, "killed by a signal");
}

fn bytes(archive: &Path) -> u64 {
    let files =
        fs::read_dir(archive).expect("the archive").map(|file| file.expect("a name").path());
    let segments = files.filter(|path| path.extension().is_some_and(|suffix| suffix == "cbs"));
    segments.map(|path| fs::metadata(path).expect("a segment").len()).sum()
}

/// Recovers the archive; whatever was named before is still there, and the cut is told.
fn assert_recovers(archive: &Path, what: &str) {
    let named = index_entries(archive);
    let before = bytes(archive);
    let dir = archive.display();
    let planned = json(&format!("archive recover {dir} --json --dry-run"));
    assert_eq!(bytes(archive), before, "{what}: a dry run changes nothing");
    let report = json(&format!("archive recover {dir} --json"));
    assert_eq!(report["cuts"], planned["cuts"], "{what}");
    assert_eq!(number(&report, "bytes_cut"), before - bytes(archive), "{what}");
    assert_eq!(number(&report, "problems_total"), 0, "{what}: {report:#}");
    let verified = assert_verified(archive);
    for left in ["unindexed", "tail_bytes"] {
        assert_eq!(number(&verified, left), 0, "{what}: {verified:#}");
    }
    let listed = json(&format!("archive ls {dir} --json"));
    let frames = listed["frames"].as_array().expect("a list");
    let kept: Vec<u64> = frames.iter().map(|frame| number(frame, "sequence")).collect();
    assert!(kept.is_sorted_by(|a, b| a < b), "{what}: {kept:?}");
    let kept: HashSet<u64> = kept.into_iter().collect();
    let frames = named.iter().filter(|entry| entry.kind == RecordKind::Frame);
    let gone: Vec<_> = frames.filter(|entry| !kept.contains(&entry.sequence)).collect();
    assert!(gone.is_empty(), "{what}: {gone:?}");
    let again = json(&format!("archive recover {dir} --json"));
    assert_eq!((number(&again, "bytes_cut"), number(&again, "indexes_rebuilt")), (0, 0), "{what}");
}

#[test]
fn what_the_index_of_a_killed_run_named_is_kept() {
    let mut state = SEED;
    let mut cut = 0;
    for engine in ["uring", "pwrite"] {
        for durability in ["none", "interval=5", "interval=50", "frame", "none --no-index"] {
            let dir = disk_dir();
            let archive = dir.path().join("a");
            let options = format!("--engine {engine} --durability {durability}");
            let records =
                if durability.contains("--no-index") { 0 } else { draw(&mut state) % 120 };
            let later = Duration::from_micros(draw(&mut state) % 20_000);
            let what = format!("seed {SEED}: {options}, {records} records and {later:?}");
            let is_there = ends(&format!(
                "run --source noise:500 --frames 1 --engine {engine} --archive {}",
                dir.path().join("probe").display()
            ));
            if engine == "uring" && is_there.code != Some(0) {
                is_there.refused(1, &["io_uring", "pwrite"]);
                continue;
            }
            kill_in_the_middle(&archive, &options, records as usize, later);
            if !archive.join("seg-000000.cbs").exists() {
                continue;
            }
            let before = bytes(&archive);
            assert_recovers(&archive, &what);
            cut += before - bytes(&archive);
        }
    }
    assert!(cut > 0, "of so many killed runs at least one leaves a tail");
}

#[test]
fn what_was_cut_is_told_to_people() {
    let dir = disk_dir();
    let archive = dir.path().join("a");
    kill_in_the_middle(&archive, "--durability interval=1", 5, Duration::ZERO);
    let verified = ends(&format!("archive verify {}", archive.display())).with_code(0);
    assert!(verified.stdout.contains("circbuf archive recover mends it"), "{verified:?}");
    let told = ends(&format!("archive recover {}", archive.display())).with_code(0);
    assert!(told.stdout.contains("cut ") && told.stdout.contains("frames and"), "{told:?}");
}

#[test]
fn an_archive_that_is_being_written_is_not_recovered() {
    let dir = disk_dir();
    let archive = dir.path().join("a");
    let mut run = Running::circbuf(&format!(
        "run --source noise:500 --fps 50 --durability frame --archive {}",
        archive.display()
    ));
    run.waits("archiving", || index_entries(&archive).len() > 2);
    let recover = ends(&format!("archive recover {}", archive.display()));
    recover.refused(1, &["is being written by another process"]);
    ends(&format!("archive ls {}", archive.display())).with_code(0);
    let verified = ends(&format!("archive verify {}", archive.display())).with_code(0);
    assert!(verified.stdout.contains("it is being written"), "{verified:?}");
    run.interrupt().with_code(0);
    assert_verified(&archive);
}
