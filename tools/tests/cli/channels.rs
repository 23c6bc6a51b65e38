//! Several channels: one camera process with several rings, and one driver process for several devices.

use std::fs;
use std::path::{Path, PathBuf};

use circbuf_abi::registers::{FRAMES, WRITTEN};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::util::{
    Running, SMALL, assert_verified, at, circbuf, disk_dir, ends, hold_against_ledger,
    index_entries, json, number, read_ledger, register, ring_dir,
};

const PICTURES: &str = "--source synthetic:4 --width 160 --height 120 --ring-bytes 1MiB";

/// A folder for rings, ledgers and archives.
struct Place(TempDir);

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn name(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// `--device` for rings of these names.
    fn devices(&self, names: &[&str]) -> String {
        let devices = names.iter().map(|name| format!("--device {}", self.name(name)));
        devices.collect::<Vec<_>>().join(" ")
    }

    fn driver(&self, devices: &[&str], options: &str) -> Running {
        Running::circbuf(&format!(
            "run {} --json --arch-policy every --durability interval=1 --archive {} {options}",
            self.devices(devices),
            self.name("a")
        ))
    }

    fn camera(&self, name: &str, options: &str) -> Running {
        let (ring, ledger) = (self.path(name), self.name(&format!("ledger-{name}")));
        let line = format!("emulate --ring {} --ledger {ledger} {options}", ring.display());
        let mut camera = Running::circbuf(&line);
        camera.waits("making its ring", || ring.exists());
        camera
    }

    fn archive(&self, channel: usize) -> PathBuf {
        self.path("a").join(format!("channel{channel}"))
    }

    fn archived(&self, channel: usize) -> usize {
        index_entries(&self.archive(channel)).len()
    }
}

fn channels(books: &Value) -> &Vec<Value> {
    assert_eq!(books["schema"], "circbuf.channels/1", "{books:#}");
    books["channels"].as_array().expect("a list")
}

/// Every frame that the books say was archived is in the archive as in the ledger.
fn assert_archived(books: &Value, archive: &Path, ledger: &Path) -> Vec<u64> {
    let held = hold_against_ledger(archive, ledger, true);
    assert_eq!(number(books, "consumers.arch.delivered"), held.len() as u64, "{books:#}");
    let report = assert_verified(archive);
    assert_eq!(number(&report, "frames"), held.len() as u64, "{report:#}");
    held
}

#[test]
fn four_embedded_channels_have_books_archives_and_ledgers_of_their_own() {
    let place = Place(disk_dir());
    let line = format!(
        "run --channels 4 {PICTURES} --virtual-time --lossless --frames 50 --json --proc decode={} \
         --arch-policy every --archive {} --ledger {} --seed 7",
        place.name("measures"),
        place.name("a"),
        place.name("ledger.jsonl")
    );
    let books = json(&line);
    assert_eq!(books["closes"], true);
    for path in ["ring.passed", "consumers.proc.delivered", "consumers.arch.delivered"] {
        assert_eq!(number(&books, &format!("sums.{path}")), 200, "{books:#}");
    }
    let mut sums = Vec::new();
    for (n, channel) in channels(&books).iter().enumerate() {
        assert_eq!((number(channel, "channel"), &channel["device"]), (n as u64, &"emu:".into()));
        assert_eq!(channel["schema"], "circbuf.stats/1");
        assert_eq!((&channel["closes"], &channel["ended_by"]), (&true.into(), &"camera".into()));
        assert_eq!(number(channel, "decoded.frames"), 50);
        let ledger = place.path(&format!("ledger{n}.jsonl"));
        assert_archived(channel, &place.archive(n), &ledger);
        sums.push(read_ledger(&ledger).iter().map(|entry| u64::from(entry.crc32c)).sum::<u64>());
        fs::write(place.path("books"), books.to_string()).unwrap();
        let verify = format!(
            "verify --ledger {} --archive {} --books {} --channel {n} --json",
            ledger.display(),
            place.archive(n).display(),
            place.name("books")
        );
        assert_eq!(number(&json(&verify), "delivered_good"), 50);
    }
    let all = json(&format!("archive verify {} --json", place.name("a")));
    let of: Vec<_> = all["channels"].as_array().expect("a list").iter().collect();
    assert_eq!((&all["clean"], of.len()), (&true.into(), 4), "{all:#}");
    assert!(of.iter().all(|channel| number(channel, "frames") == 50), "{all:#}");
    let told = ends(&format!("archive verify {}", place.name("a"))).with_code(0).stdout;
    assert!(told.contains("channel 3: 50 frames"), "{told}");
    for command in ["ls", "recover"] {
        let ended = ends(&format!("archive {command} {}", place.name("a")));
        ended.refused(1, &["4 channels", "a/channel0", "a/channel3"]);
    }
    sums.sort_unstable();
    sums.dedup();
    assert_eq!(sums.len(), 4, "the seeds differ, and so do the pictures");
    let measures = fs::read_to_string(place.path("measures")).unwrap();
    let of = |n: u64| {
        let lines = measures.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["channel"] == n).count()
    };
    assert_eq!([of(0), of(1), of(2), of(3)], [50; 4]);
}

