//! Options that make no sense.

use crate::util::{SMALL, disk_dir, ends};

#[test]
fn values_out_of_range_are_refused_with_their_option_and_range() {
    let cases: &[(&str, &[&str])] = &[
        ("--seconds 0", &["--seconds", "above 0"]),
        ("--seconds=-1", &["--seconds", "above 0"]),
        ("--seconds nan", &["--seconds", "above 0"]),
        ("--seconds inf", &["--seconds", "10 years"]),
        ("--seconds 1e300", &["--seconds", "10 years"]),
        ("--seconds soon", &["--seconds", "'soon' is no time"]),
        ("--frames 0", &["--frames", "1.."]),
        ("--frames=-1", &["--frames"]),
        ("--frames 99999999999999999999", &["--frames"]),
        ("--fps 0", &["frame rate of 0", "0.000001"]),
        ("--fps=-1", &["frame rate of -1"]),
        ("--fps nan", &["frame rate of NaN"]),
        ("--fps 1e9", &["frame rate", "1000000"]),
        ("--bus-mb-s 0", &["--bus-mb-s", "unlimited"]),
        ("--width 0", &["0x480", "144x72"]),
        ("--height 0", &["640x0", "144x72"]),
        ("--width 65535 --height 65535", &["65535"]),
        ("--width 70000", &["--width", "65535"]),
        ("--quality 0", &["--quality", "1..=100"]),
        ("--quality 101", &["--quality", "1..=100"]),
        ("--window 5,5", &["window", "smaller"]),
        ("--window nan,1", &["window"]),
        ("--ring-bytes 1048577", &["1048577", "4096"]),
        ("--ring-bytes 4096", &["4096", "smallest ring"]),
        ("--ring-bytes 0", &["ring", "0"]),
        ("--ring-bytes 1025MiB", &["too large", "1073741824 or less"]),
        ("--ring-bytes 18446744073709551615", &["too large", "1073741824 or less"]),
        ("--ring-bytes 1.5MiB", &["--ring-bytes", "1.5MiB"]),
        ("--ring-bytes 99999999999999999999", &["--ring-bytes"]),
        ("--slab-bytes 1", &["--slab-bytes", "16KiB"]),
        ("--slab-bytes 64KiB --source noise:100000", &["--slab-bytes 65536", "131072"]),
        ("--seconds -1", &["--seconds", "above 0"]),
        ("--fps -1", &["frame rate of -1"]),
        ("--fps 1e300", &["frame rate of 1e300"]),
        ("--durability frame", &["--durability", "--archive DIR"]),
        ("--proc some", &["--proc", "none, decode"]),
        ("--proc-policy some", &["--proc-policy", "every, nth=N"]),
        ("--proc-policy nth=0", &["--proc-policy", "nth=N"]),
        ("--proc-policy every:later", &["--proc-policy", "latest-only"]),
        ("--proc-queue 0", &["--proc-queue", "1.."]),
        ("--proc-workers 0", &["--proc-workers", "1..=256"]),
        ("--wait often", &["--wait", "spin", "adaptive", "sleep"]),
        ("--inline --proc-workers 2", &["--inline", "--proc-workers", "2"]),
        ("--arch-queue 0", &["--arch-queue"]),
        ("--durability often", &["--durability", "interval=MS"]),
        ("--segment-bytes 1 --archive /nonexistent/a", &["segment_bytes", "at least"]),
        ("--max-lost some", &["--max-lost", "P%"]),
        ("--timeout 0", &["--timeout", "above 0"]),
        ("--source noise:0", &["noise:0"]),
        ("--source noise:5-4", &["noise:5-4"]),
        ("--source synthetic:0", &["synthetic:0"]),
        ("--source y4m:", &["y4m:"]),
        ("--model nc999", &["--model", "nc353"]),
        ("--frmes 5", &["--frmes", "--frames"]),
        ("--unpaced --fps 5", &["--unpaced", "--fps"]),
        ("--device /nonexistent/ring --fps 5", &["--fps", "--device"]),
        ("--device /nonexistent/ring --width 5", &["--width", "--device"]),
        ("--device /nonexistent/ring --virtual-time", &["--virtual-time", "--device"]),
        ("--max-frame-bytes 0 --device /nonexistent/ring", &["--max-frame-bytes"]),
        ("--max-frame-bytes 16777216 --device /nonexistent/ring", &["--max-frame-bytes"]),
        ("--device=", &["--device is empty"]),
    ];
    for (options, words) in cases {
        // Whoever accepts what he should not ends all the same.
        let limited = options.contains("--frames") || options.contains("--device");
        let limit = if limited { "" } else { "--virtual-time --frames 1" };
        ends(&format!("run {limit} {options}")).refused(2, words);
    }
}

#[test]
fn commands_that_are_incomplete_are_refused() {
    let cases: &[(&str, &[&str])] = &[
        ("emulate", &["--ring"]),
        ("emulate --ring", &["--ring"]),
        ("archive ls", &["DIR"]),
        ("archive export /nonexistent", &["--out"]),
        ("archive frobnicate", &["frobnicate"]),
        ("frobnicate", &["frobnicate"]),
        ("run a 1 b", &["b"]),
        ("demo --seconds 0", &["--seconds", "above 0"]),
        ("dump", &["RING"]),
    ];
    for (line, words) in cases {
        ends(line).refused(2, words);
    }
}

#[test]
fn help_goes_to_stdout_and_succeeds() {
    for line in ["--help", "run --help", "emulate --help", "archive --help", "archive ls --help"] {
        let help = ends(line).with_code(0);
        assert!(help.stdout.contains("Usage:") && help.stderr.is_empty(), "{help:?}");
    }
    let nothing = ends("").with_code(2);
    assert!(nothing.stderr.contains("Usage:"), "{nothing:?}");
}

#[test]
fn files_that_cannot_be_written_are_named() {
    let dir = disk_dir();
    let missing = dir.path().join("missing");
    let place = missing.join("file");
    let place = place.display();
    let words: &[&str] = &["missing/file", "No such file"];
    ends(&format!("run {SMALL} --frames 1 --ledger {place}")).refused(1, words);
    ends(&format!("run {SMALL} --frames 1 --proc decode={place}")).refused(1, words);
    ends(&format!("emulate {SMALL} --frames 1 --ring {place}")).refused(5, words);
    for full in ["--ledger /dev/full", "--proc decode=/dev/full"] {
        let ended = ends(&format!("run {SMALL} --lossless --frames 3 {full}")).with_code(1);
        assert!(ended.stderr.lines().last().unwrap().contains("No space left"), "{ended:?}");
    }
}

/// What a camera makes of a file that is not its own to replace.
#[test]
fn a_file_that_is_no_ring_is_not_replaced() {
    let dir = disk_dir();
    let file = dir.path().join("diary");
    std::fs::write(&file, "dear diary").unwrap();
    let line = format!("emulate {SMALL} --frames 1 --ring {}", file.display());
    ends(&line).refused(5, &["diary", "no ring", "not replaced"]);
    assert_eq!(std::fs::read(&file).unwrap(), b"dear diary");
    let line = format!("emulate {SMALL} --frames 1 --ring {}", dir.path().display());
    ends(&line).refused(5, &["no regular file"]);
}
