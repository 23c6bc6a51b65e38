//! `circbuf run` with the embedded camera: what it prints, and that its books are right.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Stdio;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;

use crate::util::{
    Running, SMALL, assert_verified, at, circbuf, disk_dir, ends, hold_against_ledger, json,
    number, read_ledger, ring_dir,
};

/// Every key that a program may count on.
const KEYS: [&str; 35] = [
    "schema",
    "elapsed_s",
    "closes",
    "ring.bytes",
    "ring.frames_expected",
    "ring.frames_detected",
    "ring.passed",
    "ring.headroom_bytes_min",
    "ring.lost.overrun",
    "ring.lost.torn",
    "ring.lost.corrupt",
    "ring.lost_is",
    "consumers.proc.expected",
    "consumers.proc.delivered",
    "consumers.proc.policy",
    "consumers.proc.in_flight",
    "consumers.proc.closes",
    "consumers.proc.lost.no_slab",
    "consumers.proc.lost.queue_full",
    "consumers.proc.lost.io",
    "consumers.arch.expected",
    "consumers.arch.delivered",
    "consumers.arch.policy",
    "consumers.arch.in_flight",
    "consumers.arch.closes",
    "consumers.arch.lost.no_slab",
    "consumers.arch.lost.queue_full",
    "consumers.arch.lost.io",
    "consumers.arch.bytes_written",
    "consumers.arch.segments",
    "consumers.arch.durable",
    "latency_us.tail.p50",
    "latency_us.proc.p99",
    "latency_us.durable.p99",
    "latency_us.durable.max",
];

fn assert_balanced(books: &Value) {
    let n = |path: &str| number(books, path);
    let lost = n("ring.lost.torn") + n("ring.lost.corrupt");
    assert_eq!(n("ring.frames_expected"), n("ring.frames_detected") + n("ring.lost.overrun"));
    assert_eq!(n("ring.frames_detected"), n("ring.passed") + lost);
    for consumer in ["proc", "arch"] {
        let n = |path: &str| number(books, &format!("consumers.{consumer}.{path}"));
        let lost = n("lost.no_slab") + n("lost.queue_full") + n("lost.io");
        assert_eq!(n("expected"), n("delivered") + n("policy") + lost + n("in_flight"));
        assert_eq!(n("in_flight"), 0, "the run is over");
    }
    assert_eq!(books["closes"], true);
}

#[test]
fn a_real_second_of_camera_closes_and_every_key_is_there() {
    let dir = disk_dir();
    let (archive, ledger) = (dir.path().join("a"), dir.path().join("ledger"));
    let books = json(&format!(
        "run --seconds 1 --fps 30 --width 160 --height 120 --json --archive {} --ledger {}",
        archive.display(),
        ledger.display()
    ));
    KEYS.iter().for_each(|key| {
        at(&books, key);
    });
    assert_eq!(books["schema"], "circbuf.stats/1");
    assert_eq!(at(&books, "ring.lost_is"), "exact");
    assert_balanced(&books);
    let emitted = read_ledger(&ledger).len() as u64;
    assert!(emitted > 0);
    assert_eq!(number(&books, "ring.frames_expected"), emitted);
    assert_eq!(number(&books, "consumers.arch.delivered"), emitted);
    assert_eq!(hold_against_ledger(&archive, &ledger, true).len() as u64, emitted);
    assert_eq!(number(&assert_verified(&archive), "frames"), emitted);
}

#[test]
fn so_many_frames_are_so_many() {
    for frames in [1, 37] {
        let books = json(&format!("run {SMALL} --lossless --frames {frames} --json"));
        assert_eq!(number(&books, "ring.frames_expected"), frames);
        assert_eq!(number(&books, "ring.passed"), frames);
        assert_balanced(&books);
    }
}

#[test]
fn a_run_is_the_same_however_its_threads_wait_and_wherever_frames_are_processed() {
    let dir = disk_dir();
    for wait in ["spin", "adaptive", "sleep"] {
        for inline in ["", "--inline"] {
            let books = json(&format!(
                "run {SMALL} --lossless --frames 60 --wait {wait} {inline} --proc decode --json \
                 --arch-policy every --archive {}",
                dir.path().join(format!("{wait}{inline}")).display()
            ));
            assert_balanced(&books);
            assert_eq!(number(&books, "ring.passed"), 60);
            assert_eq!(number(&books, "consumers.proc.delivered"), 60);
            assert_eq!(number(&books, "consumers.arch.delivered"), 60);
            assert!(at(&books, "latency_us.proc.p50").as_f64() > Some(0.0), "{books:#}");
        }
    }
}

