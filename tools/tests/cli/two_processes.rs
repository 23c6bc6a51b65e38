//! A camera and a driver in processes of their own, on a ring file.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use circbuf_abi::registers::{FRAMES, WRITTEN};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::util::{
    Ended, Running, assert_verified, at, hold_against_ledger, index_entries, json, number,
    read_ledger, register, registers, ring_dir,
};

/// Where a camera and a driver meet.
struct Place {
    dir: TempDir,
    ring: PathBuf,
}

impl Place {
    fn new() -> Place {
        let dir = ring_dir();
        let ring = dir.path().join("ring");
        Place { dir, ring }
    }

    fn archive(&self) -> PathBuf {
        self.dir.path().join("archive")
    }

    fn ledger(&self) -> PathBuf {
        self.dir.path().join("ledger")
    }

    fn camera(&self, options: &str) -> Running {
        let (ring, ledger) = (self.ring.display(), self.ledger());
        Running::circbuf(&format!("emulate --ring {ring} --ledger {} {options}", ledger.display()))
    }

    /// A driver whose archive is indexed at once.
    fn driver(&self, options: &str) -> Running {
        let (ring, archive) = (self.ring.display(), self.archive());
        Running::circbuf(&format!(
            "run --device {ring} --json --arch-policy every --durability interval=1 --archive {} \
             {options}",
            archive.display()
        ))
    }

    fn archived(&self) -> u64 {
        index_entries(&self.archive()).len() as u64
    }

    fn has_ring(&self, camera: &mut Running) {
        camera.waits("making its ring", || self.ring.exists());
    }
}

const PICTURES: &str = "--source synthetic:4 --width 160 --height 120 --ring-bytes 1MiB";

fn assert_read_to_the_end(place: &Place, driver: Ended, numbered: bool) -> Vec<u64> {
    let books = driver.with_code(0).json();
    assert_eq!(books["closes"], true);
    assert_eq!(books["ended_by"], "camera");
    assert_eq!(at(&books, "ring.lost_is"), "exact");
    let held = hold_against_ledger(&place.archive(), &place.ledger(), numbered);
    assert_eq!(number(&books, "ring.frames_expected"), held.len() as u64, "{books:#}");
    let emitted = read_ledger(&place.ledger()).len() as u64;
    assert_eq!(held, (emitted - held.len() as u64..emitted).collect::<Vec<_>>());
    assert_verified(&place.archive());
    held
}

#[test]
fn camera_and_driver_start_in_either_order() {
    for bare in ["", "--bare"] {
        for camera_first in [true, false] {
            let place = Place::new();
            let camera = || place.camera(&format!("{PICTURES} --fps 100 --frames 60 {bare}"));
            let driver = || place.driver("--from oldest");
            let (camera, driver) = if camera_first {
                let mut camera = camera();
                place.has_ring(&mut camera);
                (camera, driver())
            } else {
                let mut driver = driver();
                driver.says("there is no such ring yet; waiting");
                (camera(), driver)
            };
            camera.end().with_code(0);
            let held = assert_read_to_the_end(&place, driver.end(), true);
            assert_eq!(held.len(), 60, "{bare} {camera_first}");
        }
    }
}

#[test]
fn a_driver_that_joins_late_gets_what_completes_from_then_on() {
    for bare in ["", "--bare"] {
        let place = Place::new();
        let mut camera = place.camera(&format!("{PICTURES} --fps 200 {bare}"));
        camera.waits("writing", || register(&place.ring, FRAMES) >= 20);
        let mut driver = place.driver("");
        driver.waits("archiving", || place.archived() >= 20);
        camera.interrupt().with_code(0);
        let held = assert_read_to_the_end(&place, driver.end(), true);
        assert!(held[0] >= 20, "{held:?}");
    }
}

