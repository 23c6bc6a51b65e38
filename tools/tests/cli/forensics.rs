//! `dump --check` on saved rings: held against the ledger of the camera that wrote them.

use std::fs;
use std::path::{Path, PathBuf};

use circbuf_emulator::fault::FaultKind;
use circbuf_emulator::ledger::LedgerEntry;
use serde_json::Value;
use tempfile::TempDir;

use crate::util::{Ended, at, ends, number, read_ledger, registers, ring_dir};

const SIZES: [&str; 3] = ["noise:17-900", "noise:2000-9000", "noise:500-500"];

/// A ring that a camera has left.
struct Left {
    _dir: TempDir,
    ring: PathBuf,
    ring_bytes: u64,
    ledger: Vec<LedgerEntry>,
}

fn padded(length: u32) -> u64 {
    // As the FPGA emits it: four zeros and a trailer of twelve bytes fill the last chunk.
    (u64::from(length) + 16).next_multiple_of(32)
}

impl Left {
    fn by(options: &str) -> Left {
        let dir = ring_dir();
        let (ring, ledger) = (dir.path().join("ring"), dir.path().join("ledger"));
        let files = format!("--ring {} --ledger {}", ring.display(), ledger.display());
        ends(&format!("emulate {files} --virtual-time {options}")).with_code(0);
        let ring_bytes = fs::metadata(&ring).expect("the ring stays").len();
        let ledger = read_ledger(&ledger);
        Left { _dir: dir, ring, ring_bytes, ledger }
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(&self.ring).expect("the ring stays")
    }

    fn write(&self, bytes: &[u8]) {
        fs::write(&self.ring, bytes).expect("room for it");
    }

    fn forget_registers(&self) {
        fs::remove_file(registers(&self.ring)).expect("it stands beside");
    }

    /// Behind the gap of the last frame.
    fn end(&self) -> u64 {
        self.ledger.last().map_or(0, |last| last.start + padded(last.length) + 32)
    }

    fn stands(&self, entry: &LedgerEntry) -> bool {
        entry.start + self.ring_bytes >= self.end() + 32
    }

    /// The frame of the ledger that an object of the report means.
    fn entry(&self, frame: &Value) -> Option<&LedgerEntry> {
        let time = (frame["sec"].as_u64()?, frame["usec"].as_u64()?);
        self.ledger.iter().find(|e| (u64::from(e.sec), u64::from(e.usec)) == time)
    }
}

fn check(ring: &Path, options: &str) -> Ended {
    ends(&format!("dump --check --json {} {options}", ring.display()))
}

/// The stretches of a report, which cover all of the ring, and none of it twice.
fn stretches(report: &Value) -> Vec<Value> {
    let ring_bytes = number(report, "ring_bytes");
    let stretches = at(report, "stretches").as_array().expect("a list").clone();
    let mut next = number(&stretches[0], "start");
    for stretch in &stretches {
        let [start, end, bytes] = ["start", "end", "bytes"].map(|name| number(stretch, name));
        assert_eq!(start, next, "{stretch:#}");
        assert_eq!((start + bytes) % ring_bytes, end % ring_bytes, "{stretch:#}");
        assert_eq!(stretch["wraps"], start + bytes > ring_bytes, "{stretch:#}");
        next = start + bytes;
    }
    assert_eq!(next - number(&stretches[0], "start"), ring_bytes, "{report:#}");
    let sums = at(report, "sums").as_object().expect("a table").values();
    assert_eq!(sums.map(|sum| number(sum, "bytes")).sum::<u64>(), ring_bytes);
    stretches
}

fn of<'a>(stretches: &'a [Value], verdict: &str) -> Vec<&'a Value> {
    stretches.iter().filter(|stretch| stretch["verdict"] == verdict).collect()
}

