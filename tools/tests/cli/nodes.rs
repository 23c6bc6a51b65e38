//! `circbuf exec --channels`: several nodes, and programs that have more than one of them open.

use serde_json::Value;

use crate::exec::{LIVELY, compile, conforms, runs, text};
use crate::util::{assert_verified, disk_dir, ends, hold_against_ledger, json, number};

/// Two cameras that a loaded machine can follow: a pointer is looked at in time within 0.4 s.
const TWO: &str = "--channels 2 --ring-bytes 1MiB --bus-mb-s 2 --seed 5 --source noise:2000-30000 \
                   --fps 20 --delay 1s";

#[test]
fn one_driver_reads_two_nodes_and_both_books_close_against_both_ledgers() {
    let dir = disk_dir();
    let name = |name: &str| dir.path().join(name).display().to_string();
    let driver = format!(
        "run --device /dev/circbuf0 --device /dev/circbuf1 --bus-mb-s-max 2 --timeout 3 --json \
         --arch-policy every --durability none --archive {}",
        name("a")
    );
    let program: Vec<&str> =
        [env!("CARGO_BIN_EXE_circbuf")].into_iter().chain(driver.split(' ')).collect();
    let ended = runs(&format!("{TWO} --frames 60 --ledger {}", name("ledger")), &program);
    // A node cannot say that its camera has ended: no frame comes any more.
    let books = ended.with_code(1).json();
    std::fs::write(name("books"), books.to_string()).expect("room for a file");
    assert_eq!(books["closes"], true, "{books:#}");
    let channels = books["channels"].as_array().expect("a list");
    assert_eq!(channels.len(), 2, "{books:#}");
    for (n, channel) in channels.iter().enumerate() {
        assert_eq!(channel["device"], format!("/dev/circbuf{n}"), "{channel:#}");
        assert_eq!((&channel["closes"], &channel["ended_by"]), (&true.into(), &"silence".into()));
        assert_eq!(number(channel, "ring.passed"), 60, "{channel:#}");
        let (archive, ledger) = (dir.path().join(format!("a/channel{n}")), format!("ledger{n}"));
        let held = hold_against_ledger(&archive, &dir.path().join(&ledger), false);
        assert_eq!(held, (0..60).collect::<Vec<_>>());
        assert_eq!(number(&assert_verified(&archive), "frames"), 60);
        let verdict = verify(&name(&ledger), &archive.display().to_string(), &name("books"), n);
        assert_eq!(number(&verdict, "delivered_good"), 60, "{verdict:#}");
    }
}

fn verify(ledger: &str, archive: &str, books: &str, channel: usize) -> Value {
    json(&format!(
        "verify --ledger {ledger} --archive {archive} --books {books} --channel {channel} --json"
    ))
}

#[test]
fn the_last_of_four_nodes_conforms() {
    let dir = disk_dir();
    let program = compile(dir.path(), "node_conformance", &[]);
    let program = [text(&program), "-t", "30", "/dev/circbuf3", "/dev/jpeghead3"];
    let line = format!("--channels 4 --model nc393 {LIVELY}");
    let ended = runs(&line, &program);
    conforms(&ended, "empty ring");
    assert!(ended.stdout.contains("# /dev/circbuf3: nc393"), "{ended:#?}");
}

#[test]
fn every_node_is_a_device_of_its_own() {
    let script = "stat -c %t:%T /dev/circbuf1 /dev/circbuf2 /dev/jpeghead2; \
                  test -e /dev/circbuf3 || echo none";
    let ended = runs("--channels 3 --model nc393", &["sh", "-c", script]).with_code(0);
    assert_eq!(ended.stdout, "87:21\n87:22\n87:32\nnone\n", "{ended:#?}");
}

/// A driver that stands still for longer than it may not look.
const STANDS_STILL: &str = r#"
"$@" 2> "$0" & driver=$!
until grep -q 'looked at every' "$0"; do sleep 0.01; done
for again in 1 2 3 4 5; do sleep 0.2; kill -STOP $driver; sleep 0.3; kill -CONT $driver; done
wait $driver
"#;

#[test]
fn who_looks_too_late_is_told_so_and_what_mends_it() {
    let dir = disk_dir();
    let log = dir.path().join("log");
    let driver = "run --device /dev/circbuf0 --bus-mb-s-max 20 --frames 80";
    let mut program = vec!["sh", "-c", STANDS_STILL, text(&log), env!("CARGO_BIN_EXE_circbuf")];
    program.extend(driver.split(' '));
    let line = "--ring-bytes 1MiB --bus-mb-s 20 --source noise:1000-3000 --fps 50";
    let ended = runs(line, &program).with_code(0);
    for told in ["looked at too late", "26.21 ms", "--bus-mb-s-max", "is estimated"] {
        assert!(ended.stdout.contains(told), "{told}: {ended:#?}");
    }
    assert!(!ended.stdout.contains("no counters"), "{ended:#?}");
}

/// The camera's bus is believed to be so fast that nobody looks in time.
#[test]
fn a_node_that_takes_a_look_all_the_time_says_what_gives_it_more() {
    let circbuf = env!("CARGO_BIN_EXE_circbuf");
    let program = [circbuf, "run", "--device", "/dev/circbuf0", "--timeout", "1"];
    let line = "--ring-bytes 4KiB --source noise:100-300 --fps 50";
    let ended = runs(line, &program).with_code(1);
    for told in ["looked at every 1.7 us", "--max-frame-bytes", "too late", "--bus-mb-s-max"] {
        assert!(ended.stderr.contains(told), "{told}: {ended:#?}");
    }
}

#[test]
fn the_two_names_of_a_353s_node_are_one_ring() {
    let circbuf = env!("CARGO_BIN_EXE_circbuf");
    let program = [circbuf, "run", "--device", "/dev/circbuf0", "--device", "/dev/circbuf"];
    let ended = runs("--model nc353", &program).with_code(2);
    let told = "--device /dev/circbuf is the same ring as --device /dev/circbuf0";
    assert!(ended.stderr.contains(told), "{ended:#?}");
}

#[test]
fn what_is_no_node_cannot_be_held_against_one() {
    let dir = disk_dir();
    let program = compile(dir.path(), "node_conformance", &[]);
    let cases =
        [("/dev/null", "no ring"), ("/no/such", "No such file"), (text(&program), "no character")];
    for (path, told) in cases {
        let mut command = std::process::Command::new(&program);
        command.arg(path);
        let ended = crate::util::Running::start(command).end().with_code(2);
        assert!(ended.stderr.contains(told) && ended.stderr.contains("/dev/circbuf0"), "{ended:?}");
    }
}

#[test]
fn a_353_has_one_node() {
    let refused = |line: &str| ends(line).refused(2, &["--channels 2", "--model nc393"]);
    refused("exec --channels 2 -- true");
    refused("exec --channels 2 --model nc353 --ring-bytes 1MiB -- true");
}