#[test]
fn a_driver_that_stands_still_for_laps_archives_nothing_torn_and_counts_what_it_lost() {
    const RING: u64 = 1 << 20;
    for (bare, gap) in [("", "late"), ("--bare", "zero"), ("", "skip")] {
        let place = Place::new();
        let mut camera = place.camera(&format!(
            "--source noise:2000-60000 --ring-bytes {RING} --fps 1000 --bus-mb-s unlimited {bare} \
             --gap {gap}"
        ));
        place.has_ring(&mut camera);
        let mut driver = place.driver("");
        for _ in 0..4 {
            let archived = place.archived();
            driver.waits("archiving", || place.archived() > archived + 5);
            driver.freeze();
            let written = register(&place.ring, WRITTEN);
            camera.waits("five laps", || register(&place.ring, WRITTEN) > written + 5 * RING);
            driver.signal(Signal::SIGCONT);
        }
        let archived = place.archived();
        driver.waits("archiving", || place.archived() > archived + 5);
        camera.interrupt().with_code(0);
        let books = driver.end().with_code(0).json();
        assert_stopped_books(&place, &books);
    }
}

fn assert_stopped_books(place: &Place, books: &Value) {
    let n = |path: &str| number(books, path);
    assert_eq!((&books["closes"], &books["ended_by"]), (&true.into(), &"camera".into()));
    assert!(n("ring.lost.overrun") >= 4, "{books:#}");
    assert_eq!(n("ring.frames_expected"), n("ring.frames_detected") + n("ring.lost.overrun"));
    assert_eq!(n("ring.lost.corrupt"), 0, "the camera writes frames only: {books:#}");
    let held = hold_against_ledger(&place.archive(), &place.ledger(), true);
    assert_eq!(n("consumers.arch.delivered"), held.len() as u64);
    let report = assert_verified(&place.archive());
    let listed = json(&format!("archive ls {} --json", place.archive().display()));
    let losses = listed["losses"].as_array().expect("a list");
    assert!(losses.iter().all(|loss| loss["exact"] == true), "{losses:?}");
    let told: u64 = losses.iter().map(|loss| number(loss, "count")).sum();
    assert_eq!(told, number(&report, "frames_lost"));
    // What the camera emitted since the driver came is archived, or told as a loss.
    assert_eq!(n("ring.frames_expected"), held.len() as u64 + told, "{books:#}");
}

#[test]
fn without_a_register_page_the_stamps_are_followed_and_losses_are_estimates() {
    for (bare, gap) in [("", "late"), ("--bare", "zero")] {
        let place = Place::new();
        let mut camera = place.camera(&format!("{PICTURES} --fps 100 --gap {gap} {bare}"));
        place.has_ring(&mut camera);
        std::fs::remove_file(registers(&place.ring)).unwrap();
        let driver = place.driver("--frames 40");
        let ended = driver.end().with_code(0);
        assert!(ended.stderr.contains("without counters"), "{ended:?}");
        camera.interrupt().with_code(0);
        let books = ended.json();
        assert_eq!(at(&books, "ring.lost_is"), "estimated");
        assert!(at(&books, "ring.frames_expected").is_null());
        assert_eq!((number(&books, "ring.passed"), &books["closes"]), (40, &true.into()));
        let held = hold_against_ledger(&place.archive(), &place.ledger(), false);
        assert_eq!(held.len(), 40);
        assert_verified(&place.archive());
    }
}

/// Slots that are zeroed before the payload behind them prove that a frame was not overwritten, with
/// no counter at all.
#[test]
fn without_a_register_page_a_driver_that_stood_still_archives_nothing_torn() {
    const RING: u64 = 1 << 20;
    for gap in ["late", "zero"] {
        let place = Place::new();
        let mut camera = place.camera(&format!(
            "--source noise:2000-60000 --ring-bytes {RING} --fps 1000 --bus-mb-s unlimited \
             --gap {gap}"
        ));
        place.has_ring(&mut camera);
        let page = std::fs::File::open(registers(&place.ring)).unwrap();
        let written = || {
            let mut bytes = [0; 8];
            page.read_exact_at(&mut bytes, WRITTEN as u64).unwrap();
            u64::from_le_bytes(bytes)
        };
        std::fs::remove_file(registers(&place.ring)).unwrap();
        let mut driver = place.driver("");
        for _ in 0..4 {
            let archived = place.archived();
            driver.waits("archiving", || place.archived() > archived + 5);
            driver.freeze();
            let before = written();
            camera.waits("five laps", || written() > before + 5 * RING);
            driver.signal(Signal::SIGCONT);
        }
        let books = driver.interrupt().with_code(0).json();
        camera.interrupt().with_code(0);
        assert_eq!(
            (at(&books, "ring.lost_is"), &books["closes"]),
            (&"estimated".into(), &true.into())
        );
        assert!(number(&books, "ring.lost.overrun") > 0, "{books:#}");
        let held = hold_against_ledger(&place.archive(), &place.ledger(), false);
        assert_eq!(held.len() as u64, number(&books, "consumers.arch.delivered"));
        assert_verified(&place.archive());
    }
}