/// Every frame that stands is reported, where and what it is; and nothing else is whole.
fn hold_whole(left: &Left, stretches: &[Value], verdict: &str, numbered: bool) {
    let mut standing: Vec<u64> = Vec::new();
    for stretch in of(stretches, "whole").iter().chain(&of(stretches, "header missing")) {
        let frame = &stretch["frame"];
        let entry = left.entry(frame).expect("a frame of the ledger");
        assert_eq!(stretch["verdict"], verdict, "{stretch:#}");
        let told = [number(frame, "start"), number(frame, "length"), number(stretch, "bytes")];
        let length = u64::from(entry.length);
        assert_eq!(told, [entry.offset, length, padded(entry.length) + 32], "{entry:?}");
        let slot = (entry.offset + left.ring_bytes - 32) % left.ring_bytes;
        assert_eq!(number(stretch, "start"), slot, "{entry:?}");
        let sequence = numbered.then_some(entry.number);
        assert_eq!(frame["sequence"].as_u64(), sequence, "{entry:?}");
        standing.push(entry.number);
    }
    standing.sort_unstable();
    let stands = left.ledger.iter().filter(|entry| left.stands(entry));
    let expected: Vec<u64> = stands.map(|entry| entry.number).collect();
    if numbered {
        assert_eq!(standing, expected);
        return;
    }
    // Without counters, one whose slot alone was given up is as good as whole, and nothing vouches for
    // the oldest of a bare ring if the trailer in front of it stands where a gap belongs.
    let (whole, expected) = (standing.as_slice(), expected.as_slice());
    let is_excess = whole.split_first().is_some_and(|(first, rest)| {
        rest == expected && expected.first().is_none_or(|&oldest| first + 1 == oldest)
    });
    let is_short = verdict != "whole" && expected.split_first().is_some_and(|(_, r)| r == whole);
    assert!(whole == expected || is_excess || is_short, "{whole:?} {expected:?}");
}

/// What is left of others is of frames that were overwritten, by whoever is said to have done it.
fn hold_remains(left: &Left, stretches: &[Value], may_miss_oldest: bool) {
    let oldest = left.ledger.iter().find(|entry| left.stands(entry)).map(|entry| entry.number);
    for stretch in of(stretches, "torn").iter().chain(&of(stretches, "stale")) {
        let entry = left.entry(&stretch["frame"]).expect("a frame of the ledger");
        if may_miss_oldest && Some(entry.number) == oldest {
            continue;
        }
        assert!(!left.stands(entry), "{stretch:#}");
        let by = &stretch["overwritten_by"];
        assert_eq!(by["who"], "frame", "{stretch:#}");
        let by = left.entry(by).expect("a frame of the ledger");
        assert_eq!(by.offset, number(stretch, "overwritten_by.start"));
        let [slot, end] = [by.start - 32, by.start + padded(by.length) + 32];
        let later = entry.start + left.ring_bytes;
        assert!(slot < later + padded(entry.length) && later - 32 < end, "{entry:?} {by:?}");
        // All that is behind the last frame, up to the end of this one.
        let expected = later + padded(entry.length) - left.end();
        assert!([0, 32].contains(&(number(stretch, "bytes") - expected)), "{stretch:#} {entry:?}");
    }
}

#[test]
fn every_stretch_agrees_with_the_ledger() {
    let mut seed = 0;
    for gap in ["zero", "late", "skip"] {
        for bare in ["", "--bare"] {
            for (sizes, frames) in SIZES.iter().flat_map(|s| [1, 5, 23, 150, 700].map(|f| (s, f))) {
                seed += 1;
                let shape = format!(
                    "--source {sizes} --frames {frames} --seed {seed} --gap {gap} {bare} \
                     --ring-bytes 64KiB"
                );
                println!("{shape}");
                let left = Left::by(&shape);
                let verdict = if bare.is_empty() { "whole" } else { "header missing" };
                for numbered in [true, false] {
                    let report = check(&left.ring, "").with_code(0).json();
                    assert_eq!(
                        (&report["corrupt"], &report["ring_bytes_told"]),
                        (&Value::from(0), &Value::from(numbered))
                    );
                    let stretches = stretches(&report);
                    hold_whole(&left, &stretches, verdict, numbered);
                    hold_remains(&left, &stretches, !numbered && !bare.is_empty());
                    let rest = ["unfinished", "garbage", "missing"];
                    assert!(rest.iter().all(|verdict| of(&stretches, verdict).is_empty()));
                    let is_used_up = left.end() > left.ring_bytes;
                    assert!(!is_used_up || of(&stretches, "never used").is_empty(), "{report:#}");
                    if numbered {
                        left.forget_registers();
                    }
                }
            }
        }
    }
}

