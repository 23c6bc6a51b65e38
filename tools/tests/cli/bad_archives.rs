//! Archives that cannot be written, and archives that are damaged.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::util::{
    Running, SMALL, assert_verified, disk_dir, ends, hold_against_ledger, json, number,
};

fn record(archive: &Path, options: &str) {
    ends(&format!("run {SMALL} --lossless --frames 12 --archive {} {options}", archive.display()))
        .with_code(0);
}

#[test]
fn a_place_that_cannot_be_archived_into_is_refused_before_the_camera_starts() {
    let dir = disk_dir();
    let (archive, file) = (dir.path().join("a"), dir.path().join("file"));
    record(&archive, "");
    fs::write(&file, "text").unwrap();
    let run =
        |archive: &Path| ends(&format!("run {SMALL} --frames 1 --archive {}", archive.display()));
    run(&archive).refused(1, &["a holds an archive already (seg-000000.", "another directory"]);
    run(&file).refused(1, &["file is not a directory"]);
    run(&file.join("a")).refused(1, &["file/a"]);
    run(Path::new("/proc/circbuf-archive")).refused(1, &["/proc/circbuf-archive"]);
    assert_eq!(number(&assert_verified(&archive), "frames"), 12, "it is as it was");
    let closed = dir.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    // Root may write everywhere.
    if fs::write(closed.join("probe"), "").is_err() {
        run(&closed).refused(1, &["closed", "Permission denied", "can be written"]);
    }
}

/// The limit of the shell's children stands for the full disk: both make writes fail.
#[test]
fn a_disk_that_fills_up_costs_frames_and_nothing_else() {
    for engine in ["auto", "pwrite"] {
        let dir = disk_dir();
        let (archive, ledger) = (dir.path().join("a"), dir.path().join("ledger"));
        let mut shell = Command::new("sh");
        // In blocks of 512 bytes, or of 1024 by some shells: the ring of 1 MiB is below.
        shell.arg("-c").arg(format!(
            "ulimit -f 4096; exec {} run --json --source noise:20000 --ring-bytes 1MiB --fps 900 \
             --bus-mb-s unlimited --virtual-time --lossless --frames 600 --arch-policy every \
             --engine {engine} --durability interval=10 --archive {} --ledger {}",
            env!("CARGO_BIN_EXE_circbuf"),
            archive.display(),
            ledger.display()
        ));
        let ended = Running::start(shell).end().with_code(1);
        let last = ended.stderr.lines().last().unwrap();
        for word in ["the archive could not be written", "frames lost", "File too large"] {
            assert!(last.contains(word), "{word}: {ended:?}");
        }
        let books = ended.json();
        assert_eq!((&books["closes"], number(&books, "ring.passed")), (&true.into(), 600));
        assert_eq!(number(&books, "consumers.proc.delivered"), 600, "the capture goes on");
        let (lost, kept) =
            (number(&books, "consumers.arch.lost.io"), number(&books, "consumers.arch.delivered"));
        assert!(lost > 0 && kept > 0 && lost + kept == 600, "{books:#}");
        let held = hold_against_ledger(&archive, &ledger, true);
        assert_eq!(held.len() as u64, kept, "what is delivered is readable");
        assert_verified(&archive);
    }
}

fn segment(archive: &Path) -> PathBuf {
    archive.join("seg-000000.cbs")
}

/// Every command on a damaged archive; the codes of verify, recover, ls and export.
fn codes(archive: &Path) -> [i32; 4] {
    let dir = archive.display();
    let out = archive.join("out");
    let _none = fs::remove_dir_all(&out);
    let lines = [
        format!("archive verify {dir}"),
        format!("archive recover {dir} --dry-run"),
        format!("archive ls {dir} --json"),
        format!("archive export {dir} --out {}", out.display()),
    ];
    lines.map(|line| {
        let ended = ends(&line);
        let code = ended.code.expect("no signal");
        assert!([0, 1, 4].contains(&code), "{ended:?}");
        if code != 0 {
            let last = ended.stderr.lines().last().unwrap_or_default();
            assert!(last.starts_with("circbuf: "), "{ended:?}");
        }
        code
    })
}