#[test]
fn one_driver_reads_the_four_rings_of_one_camera_in_either_order() {
    for camera_first in [true, false] {
        let place = Place(ring_dir());
        let camera = || {
            Running::circbuf(&format!(
                "emulate --ring {} --ledger {} --channels 4 {PICTURES} --fps 100 --frames 60",
                place.name("ring"),
                place.name("ledger")
            ))
        };
        let names = ["ring0", "ring1", "ring2", "ring3"];
        let (camera, driver) = if camera_first {
            let mut camera = camera();
            camera.waits("making its rings", || place.path("ring3").exists());
            (camera, place.driver(&names, "--from oldest"))
        } else {
            let mut driver = place.driver(&names, "");
            driver.says("ring3: there is no such ring yet; waiting");
            (camera(), driver)
        };
        let camera = camera.end().with_code(0);
        assert!(camera.stderr.contains("channel 3: camera ended after 60 frames"), "{camera:?}");
        let books = driver.end().with_code(0).json();
        assert_eq!((&books["closes"], number(&books, "sums.ring.passed")), (&true.into(), 240));
        for (n, channel) in channels(&books).iter().enumerate() {
            assert_eq!(channel["device"], place.name(names[n]).as_str());
            assert_eq!(channel["ended_by"], "camera");
            let ledger = place.path(&format!("ledger{n}"));
            assert_eq!(assert_archived(channel, &place.archive(n), &ledger).len(), 60);
        }
    }
}

/// The driver stands still for so long that one ring is overwritten and the others are not.
#[test]
fn one_channel_is_overrun_and_the_others_lose_nothing() {
    const RING: u64 = 64 << 10;
    let place = Place(ring_dir());
    let slow = format!("{PICTURES} --fps 20");
    let small =
        format!("--source noise:500-3000 --ring-bytes {RING} --fps 1000 --bus-mb-s unlimited");
    let mut busy = place.camera("busy", &small);
    let others = [place.camera("one", &slow), place.camera("two", &slow)];
    let mut driver = place.driver(&["one", "busy", "two"], "");
    driver.waits("archiving", || (0..3).all(|channel| place.archived(channel) >= 5));
    driver.freeze();
    let written = register(&place.path("busy"), WRITTEN);
    busy.waits("two laps", || register(&place.path("busy"), WRITTEN) > written + 2 * RING);
    driver.signal(Signal::SIGCONT);
    let before = place.archived(1);
    driver.waits("archiving", || place.archived(1) > before + 20);
    busy.interrupt().with_code(0);
    for camera in others {
        camera.interrupt().with_code(0);
    }
    let books = driver.end().with_code(0).json();
    let [one, busy, two] = &channels(&books)[..] else { panic!("three: {books:#}") };
    assert_eq!(books["closes"], true);
    let overrun = number(busy, "ring.lost.overrun");
    assert!(overrun > 0, "{busy:#}");
    assert_eq!(number(&books, "sums.ring.lost.overrun"), overrun);
    for (n, (channel, name)) in [(one, "one"), (busy, "busy"), (two, "two")].iter().enumerate() {
        let held =
            assert_archived(channel, &place.archive(n), &place.path(&format!("ledger-{name}")));
        assert_eq!(
            (&channel["closes"], at(channel, "ring.lost_is")),
            (&true.into(), &"exact".into())
        );
        let lost = ["ring.lost.overrun", "ring.lost.torn", "consumers.arch.lost.queue_full"];
        let lost: u64 = lost.iter().map(|path| number(channel, path)).sum();
        assert_eq!(lost > 0, *name == "busy", "{channel:#}");
        assert_eq!(number(channel, "ring.frames_expected"), held.len() as u64 + lost);
    }
}