#[test]
fn a_ring_that_nobody_used_is_one_stretch_and_clean() {
    let dir = ring_dir();
    let ring = dir.path().join("ring");
    fs::write(&ring, vec![0; 8192]).unwrap();
    let ended = ends(&format!("dump --check {}", ring.display())).with_code(0);
    assert!(ended.stdout.contains("0x0000..0x2000       8192"), "{ended:#?}");
    assert!(ended.stdout.contains("1 never used (8192 bytes); 0 corrupt"), "{ended:#?}");
    assert!(ended.stdout.contains("cannot be told from a smaller one"), "{ended:#?}");
    let report = check(&ring, "").with_code(0).json();
    assert_eq!(of(&stretches(&report), "never used").len(), 1);
}

#[test]
fn a_ring_cut_anywhere_is_judged_up_to_the_cut() {
    let shape = "--source noise:17-900 --frames 300 --seed 7 --ring-bytes 64KiB";
    for bare in ["", "--bare"] {
        let left = Left::by(&format!("{shape} {bare}"));
        let whole = left.bytes();
        let page = fs::read(registers(&left.ring)).unwrap();
        for cut in (97..whole.len()).step_by(3001).chain([4096, 32768, 65504]) {
            println!("{bare} cut at {cut}");
            left.write(&whole[..cut]);
            fs::write(registers(&left.ring), &page).unwrap();
            let told = check(&left.ring, "").with_code(0);
            left.forget_registers();
            let by_option = check(&left.ring, "--ring-bytes 64KiB").with_code(0);
            for (ended, has_page) in [(told, true), (by_option, false)] {
                let report = ended.json();
                assert_eq!(number(&report, "missing_bytes"), (whole.len() - cut) as u64);
                hold_cut(&left, &stretches(&report), cut as u64, has_page);
            }
            let unknown = ends(&format!("dump --check {}", left.ring.display())).with_code(0);
            let word = if cut % 4096 == 0 { "size is not told" } else { "file was cut: at least" };
            assert!(unknown.stdout.contains(word), "{unknown:#?}");
        }
    }
}

/// Whole are just those frames that stand and of which nothing is missing, except for the header.
fn hold_cut(left: &Left, stretches: &[Value], cut: u64, has_page: bool) {
    let [missing] = of(stretches, "missing")[..] else { panic!("{stretches:#?}") };
    assert_eq!((number(missing, "start"), number(missing, "end")), (cut, left.ring_bytes));
    let sound = of(stretches, "whole").into_iter().chain(of(stretches, "header missing"));
    let mut sound: Vec<u64> =
        sound.map(|stretch| left.entry(&stretch["frame"]).expect("a frame").number).collect();
    sound.sort_unstable();
    let is_there = |e: &&LedgerEntry| left.stands(e) && e.offset + padded(e.length) <= cut;
    let expected: Vec<u64> = left.ledger.iter().filter(is_there).map(|e| e.number).collect();
    assert!(expected == sound || !has_page && sound.ends_with(&expected), "{sound:?} {expected:?}");
    let cut_off = stretches.iter().filter(|s| s["overwritten_by"]["who"] == "cut");
    assert!(cut_off.count() <= 2, "{stretches:#?}");
}