#[test]
fn a_segment_that_is_cut_anywhere_is_read_up_to_there() {
    let dir = disk_dir();
    let archive = dir.path().join("a");
    record(&archive, "");
    let whole = fs::read(segment(&archive)).unwrap();
    assert_eq!(codes(&archive), [0, 0, 0, 0]);
    for cut in [0, 1, 100, 4095, 4096, 4097, 4192, 8191, 8192, whole.len() / 2, whole.len() - 1] {
        fs::write(segment(&archive), &whole[..cut]).unwrap();
        let [verify, ..] = codes(&archive);
        assert_eq!(verify, 4, "cut at {cut}: the index names what is gone");
        let copy = dir.path().join(format!("cut-{cut}"));
        fs::create_dir(&copy).unwrap();
        fs::write(segment(&copy), &whole[..cut]).unwrap();
        let recovered = ends(&format!("archive recover {}", copy.display()));
        let verified = ends(&format!("archive verify {}", copy.display()));
        // Without its header a segment is no segment.
        let code = if cut < 4096 { 4 } else { 0 };
        assert_eq!(
            (recovered.code, verified.code),
            (Some(code), Some(code)),
            "cut at {cut}: {recovered:?} {verified:?}"
        );
    }
}

#[test]
fn a_flipped_bit_is_found_wherever_it_matters() {
    let dir = disk_dir();
    let archive = dir.path().join("a");
    record(&archive, "");
    let whole = fs::read(segment(&archive)).unwrap();
    let index = fs::read(archive.join("seg-000000.idx")).unwrap();
    // Magic and fields of both headers, payload, and the last payload in the file.
    let last = whole.iter().rposition(|&byte| byte != 0).unwrap();
    for at in [0, 5, 60, 4096, 4102, 4108, 4120, 4096 + 90, 4096 + 100, 4096 + 128 + 50, last] {
        for bit in [0, 7] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            fs::write(segment(&archive), &bytes).unwrap();
            let [verify, ..] = codes(&archive);
            assert_eq!(verify, 4, "byte {at}, bit {bit}");
        }
    }
    fs::write(segment(&archive), &whole).unwrap();
    for at in [0, 10, 60, 64 + 53, index.len() - 1] {
        let mut bytes = index.clone();
        bytes[at] ^= 1;
        fs::write(archive.join("seg-000000.idx"), bytes).unwrap();
        assert_eq!(codes(&archive)[0], 4, "byte {at} of the index");
    }
    ends(&format!("archive recover {}", archive.display())).with_code(0);
    assert_eq!(fs::read(archive.join("seg-000000.idx")).unwrap(), index, "made again as it was");
    assert_eq!(codes(&archive), [0, 0, 0, 0]);
}

#[test]
fn a_damaged_record_is_left_out_of_the_export_and_told() {
    let dir = disk_dir();
    let archive = dir.path().join("a");
    record(&archive, "");
    let mut bytes = fs::read(segment(&archive)).unwrap();
    bytes[4096 + 128 + 20] ^= 1;
    fs::write(segment(&archive), bytes).unwrap();
    let ended = ends(&format!(
        "archive export {} --json --out {}",
        archive.display(),
        dir.path().join("out").display()
    ))
    .with_code(4);
    assert_eq!((number(&ended.json(), "files"), number(&ended.json(), "damaged")), (11, 1));
    assert_eq!(fs::read_dir(dir.path().join("out")).unwrap().count(), 11);
}

#[test]
fn a_record_that_the_index_names_is_never_cut_and_stays_told() {
    let dir = disk_dir();
    let archive = dir.path().join("a");
    record(&archive, "");
    let mut bytes = fs::read(segment(&archive)).unwrap();
    let last = bytes.iter().rposition(|&byte| byte != 0).unwrap();
    bytes[last] ^= 1;
    fs::write(segment(&archive), &bytes).unwrap();
    for command in ["verify", "recover", "verify", "recover --dry-run"] {
        let ended = ends(&format!("archive {command} {}", archive.display())).with_code(4);
        assert!(ended.stdout.contains("the index names sequence 11, which is not whole"));
        assert_eq!(fs::read(segment(&archive)).unwrap(), bytes, "{command}");
    }
}

