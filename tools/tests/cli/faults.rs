//! Faults on demand: what is typed, what is told, and that the camera survives its own faults.

use std::fs;

use circbuf_abi::registers as reg;
use circbuf_emulator::fault::FaultKind;

use crate::util::{
    Running, circbuf, disk_dir, ends, json, number, read_ledger, register, ring_dir,
};

/// A camera that no test waits for.
const QUICK: &str = "--source noise:64-4000 --ring-bytes 64KiB --virtual-time";

#[test]
fn what_cannot_be_injected_is_refused_with_the_reason() {
    let dir = disk_dir();
    let file = dir.path().join("faults.toml");
    let place = file.display();
    let limit = format!("run {QUICK} --frames 1");
    ends(&format!("{limit} --fault rust")).refused(2, &["--fault", "rust", "there are sprint"]);
    ends(&format!("{limit} --fault stall@x")).refused(2, &["--fault", "\"x\" is no frame number"]);
    ends(&format!("{limit} --faults {place}")).refused(2, &["faults.toml", "No such file"]);
    let bare = format!("{limit} --bare --fault irq-lost");
    ends(&bare).refused(2, &["irq-lost is about frame headers", "bare"]);
    ends("run --device /nonexistent/ring --fault stall").refused(2, &["--fault", "--device"]);
    let files: &[(&str, &[&str])] = &[
        ("seed = 1\n\n[[fault]]\nkind = \"rust\"\nevery = 1\n", &["line 4", "rust"]),
        ("[[fault]]\nkind = \"stall\"\n", &["line 1", "stall: when?", "at_s"]),
        ("[[fault]]\nkind = \"stall\"\nrate = 2.0\n", &["line 1", "at most 1"]),
        ("[[fault]]\nkind = \"stall\"\nevery = 5\nonce = 1\n", &["line 4", "once"]),
    ];
    for (text, words) in files {
        fs::write(&file, text).unwrap();
        ends(&format!("{limit} --faults {place}")).refused(2, words);
    }
}

#[test]
fn help_names_every_kind() {
    for line in ["run --help", "emulate --help"] {
        let help = ends(line).with_code(0).stdout;
        let missing = FaultKind::ALL.into_iter().find(|kind| !help.contains(kind.name()));
        assert_eq!(missing, None, "{line}");
    }
}

#[test]
fn what_is_injected_is_told_before_and_after() {
    let dir = disk_dir();
    let (file, config) = (dir.path().join("faults.toml"), dir.path().join("config.toml"));
    fs::write(&file, "seed = 9\n[[fault]]\nkind = \"stall\"\nevery = 4\n").unwrap();
    fs::write(&config, format!("[pace]\nfaults = \"{}\"\n", file.display())).unwrap();
    let run = format!("run {QUICK} --lossless --frames 20");
    let line =
        format!("{run} --config {} --fault time-forward@3 --fault gap-late@5", config.display());
    let ended = ends(&line).with_code(0);
    let told = "note: faults of seed 9: stall every 4 frames; time-forward at 3; gap-late at 5";
    assert!(ended.stderr.lines().any(|line| line == told), "{ended:#?}");
    let told =
        "injected 6 faults in 6 frames (1 time-forward, 4 stall, 1 gap-late): 0 damaged, 0 of them";
    assert!(ended.stdout.contains(told), "{ended:#?}");

    let books = json(&format!("{run} --json --faults {} --fault unescaped@3", file.display()));
    assert_eq!(number(&books, "camera.faults.stall"), 4);
    assert_eq!(number(&books, "camera.faults.unescaped"), 1);
    let counts = ["struck", "damaged", "undetectable"];
    assert_eq!(counts.map(|what| number(&books, &format!("camera.frames_{what}"))), [5, 1, 0]);

    let mut command = circbuf(&format!("{run} --json"));
    command.env("CIRCBUF_FAULTS", &file).env("CIRCBUF_FAULT", "gap-skip@1,gap-skip@2");
    let books = Running::start(command).end().with_code(0).json();
    assert_eq!(number(&books, "camera.faults.gap-skip"), 2);
    assert_eq!(number(&books, "camera.frames_struck"), 6);
    let books = json(&format!("{run} --json"));
    assert_eq!(number(&books, "camera.frames_struck"), 0);
}

/// The camera alone: whatever goes wrong in it, it ends well, and its ledger has every frame.
#[test]
fn a_camera_outlives_all_its_faults_and_says_what_it_did() {
    let dir = ring_dir();
    let (ring, ledger) = (dir.path().join("ring"), dir.path().join("ledger"));
    let files = format!("--ring {} --ledger {}", ring.display(), ledger.display());
    for kind in FaultKind::ALL {
        let faults = format!("--fault {kind}@20,{kind}@70,{kind}@170");
        let ended = ends(&format!("emulate {QUICK} --frames 300 {files} {faults}")).with_code(0);
        let entries = read_ledger(&ledger);
        assert!(entries.iter().enumerate().all(|(at, entry)| entry.number == at as u64));
        assert_eq!((entries.len(), register(&ring, reg::FRAMES)), (300, 300), "{kind}");
        assert_eq!(register(&ring, reg::STATE) as u32, reg::STATE_ENDED, "{kind}");
        let struck = entries.iter().filter(|entry| entry.faults.contains(kind)).count();
        assert!(struck >= 3, "{kind}: {struck}");
        let damaged = entries.iter().filter(|entry| entry.damaged).count();
        let told = format!("faults in {struck} frames (");
        assert!(ended.stderr.contains(&told), "{told}: {ended:#?}");
        assert!(ended.stderr.contains(&format!("): {damaged} damaged")), "{kind}: {ended:#?}");
    }
}

/// With a driver for which the camera waits: whatever the driver makes of it, both come to an end.
#[test]
fn no_fault_hangs_a_lossless_run() {
    let dir = ring_dir();
    for kind in FaultKind::ALL {
        let ledger = dir.path().join(kind.name());
        let line = format!("run {QUICK} --frames 300 --lossless --ledger {}", ledger.display());
        let ended = ends(&format!("{line} --json --fault {kind}@20,{kind}@70,{kind}@170"));
        let frames = number(&ended.json(), "camera.frames");
        assert_eq!(read_ledger(&ledger).len() as u64, frames, "{kind}: {ended:#?}");
    }
}