#[test]
fn policies_are_a_choice_that_the_books_show() {
    let dir = disk_dir();
    let cases = [
        ("every", "nth=3", 40, 14),
        ("nth=7:drop-oldest", "every", 6, 40),
        // The camera runs at 10 a second.
        ("fps=5", "fps=1000:latest-only", 20, 40),
    ];
    for (case, (proc, arch, proc_takes, arch_takes)) in cases.into_iter().enumerate() {
        let books = json(&format!(
            "run {SMALL} --lossless --frames 40 --fps 10 --json --proc-policy {proc} \
             --arch-policy {arch} --archive {}",
            dir.path().join(case.to_string()).display()
        ));
        assert_balanced(&books);
        let consumer = |name: &str, takes: u64| {
            assert_eq!(number(&books, &format!("consumers.{name}.delivered")), takes, "{books:#}");
            assert_eq!(number(&books, &format!("consumers.{name}.policy")), 40 - takes);
        };
        consumer("proc", proc_takes);
        consumer("arch", arch_takes);
    }
}

#[test]
fn more_lost_than_allowed_is_exit_code_3() {
    // FF FF in the payload of one frame of twenty, as no camera writes it.
    let dir = ring_dir();
    let (ring, ledger) = (dir.path().join("ring"), dir.path().join("ledger"));
    let camera = "--source noise:4000 --frames 20 --virtual-time --ring-bytes 1MiB";
    let files = format!("--ring {} --ledger {}", ring.display(), ledger.display());
    ends(&format!("emulate {camera} {files}")).with_code(0);
    let damaged = &read_ledger(&ledger)[7];
    let file = fs::OpenOptions::new().write(true).open(&ring).unwrap();
    file.write_all_at(&[0xFF, 0xFF], damaged.offset + 1000).unwrap();
    let line = format!("run --device {} --from oldest", ring.display());
    ends(&format!("{line} --max-lost 0")).refused(3, &["1 of 20 frames lost", "--max-lost"]);
    ends(&format!("{line} --max-lost 4.9%")).refused(3, &["--max-lost allows 4.9 %"]);
    ends(&format!("{line} --max-lost 5%")).with_code(0);
    let books = json(&format!("{line} --max-lost 1 --json"));
    assert_eq!(number(&books, "ring.lost.corrupt"), 1);
    assert_eq!(number(&books, "consumers.proc.delivered"), 19);
    assert_balanced(&books);
}

/// The processor hangs at a pipe that nobody reads, and loses what its queue does not hold; the
/// archive beside it gets every frame.
#[test]
fn a_consumer_that_hangs_loses_frames_and_nobody_else_does() {
    const FRAMES: u64 = 200;
    for (when_full, keeps_last) in
        [("drop-newest", false), ("drop-oldest", true), ("latest-only", true)]
    {
        let dir = disk_dir();
        let (pipe, archive) = (dir.path().join("pipe"), dir.path().join("a"));
        mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        // Full from the start, so that the first line that is written hangs.
        let filler = fill(&pipe);
        let mut run = Running::circbuf(&format!(
            "run {SMALL} --fps 100 --frames {FRAMES} --json --proc decode={} --proc-queue 2 \
             --proc-policy every:{when_full} --arch-policy every --arch-queue 1000 --archive {} \
             --durability interval=5",
            pipe.display(),
            archive.display()
        ));
        let mut lines = fs::File::open(&pipe).unwrap();
        let entries = || crate::util::index_entries(&archive).len() as u64;
        run.waits("archived all", || entries() == FRAMES);
        drop(filler);
        let mut text = String::new();
        lines.read_to_string(&mut text).unwrap();
        let books = run.end().with_code(0).json();
        assert_balanced(&books);
        let processed: Vec<u64> = sequences(text.trim_start());
        let lost = number(&books, "consumers.proc.lost.queue_full");
        assert!(lost > 0, "{books:#}");
        assert_eq!(processed.len() as u64, FRAMES - lost);
        assert!(processed.is_sorted_by(|a, b| a < b), "{when_full}: {processed:?}");
        assert_eq!(processed.last() == Some(&(FRAMES - 1)), keeps_last, "{when_full}");
        assert_eq!(number(&books, "consumers.arch.delivered"), FRAMES);
    }
}