#[test]
fn a_camera_that_is_killed_ends_its_channel_alone() {
    let place = Place(ring_dir());
    let mut killed = place.camera("killed", &format!("{PICTURES} --fps 200"));
    let mut other = place.camera("other", &format!("{PICTURES} --fps 50"));
    let mut driver = place.driver(&["killed", "other"], "");
    driver.waits("archiving", || (0..2).all(|channel| place.archived(channel) >= 3));
    killed.signal(Signal::SIGKILL);
    killed.waits_for_end();
    let frames = register(&place.path("other"), FRAMES);
    other.waits("going on", || register(&place.path("other"), FRAMES) > frames + 50);
    other.interrupt().with_code(0);
    let ended = driver.end();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("circbuf: channel 0: the camera's process is gone"), "{ended:?}");
    let books = ended.json();
    let [gone, other] = &channels(&books)[..] else { panic!("two: {books:#}") };
    assert_eq!((&gone["ended_by"], &gone["closes"]), (&"abandoned".into(), &true.into()));
    assert_eq!((&other["ended_by"], &other["closes"]), (&"camera".into(), &true.into()));
    assert!(number(other, "ring.passed") > 50);
    assert_eq!(number(other, "ring.lost.overrun"), 0);
    assert_verified(&place.archive(0));
    assert_archived(other, &place.archive(1), &place.path("ledger-other"));
}

#[test]
fn an_interrupt_drains_all_channels_and_a_loss_may_end_all() {
    let place = Place(ring_dir());
    let mut driver = Running::circbuf(&format!(
        "run --channels 3 {PICTURES} --fps 100 --json --arch-policy every --durability interval=1 \
         --archive {}",
        place.name("a")
    ));
    driver.waits("archiving", || (0..3).all(|channel| place.archived(channel) >= 5));
    let books = driver.interrupt().with_code(0).json();
    assert!(channels(&books).iter().all(|channel| channel["ended_by"] == "stop"), "{books:#}");
    assert!(channels(&books).iter().all(|channel| channel["closes"] == true), "{books:#}");

    let faults = "--fault aborted@5 --on-loss stop";
    let ended = ends(&format!("run --channels 2 {PICTURES} --fps 100 --json {faults}"));
    let ended = ended.with_code(3);
    assert!(ended.stderr.contains("circbuf: channel "), "{ended:?}");
    assert!(ended.stderr.contains("--on-loss stop allows none"), "{ended:?}");
    assert_eq!(ended.json()["closes"], true);
}

