//! Losses as data: frames and losses fill a run without hole, `archive ls` and measures tell them, and a
//! run may end at one.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use circbuf_driver::archive::Content;
use serde_json::Value;

use crate::util::{Running, circbuf, disk_dir, ends, json, number, read_ledger, ring_dir};
use crate::verify::{FRAMES, NOISE, Run, entries};

/// Frames and losses tell of each number from the first to the last once, and in order; of how many.
#[track_caller]
pub(crate) fn assert_tiled(archive: &Path, in_order: bool) -> u64 {
    let mut told: Vec<(u64, u64)> = entries(archive)
        .iter()
        .map(|entry| match entry.content {
            Content::Frame { .. } => (entry.header.sequence, 1),
            Content::Loss(loss) => (loss.sequence, loss.count),
        })
        .collect();
    assert!(!in_order || told.is_sorted(), "{told:?}");
    told.sort_unstable();
    for pair in told.windows(2) {
        assert_eq!(pair[0].0 + pair[0].1, pair[1].0, "hole or overlap: {pair:?}");
    }
    told.iter().map(|(_, count)| count).sum()
}

/// Whatever is lost, and wherever: numbers of frames and losses fill the driver's time, and the books
/// are those of ledger and archive.
#[test]
fn losses_fill_the_gaps_whatever_gives_way() {
    let policies = ["every:drop-newest", "every:drop-oldest", "every:latest-only"];
    let slabs = ["", "--slab-bytes 48KiB"];
    let mut lost = 0;
    for policy in policies {
        for slab in slabs {
            let run = Run { dir: disk_dir() };
            let line = format!(
                "run --source noise:3000 --ring-bytes 64KiB --unpaced --frames 5000 --json \
                 --arch-policy {policy} --arch-queue 3 --durability frame --max-lost 100% {slab} {}",
                run.options()
            );
            let ended = ends(&line).with_code(0);
            run.keep_books(&ended.stdout);
            ends(&run.line_with_books()).with_code(0);
            let comparison = run.compared(0);
            assert_eq!(number(&comparison, "frames"), 5000);
            assert_eq!(assert_tiled(&run.archive(), true), 5000, "{policy} {slab}");
            lost += 5000 - number(&comparison, "delivered_good");
        }
    }
    assert!(lost > 0, "a disk is slower than an unpaced camera");
}

#[test]
fn what_a_full_disk_costs_is_told_frame_by_frame() {
    let run = Run { dir: disk_dir() };
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!(
        "ulimit -f 4096; exec {} {NOISE} --segment-bytes 8GiB --lossless --frames 3000 {}",
        env!("CARGO_BIN_EXE_circbuf"),
        run.options()
    ));
    run.keep_books(&Running::start(shell).end().with_code(1).stdout);
    let comparison = ends(&format!("{} --json", run.line_with_books())).with_code(0).json();
    let (good, lost) = (number(&comparison, "delivered_good"), number(&comparison, "not_archived"));
    assert!(good > 0 && lost > 0 && good + lost == 3000, "{comparison:#}");
    assert_eq!(number(&comparison, "by_reason.io"), lost);
    assert_eq!(assert_tiled(&run.archive(), false), 3000);
}