/// A named pipe opened and filled with empty lines.
fn fill(pipe: &Path) -> fs::File {
    let mut options = fs::OpenOptions::new();
    let mut filler = options
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(pipe)
        .expect("a pipe");
    while filler.write(b"\n").is_ok() {}
    filler
}

fn sequences(lines: &str) -> Vec<u64> {
    let parsed =
        lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
    parsed.map(|line| line["sequence"].as_u64().expect("a number")).collect()
}

#[test]
fn the_picture_of_every_frame_tells_its_number_in_order() {
    let dir = disk_dir();
    let measures = dir.path().join("measures");
    let books = json(&format!(
        "run --width 320 --height 240 --virtual-time --lossless --frames 30 --json \
         --proc decode={}",
        measures.display()
    ));
    let text = fs::read_to_string(&measures).unwrap();
    assert_eq!(sequences(&text), (0..30).collect::<Vec<_>>());
    for (number, line) in text.lines().enumerate() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["number"], number, "{line}");
        assert_eq!((&line["code_sec"], &line["code_usec"]), (&line["sec"], &line["usec"]));
        assert_eq!((&line["width"], &line["height"]), (&320.into(), &240.into()));
    }
    assert_eq!(at(&books, "decoded.frames"), 30);
    assert_eq!(at(&books, "decoded.misnumbered"), 0);
}

#[test]
fn measures_on_stdout_leave_the_books_to_stderr() {
    let run = ends(&format!("run {SMALL} --lossless --frames 5 --proc decode=-")).with_code(0);
    assert_eq!(sequences(&run.stdout), [0, 1, 2, 3, 4]);
    assert!(run.stderr.contains("expected"), "{run:?}");
    ends(&format!("run {SMALL} --frames 5 --proc decode=- --json")).refused(2, &["stdout"]);
}

#[test]
fn an_interrupted_run_prints_its_books() {
    let dir = disk_dir();
    let archive = dir.path().join("a");
    let mut run = Running::circbuf(&format!(
        "run --fps 50 --width 160 --height 120 --json --durability frame --archive {}",
        archive.display()
    ));
    run.waits("archiving", || crate::util::index_entries(&archive).len() > 3);
    let books = run.interrupt().with_code(0).json();
    assert_balanced(&books);
    assert_eq!(number(&assert_verified(&archive), "tail_bytes"), 0);
}

#[test]
fn a_closed_stdout_is_the_reader_s_choice() {
    // The last one would have no end, if measures that nobody reads were none.
    for what in ["--frames 300 --json", "--frames 300", "--proc decode=-"] {
        let mut command = circbuf(&format!("run {SMALL} --lossless {what}"));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{what}: {stderr}");
        assert!(!stderr.contains("panicked") && !stderr.contains("Broken"), "{what}: {stderr}");
    }
}

#[test]
fn the_tour_proves_what_it_shows() {
    let dir = disk_dir();
    let out = dir.path().join("tour");
    let tour = ends(&format!("demo --seconds 2 --out {}", out.display())).with_code(0);
    for word in ["injected ", "equal to the frame", "next:"] {
        assert!(tour.stdout.contains(word), "{word}: {tour:?}");
    }
    let verdict = tour.stdout.lines().find_map(|line| line.trim().strip_prefix("damaged "));
    let damaged: u64 = verdict.unwrap().split(',').next().unwrap().parse().unwrap();
    assert!(damaged > 0, "{tour:?}");
    assert_eq!(verdict.unwrap(), format!("{damaged}, found {damaged}, accepted 0"));
    assert_eq!(tour.stdout.matches("   closes").count(), 2, "{tour:?}");
    assert_verified(&out.join("archive"));
    ends(&format!("demo --out {}", out.display())).refused(1, &["tour", "exists"]);
}

#[test]
fn a_camera_in_its_own_process_cannot_wait_for_its_driver() {
    let dir = disk_dir();
    let ring = dir.path().join("ring");
    ends(&format!("emulate --ring {} --lossless", ring.display())).refused(2, &["--lossless"]);
    assert!(!ring.exists());
}