#[test]
fn frames_are_counted_for_each_device_which_may_be_listed_in_a_file_or_a_variable() {
    let place = Place(ring_dir());
    let (mut one, mut two) = (
        place.camera("one", &format!("{PICTURES} --fps 200")),
        place.camera("two", &format!("{PICTURES} --fps 100")),
    );
    one.waits("writing", || register(&place.path("one"), FRAMES) > 0);
    two.waits("writing", || register(&place.path("two"), FRAMES) > 0);
    let (first, second) = (place.name("one"), place.name("two"));
    let config = place.path("config.toml");
    fs::write(&config, format!("[driver]\ndevice = [\"{first}\", \"{second}\"]\n")).unwrap();
    let mut by_variable = circbuf("run --frames 5 --json");
    by_variable.env("CIRCBUF_DEVICE", format!("{first},{second}"));
    let by_file = circbuf(&format!("run --frames 5 --json --config {}", config.display()));
    for command in [by_variable, by_file] {
        let books = Running::start(command).end().with_code(0).json();
        let passed = channels(&books).iter().map(|channel| number(channel, "ring.passed"));
        assert_eq!(passed.collect::<Vec<_>>(), [5, 5]);
    }
    let table = ends(&format!("run {} --frames 5", place.devices(&["one", "two"]))).with_code(0);
    assert!(table.stdout.contains(&format!("channel 1  {second}\n")), "{table:?}");
    one.interrupt().with_code(0);
    two.interrupt().with_code(0);
}

#[test]
fn damage_in_one_channel_is_told_of_that() {
    let place = Place(disk_dir());
    let line = format!("run --channels 2 {PICTURES} --virtual-time --lossless --frames 5");
    ends(&format!("{line} --arch-policy every --archive {}", place.name("a"))).with_code(0);
    let segment = fs::read_dir(place.archive(1)).unwrap().map(|file| file.unwrap().path());
    let segment = segment.max_by_key(|file| fs::metadata(file).unwrap().len()).unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    bytes[4096 + 200] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let ended = ends(&format!("archive verify {}", place.name("a"))).with_code(4);
    assert!(ended.stdout.starts_with("channel 0: 5 frames"), "{ended:#?}");
    assert!(ended.stdout.contains("\nchannel 1: 4 frames"), "{ended:#?}");
    assert!(ended.stderr.contains("channel1: 2 problems"), "{ended:#?}");
    assert!(!ended.stderr.contains("channel0"), "{ended:#?}");
    fs::read_dir(place.archive(0))
        .unwrap()
        .for_each(|file| fs::remove_file(file.unwrap().path()).unwrap());
    let ended = ends(&format!("archive verify {}", place.name("a"))).with_code(1);
    assert!(ended.stdout.contains("channel 1: 4 frames"), "{ended:#?}");
    assert!(ended.stderr.contains("channel0 is no archive"), "{ended:#?}");
}

#[test]
fn a_ring_is_not_driven_twice_under_two_names() {
    let place = Place(ring_dir());
    ends(&format!("emulate --ring {} {SMALL} --frames 3", place.name("ring"))).with_code(0);
    std::os::unix::fs::symlink(place.path("ring"), place.path("link")).unwrap();
    std::os::unix::fs::symlink(place.path("ring.regs"), place.path("link.regs")).unwrap();
    let folder = place.0.path().file_name().unwrap().to_str().unwrap();
    for other in ["link", "./ring", &format!("../{folder}/ring")] {
        let devices = place.devices(&["ring", other]);
        let ended = ends(&format!("run {devices} --from oldest")).with_code(2);
        assert!(ended.stderr.contains("is the same ring as"), "{ended:#?}");
    }
}

#[test]
fn channels_that_make_no_sense_are_refused() {
    let cases: &[(&str, &[&str])] = &[
        ("--channels 5 --virtual-time --frames 1", &["--channels"]),
        ("--channels 2 --virtual-time --frames 1", &["--channels 2", "nc393"]),
        ("--channels 2 --model nc393 --source y4m:-", &["stdin"]),
        ("--device /nonexistent/a --channels 2", &["--channels", "--device"]),
        ("--device emu: --device /nonexistent/a", &["emu:", "--channels"]),
        ("--device /nonexistent/a --device /nonexistent/a", &["/nonexistent/a is given twice"]),
        ("--device /nonexistent/a --device=", &["--device is empty"]),
    ];
    for (options, words) in cases {
        ends(&format!("run {options}")).refused(2, words);
    }
    ends("run --device /dev/null/a --device /nonexistent/b").refused(5, &["/dev/null/a"]);
}