#[test]
fn damage_is_corruption_and_never_whole() {
    for (bare, seed) in [("", 1), ("--bare", 2), ("--gap skip", 3), ("--gap late --bare", 4)] {
        let shape = format!("--source noise:100-900 --frames 300 --seed {seed} {bare}");
        let left = Left::by(&format!("{shape} --ring-bytes 64KiB"));
        let good = left.bytes();
        let standing: Vec<_> = left.ledger.iter().filter(|entry| left.stands(entry)).collect();
        for entry in standing.iter().skip(2).take(standing.len() - 4).step_by(7) {
            let last = entry.offset + padded(entry.length) - 12;
            let amid = (entry.offset + 40) / 32 * 32 + 5;
            let pokes: [(&str, u64, &[u8]); 5] = [
                ("signature", amid, &[0xFF, 0xFF]),
                ("microseconds", last + 4, &[0xFF, 0xFF, 0xFF, 0xFF]),
                ("length", last + 8, &[0, 0, 0]),
                ("longer", last + 8, &(entry.length + 64).to_le_bytes()[..3]),
                ("marker", last + 11, &[0xFE]),
            ];
            for (what, at, poke) in pokes {
                println!("{what} of {entry:?}, {shape}");
                let mut bytes = good.clone();
                for (at, byte) in (at..).zip(poke) {
                    bytes[(at % left.ring_bytes) as usize] = *byte;
                }
                left.write(&bytes);
                let report = check(&left.ring, "").with_code(4).json();
                hold_damage(&left, entry, &stretches(&report));
            }
        }
    }
}

fn hold_damage(left: &Left, damaged: &LedgerEntry, stretches: &[Value]) {
    let sound = of(stretches, "whole").into_iter().chain(of(stretches, "header missing"));
    let mut whole: Vec<u64> = sound
        .map(|stretch| {
            let entry = left.entry(&stretch["frame"]).expect("a frame of the ledger");
            assert_eq!(number(&stretch["frame"], "start"), entry.offset);
            entry.number
        })
        .collect();
    whole.sort_unstable();
    let others = left.ledger.iter().filter(|e| left.stands(e) && e.number != damaged.number);
    let others: Vec<u64> = others.map(|entry| entry.number).collect();
    assert!(!whole.contains(&damaged.number));
    assert_eq!(whole, others);
}

#[test]
fn garbage_is_corruption() {
    let dir = ring_dir();
    let ring = dir.path().join("ring");
    let noise: Vec<u8> = (0u64..65536).map(|at| (at * at / 7 + at) as u8 | 1).collect();
    fs::write(&ring, noise).unwrap();
    let ended = ends(&format!("dump --check {}", ring.display())).with_code(4);
    assert!(ended.stdout.contains("garbage (nothing explains this)"), "{ended:#?}");
}

#[test]
fn a_size_that_cannot_be_is_wrong_usage() {
    let left = Left::by("--source noise:17-900 --frames 30 --ring-bytes 64KiB");
    let refused = |options: &str, words: &[&str]| check(&left.ring, options).refused(2, words);
    refused("--ring-bytes 32KiB", &["--ring-bytes 32768", "the file has 65536 bytes"]);
    refused("--ring-bytes 65540", &["multiple of 4096"]);
    refused("--ring-bytes 8GiB", &["at most 1073741824"]);
    refused("--ring-bytes 128KiB", &["register page", "65536"]);
    refused("--ring-bytes x", &["'x'", "unknown unit"]);
    check(&left.ring, "--ring-bytes 64KiB").with_code(0);
    fs::write(&left.ring, [0; 63]).unwrap();
    check(&left.ring, "").refused(5, &["63 bytes are no ring"]);
}

/// What the camera did to a frame on purpose, and the frames before and behind.
struct Struck<'a> {
    left: &'a Left,
    bare: bool,
    shape: &'a str,
}

