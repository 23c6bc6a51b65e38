//! The program `test_mmap`, as a user meets it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use circbuf_abi::registers::{
    COMPLETE, FRAMES, MAGIC, MAGIC_VALUE, MAX_SLOT_BYTES, PAGE_BYTES, RESERVED, RING_BYTES,
    VERSION, VERSION_VALUE, WRITTEN,
};

fn test_mmap(ring: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_test_mmap"));
    command.arg(ring).env_remove("RUST_LOG");
    command
}

/// A ring of 1 MiB that begins with bare frames of 16 bytes each.
fn ring(frames: usize) -> Vec<u8> {
    let mut ring = vec![0; 1 << 20];
    for n in 0..frames {
        // 16 bytes of payload, 4 zeros, trailer and gap.
        let frame = &mut ring[n * 64..][..64];
        frame[..16].fill(7);
        frame[20..24].copy_from_slice(&(n as u32 + 1).to_le_bytes());
        frame[28..32].copy_from_slice(&0xFF00_0010u32.to_le_bytes());
    }
    ring
}

/// One line on stderr that names the ring, nothing on stdout.
fn assert_refused(output: &Output, code: i32, ring: &Path) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert!(message.starts_with(&format!("test_mmap: {}", ring.display())), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(output.stdout.is_empty());
}

#[test]
fn what_cannot_be_dumped_ends_in_one_line_and_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ring");
    assert_refused(&test_mmap(&path).output().unwrap(), 5, &path);
    assert_refused(&test_mmap(dir.path()).output().unwrap(), 5, dir.path());
    let mut state = 1u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(1 << 16)
    .collect();
    let cases = [(vec![], 5), (vec![0; 4095], 4), (vec![0; 32], 5), (vec![0; 4096], 4), (noise, 4)];
    for (bytes, code) in cases {
        fs::write(&path, &bytes).unwrap();
        assert_refused(&test_mmap(&path).output().unwrap(), code, &path);
    }
}

#[test]
fn a_ring_that_may_not_be_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ring");
    fs::write(&path, ring(1)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    // Root may read everything.
    if fs::File::open(&path).is_err() {
        assert_refused(&test_mmap(&path).output().unwrap(), 5, &path);
    }
}

#[test]
fn what_is_none_is_told_with_the_bytes_that_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ring");
    fs::write(&path, [0; 1000]).unwrap();
    let output = test_mmap(&path).output().unwrap();
    assert_refused(&output, 4, &path);
    assert!(String::from_utf8_lossy(&output.stderr).contains("no whole frame in 1000 bytes"));
}

#[test]
fn a_register_page_that_lies_is_left_aside_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ring");
    fs::write(&path, ring(3)).unwrap();
    let page = |counters: [(usize, u64); 4]| {
        let mut page = vec![0; PAGE_BYTES];
        page[VERSION..VERSION + 4].copy_from_slice(&VERSION_VALUE.to_le_bytes());
        let fields = [(MAGIC, MAGIC_VALUE), (RING_BYTES, 1 << 20), (MAX_SLOT_BYTES, 64)];
        for (field, value) in fields.into_iter().chain(counters) {
            page[field..field + 8].copy_from_slice(&value.to_le_bytes());
        }
        page
    };
    let counters = |written, reserved, complete, frames| {
        page([(WRITTEN, written), (RESERVED, reserved), (COMPLETE, complete), (FRAMES, frames)])
    };
    let truth = counters(192, 192, 192, 3);
    let listing = test_mmap(&path).output().unwrap().stdout;
    let cases = [
        (truth.clone(), None),
        (truth[..100].to_vec(), Some("cut short of its 4096 bytes")),
        (vec![], Some("cut short of its 4096 bytes")),
        (counters(192, u64::MAX - 31, 192, 3), Some("contradict themselves")),
        (counters(192, 192, 224, 4), Some("contradict themselves")),
        (counters(192, 192, 192, 0), Some("contradict themselves")),
    ];
    for (page, told) in cases {
        fs::write(dir.path().join("ring.regs"), page).unwrap();
        let output = test_mmap(&path).output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &output.stdout), (Some(0), &listing), "{log}");
        match told {
            None => assert!(log.is_empty(), "{log}"),
            Some(told) => {
                assert!(log.starts_with("test_mmap: warn: ") && log.contains(told), "{log}");
                assert_eq!(log.lines().count(), 1, "{log}");
            }
        }
    }
}

#[test]
fn frames_are_listed_and_one_of_them_is_chosen() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ring");
    fs::write(&path, ring(3)).unwrap();
    let all = String::from_utf8(test_mmap(&path).output().unwrap().stdout).unwrap();
    assert_eq!(all.matches("<ff000010>").count(), 3, "{all}");
    let one = test_mmap(&path).args(["--frame", "2"]).output().unwrap();
    assert!(all.ends_with(&*String::from_utf8_lossy(&one.stdout)), "{all}");
    assert_refused(&test_mmap(&path).args(["--frame", "3"]).output().unwrap(), 1, &path);
    let usage = test_mmap(&path).args(["--frame", "-1"]).output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn a_closed_stdout_is_no_failure_and_a_full_disk_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ring");
    fs::write(&path, ring(10_000)).unwrap();
    let mut child = test_mmap(&path).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = test_mmap(&path).stdout(full).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && message.contains("stdout"), "{message}");
}