#[test]
fn a_ring_has_room_for_many_drivers() {
    let place = Place::new();
    let mut camera = place.camera(&format!("{PICTURES} --fps 100 --frames 50"));
    place.has_ring(&mut camera);
    let line = format!("run --device {} --from oldest --json", place.ring.display());
    let drivers = [Running::circbuf(&line), Running::circbuf(&line), Running::circbuf(&line)];
    camera.end().with_code(0);
    for driver in drivers {
        assert_eq!(number(&driver.end().with_code(0).json(), "ring.passed"), 50);
    }
}

#[test]
fn a_driver_whose_camera_is_killed_says_so() {
    for what in ["killed", "stopped for ever"] {
        let place = Place::new();
        let mut camera = place.camera(&format!("{PICTURES} --fps 200"));
        place.has_ring(&mut camera);
        let mut driver = place.driver("--timeout 1");
        driver.waits("archiving", || place.archived() >= 3);
        if what == "killed" {
            camera.signal(Signal::SIGKILL);
            driver.end().refused(1, &["camera's process is gone"]);
        } else {
            camera.freeze();
            driver.end().refused(1, &["no frame came any more", "--timeout"]);
        }
        assert_verified(&place.archive());
    }
}

#[test]
fn a_ring_that_goes_away_under_the_driver_ends_it_in_order() {
    type Deed = fn(&Path);
    let deeds: [(&str, Deed); 5] = [
        ("removed", |ring| std::fs::remove_file(ring).unwrap()),
        ("replaced", |ring| {
            let other = ring.with_extension("other");
            std::fs::write(&other, vec![0; 1 << 20]).unwrap();
            std::fs::rename(other, ring).unwrap();
        }),
        ("truncated", |ring| truncate(ring, 0)),
        ("truncated", |ring| truncate(ring, 1 << 19)),
        ("truncated", |ring| truncate(&registers(ring), 0)),
    ];
    for (how, deed) in deeds {
        let place = Place::new();
        let mut camera = place.camera(&format!("{PICTURES} --fps 200"));
        place.has_ring(&mut camera);
        let mut driver = place.driver("");
        driver.waits("archiving", || place.archived() >= 3);
        // A camera that writes into a truncated ring would die of it, and be what is missed.
        camera.freeze();
        deed(&place.ring);
        driver.end().refused(1, &[how, "ring: the ring was", "start again"]);
        assert_verified(&place.archive());
    }
}

fn truncate(path: &Path, bytes: u64) {
    let file = std::fs::OpenOptions::new().write(true).open(path).expect("the ring");
    file.set_len(bytes).expect("a size");
}

#[test]
fn a_ring_that_a_camera_left_behind_is_read_on_demand_only() {
    let place = Place::new();
    place.camera(&format!("{PICTURES} --virtual-time --frames 20")).end().with_code(0);
    let driver = place.driver("--timeout 0.1").end();
    assert_eq!(driver.code, Some(1), "{driver:?}");
    assert!(driver.stderr.contains("--from oldest"), "{driver:?}");
    assert!(!place.archive().exists(), "nothing was begun");
    let held = assert_read_to_the_end(&place, place.driver("--from oldest").end(), true);
    assert_eq!(held.len(), 20);
}

#[test]
fn one_ring_has_one_camera() {
    let place = Place::new();
    let mut camera = place.camera(PICTURES);
    place.has_ring(&mut camera);
    let ring = place.ring.display();
    let second = crate::util::ends(&format!("emulate --ring {ring} {PICTURES} --frames 1"));
    second.refused(5, &["another camera writes this ring"]);
    camera.interrupt().with_code(0);
}
