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

#[test]
fn a_353_has_one_node() {
    let refused = |line: &str| ends(line).refused(2, &["--channels 2", "--model nc393"]);
    refused("exec --channels 2 -- true");
    refused("exec --channels 2 --model nc353 --ring-bytes 1MiB -- true");
}