#[test]
fn a_torn_end_that_no_index_names_is_told_in_words() {
    let dir = disk_dir();
    let archive = dir.path().join("a");
    record(&archive, "--no-index");
    let mut bytes = fs::read(segment(&archive)).unwrap();
    let last = bytes.iter().rposition(|&byte| byte != 0).unwrap();
    bytes[last] ^= 1;
    fs::write(segment(&archive), &bytes).unwrap();
    let verified = ends(&format!("archive verify {}", archive.display())).with_code(0);
    for words in ["record of sequence 11: the body's checksum", "no index tells which"] {
        assert!(verified.stdout.contains(words), "{words}: {verified:?}");
    }
    assert_eq!(codes(&archive), [0, 0, 0, 4]);
}

#[test]
fn what_was_reserved_and_never_written_is_no_damage() {
    let dir = disk_dir();
    let archive = dir.path().join("a");
    record(&archive, "");
    let mut bytes = fs::read(segment(&archive)).unwrap();
    bytes.resize(bytes.len() + 1_000_000, 0);
    fs::write(segment(&archive), &bytes).unwrap();
    assert_eq!(codes(&archive), [0, 0, 0, 0]);
    // Without an index a hole is none either, though frames may have stood there.
    fs::remove_file(archive.join("seg-000000.idx")).unwrap();
    let listed = json(&format!("archive ls {} --json", archive.display()));
    let offset = |frame: usize| number(&listed["frames"][frame], "offset") as usize;
    bytes[offset(3)..offset(5)].fill(0);
    fs::write(segment(&archive), &bytes).unwrap();
    assert_eq!(codes(&archive), [0, 0, 0, 0]);
    let verified = ends(&format!("archive verify {}", archive.display())).with_code(0);
    let hole = format!("{} bytes between records were never written", offset(5) - offset(3));
    for words in ["2 frame numbers are unaccounted for", &hole, "0 skipped by policy"] {
        assert!(verified.stdout.contains(words), "{words}: {verified:?}");
    }
}

#[test]
fn a_listing_is_one_object_with_everything_in_it() {
    let dir = disk_dir();
    let archive = dir.path().join("a");
    record(&archive, "");
    let listed = json(&format!("archive ls {} --json", archive.display()));
    let mut keys: Vec<_> = listed.as_object().unwrap().keys().collect();
    keys.sort();
    let all = ["damaged_extents", "frames", "gaps", "losses", "schema", "session", "skipped"];
    assert_eq!(keys, all);
    assert_eq!(listed["schema"], "circbuf.archive-ls/1");
    let frames = listed["frames"].as_array().unwrap().iter();
    let sequences: Vec<_> = frames.map(|frame| number(frame, "sequence")).collect();
    assert_eq!(sequences, (0..12).collect::<Vec<_>>());
    assert_eq!(
        (&listed["losses"], number(&listed, "damaged_extents")),
        (&serde_json::json!([]), 0)
    );
    fs::write(segment(&archive), &fs::read(segment(&archive)).unwrap()[..4096]).unwrap();
    let listed = json(&format!("archive ls {} --json", archive.display()));
    assert_eq!(listed["frames"], serde_json::json!([]));
}

#[test]
fn what_is_no_archive_is_named() {
    let dir = disk_dir();
    fs::write(dir.path().join("file"), "text").unwrap();
    for (path, words) in [
        (dir.path().to_owned(), vec!["is no archive", "seg-*.cbs"]),
        (dir.path().join("missing"), vec!["missing", "No such file"]),
        (dir.path().join("file"), vec!["file", "Not a directory"]),
    ] {
        for command in ["ls", "verify", "recover", "export --out /nonexistent/out"] {
            ends(&format!("archive {command} {}", path.display())).refused(1, &words);
        }
    }
}

#[test]
fn a_listing_that_nobody_reads_ends_quietly() {
    let dir = disk_dir();
    let archive = dir.path().join("a");
    record(&archive, "");
    for command in ["ls", "ls --json", "verify", "recover"] {
        let mut command = crate::util::circbuf(&format!("archive {command} {}", archive.display()));
        let pipe = std::process::Stdio::piped;
        let mut child = command.stdout(pipe()).stderr(pipe()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{output:?}");
    }
    json(&format!("archive ls {} --json", archive.display()));
}