impl Struck<'_> {
    /// Frames that are said to be whole, by their place: where a frame of the ledger stands that was
    /// not overwritten, with its length, and not damaged unless nobody can tell.
    fn hold(&self, report: &Value, has_counters: bool) -> usize {
        let stretches = stretches(report);
        let mut missed: Vec<&LedgerEntry> = self.standing().filter(|e| !e.damaged).collect();
        for stretch in of(&stretches, "whole").iter().chain(&of(&stretches, "header missing")) {
            let frame = &stretch["frame"];
            let start = number(frame, "start");
            let entry = self.standing().find(|entry| entry.offset == start);
            let Some(entry) = entry else {
                assert!(!has_counters, "{}: overwritten: {stretch:#}", self.shape);
                continue;
            };
            let is_bad = entry.damaged && !entry.undetectable;
            assert!(!is_bad || self.is_header_lost(entry, stretch), "{}: {entry:?}", self.shape);
            assert!(is_bad || u64::from(entry.length) == number(frame, "length"), "{entry:?}");
            missed.retain(|other| other.number != entry.number);
        }
        missed.len()
    }

    /// The frame is as the camera meant it, and the report says what is not there.
    fn is_header_lost(&self, entry: &LedgerEntry, stretch: &Value) -> bool {
        let names = ["header-clobbered", "irq-lost", "irq-coalesced", "bit-flip"];
        let is_about_header = entry.faults.iter().any(|kind| names.contains(&kind.name()));
        !self.bare && is_about_header && stretch["verdict"] == "header missing"
    }

    fn standing(&self) -> impl Iterator<Item = &LedgerEntry> {
        let epoch = self.left.ledger.last().map_or(0, |last| last.epoch);
        self.left.ledger.iter().filter(move |e| e.epoch == epoch && self.left.stands(e))
    }
}

/// Many faults of one kind, or some of all that neither last for laps nor empty the ring.
fn faults(kinds: &[FaultKind], seed: u64) -> String {
    let rest = [FaultKind::Sprint, FaultKind::AlignedLap, FaultKind::Restart];
    let (when, kinds): (_, Vec<_>) = match kinds {
        [kind] => ("every = 7", vec![kind]),
        all => ("rate = 0.03", all.iter().filter(|kind| !rest.contains(kind)).collect()),
    };
    let each = kinds.iter().map(|kind| format!("[[fault]]\nkind = \"{kind}\"\n{when}\n"));
    format!("seed = {seed}\n{}", each.collect::<String>())
}

#[expect(clippy::print_stdout, reason = "shown only if what follows fails")]
fn hold_struck(kinds: &[FaultKind], seed: u64, sizes: &str, bare: &str) -> usize {
    let dir = ring_dir();
    let file = dir.path().join("faults.toml");
    fs::write(&file, faults(kinds, seed)).expect("room for it");
    let shape = format!("--source {sizes} --frames 400 --seed {seed} {bare} --ring-bytes 64KiB");
    let left = Left::by(&format!("{shape} --faults {}", file.display()));
    let shape = format!("{kinds:?} {shape}");
    let struck = Struck { left: &left, bare: !bare.is_empty(), shape: &shape };
    let missed = struck.hold(&check(&left.ring, "").json(), true);
    let count = struck.standing().filter(|entry| entry.faults.iter().next().is_some()).count();
    println!("{shape}: {count} struck, {missed} good ones missed");
    assert!(missed <= count, "{shape}: {missed} of good frames are not whole");
    left.forget_registers();
    struck.hold(&check(&left.ring, "").json(), false);
    struck.standing().filter(|entry| entry.damaged && !entry.undetectable).count()
}

#[test]
fn no_damaged_or_overwritten_frame_is_whole_whatever_the_camera_did() {
    let all = FaultKind::ALL;
    let each = all.iter().map(|kind| vec![*kind]).chain([all.to_vec()]);
    for (kinds, seed) in each.zip(1..) {
        let mut damaged = 0;
        for sizes in ["noise:17-900", "noise:500-500", "noise:1-60"] {
            damaged += hold_struck(&kinds, seed, sizes, "");
            let kinds: Vec<_> =
                kinds.iter().copied().filter(|kind| !kind.needs_handler()).collect();
            if !kinds.is_empty() {
                hold_struck(&kinds, seed, sizes, "--bare");
            }
        }
        use FaultKind::{
            Aborted, BadTrailer, BitFlip, HeaderClobbered, IrqLost, NoTrailer, Unescaped,
        };
        let damages =
            [Aborted, BadTrailer, BitFlip, HeaderClobbered, IrqLost, NoTrailer, Unescaped];
        assert!(damaged > 0 || !damages.contains(&kinds[0]) && kinds.len() == 1, "{kinds:?}");
    }
}