#[test]
fn gaps_are_listed_with_their_neighbours_and_reasons() {
    let run = Run::lossless();
    let (torn, corrupt, header, no_frame) = (2, 3, 6, 1);
    run.lose(7, torn, header);
    run.lose(8, corrupt, no_frame);
    run.lose(FRAMES - 1, torn, header);
    let dir = run.archive();
    let told = ends(&format!("archive ls {}", dir.display())).with_code(0).stdout;
    for line in [
        "7  -- 1 frames lost between 6 and 9: torn (header), unknown to unknown",
        "8  -- 1 frames lost between 6 and 9: corrupt (no_frame), unknown to unknown",
        "39  -- 1 frames lost behind 38: torn (header)",
        "37 frames, 3 lost in 2 gaps",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    let listed = json(&format!("archive ls {} --json", dir.display()));
    let gaps = listed["gaps"].as_array().unwrap();
    assert_eq!(gaps.len(), 2);
    assert_eq!((&gaps[0]["after"], &gaps[0]["before"]), (&6.into(), &9.into()));
    assert_eq!((&gaps[0]["lost"], &gaps[1]["before"]), (&2.into(), &Value::Null));
    assert_eq!(gaps[0]["losses"][1]["refusal"], "no_frame");
    assert_eq!(listed["losses"].as_array().unwrap().len(), 3);
}

/// A ring of 20 frames, one of which, number 7, holds a pair that no camera writes.
fn damaged_ring(dir: &Path) -> PathBuf {
    let (ring, ledger) = (dir.join("ring"), dir.join("ledger"));
    let camera = "--source synthetic:4 --width 160 --height 120 --frames 20 --virtual-time";
    ends(&format!("emulate {camera} --ring {} --ledger {}", ring.display(), ledger.display()))
        .with_code(0);
    let file = OpenOptions::new().write(true).open(&ring).expect("the ring is ours");
    file.write_all_at(&[0xFF, 0xFF], read_ledger(&ledger)[7].offset + 1000).expect("there is room");
    ring
}

#[test]
fn a_run_ends_at_the_first_loss_if_it_is_asked_to() {
    let dir = ring_dir();
    let line = format!("run --device {} --from oldest", damaged_ring(dir.path()).display());
    let archive = |name: &str| dir.path().join(name);
    let stopped = ends(&format!(
        "{line} --on-loss stop --json --arch-policy every --archive {}",
        archive("stopped").display()
    ));
    stopped.refused(3, &["1 of 8 frames lost (corrupt 1)", "--on-loss stop", "--max-lost"]);
    let books = stopped.json();
    assert_eq!((&books["ended_by"], &books["closes"]), (&"loss".into(), &true.into()));
    assert_eq!(
        number(&books, "consumers.arch.delivered"),
        7,
        "in order: what was found is archived"
    );
    assert_eq!(assert_tiled(&archive("stopped"), true), 8, "and the loss as well");
    // A budget is how much may be lost before it ends.
    let books = json(&format!("{line} --on-loss stop --max-lost 1 --json"));
    assert_eq!((&books["ended_by"], number(&books, "ring.passed")), (&"camera".into(), 19));
    ends(&format!("{line} --on-loss stop --max-lost 0")).refused(3, &["--max-lost allows 0"]);
    // A share allows one frame while the run is short, and is held against the whole at the end.
    ends(&format!("{line} --on-loss stop --max-lost 5%")).with_code(0);
    let short = ends(&format!("{line} --on-loss stop --max-lost 4% --json"));
    short.refused(3, &["1 of 20 frames lost", "--max-lost allows 4 %"]);
    ends(&format!("{line} --on-loss continue")).with_code(0);
    ends(&format!("{line} --on-loss halt")).refused(2, &["halt", "stop"]);

    let config = archive("config.toml");
    fs::write(&config, "[driver]\non_loss = \"stop\"\n").unwrap();
    ends(&format!("{line} --config {}", config.display())).refused(3, &["--on-loss stop"]);
    let mut command = circbuf(&line);
    command.env("CIRCBUF_ON_LOSS", "stop");
    Running::start(command).end().refused(3, &["1 of 8 frames lost"]);
}

#[test]
fn a_loss_of_a_consumer_ends_an_embedded_run_too() {
    let line = "run --source noise:3000 --ring-bytes 64KiB --unpaced --proc-queue 1 --on-loss stop";
    let ended = ends(&format!("{line} --json"));
    assert_eq!((ended.code, &ended.json()["ended_by"]), (Some(3), &"loss".into()), "{ended:?}");
}

#[test]
fn measures_and_records_tell_what_was_lost_before_them() {
    let dir = ring_dir();
    let ring = damaged_ring(dir.path());
    let archive = dir.path().join("a");
    let line = format!(
        "run --device {} --from oldest --proc decode=- --arch-policy every --archive {}",
        ring.display(),
        archive.display()
    );
    let told = ends(&line).with_code(0).stdout;
    let listed = json(&format!("archive ls {} --json", archive.display()));
    for (line, record) in told.lines().zip(listed["frames"].as_array().unwrap()) {
        let line: Value = serde_json::from_str(line).unwrap();
        let is_behind = line["sequence"] == 8;
        assert_eq!(line["lost_before"], u64::from(is_behind), "{line}");
        assert_eq!(line["sequence"], record["sequence"]);
        assert_eq!(
            line["lost_before"], record["lost_before"],
            "without loss of their own, they agree"
        );
        let lost = if is_behind { r#"{"corrupt":1}"# } else { "{}" };
        assert_eq!(line["lost"].to_string(), lost);
    }
    assert_eq!(told.lines().count(), 19);
}
