//! Rings that are none, and register pages that lie.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use circbuf_abi::registers as reg;

use crate::util::{
    Running, disk_dir, ends, ends_unprivileged, index_entries, register, registers, ring_dir,
};

fn run(ring: &Path, options: &str) -> crate::util::Ended {
    ends(&format!("run --device {} --timeout 0.3 {options}", ring.display()))
}

fn random(bytes: usize) -> Vec<u8> {
    let mut state = 1u32;
    let step = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(step).take(bytes).collect()
}

#[test]
fn what_is_no_ring_is_no_device() {
    let dir = ring_dir();
    let ring = dir.path().join("ring");
    for bytes in [0, 1, 4095, 4097, 19_791_872 - 32] {
        fs::write(&ring, vec![0; bytes]).unwrap();
        run(&ring, "").refused(5, &["ring", &format!("{bytes} bytes are no ring"), "4096"]);
    }
    run(dir.path(), "").refused(5, &["is a directory", "regular file"]);
    run(&dir.path().join("no/ring"), "").refused(5, &["no/ring", "No such file"]);
    run(Path::new("/dev/no-such-camera"), "").refused(5, &["/dev/no-such-camera", "No such file"]);
    run(Path::new("vfio:0000:00:00.0"), "").refused(5, &["0000:00:00.0"]);
    fs::write(&ring, vec![0; 8192]).unwrap();
    let line = format!("run --device {} --max-frame-bytes 100000", ring.display());
    ends(&line).refused(5, &["100000", "8192"]);
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    run(&fifo, "").refused(5, &["is a pipe"]);
}

#[test]
fn a_ring_that_never_comes_is_given_up() {
    let dir = ring_dir();
    let ended = run(&dir.path().join("ring"), "");
    assert_eq!(ended.code, Some(5), "{ended:?}");
    assert!(ended.stderr.contains("waiting up to 0.3 s"), "{ended:?}");
    assert!(ended.stderr.lines().last().unwrap().contains("No such file"), "{ended:?}");
}

#[test]
fn a_device_without_permission_is_named() {
    let dir = disk_dir();
    let ring = dir.path().join("ring");
    fs::write(&ring, vec![0; 8192]).unwrap();
    fs::set_permissions(&ring, fs::Permissions::from_mode(0o000)).unwrap();
    let ended = ends_unprivileged(dir.path(), &format!("run --device {}", ring.display()));
    ended.refused(5, &["ring", "Permission denied"]);
}

#[test]
fn a_ring_in_which_no_frame_is_ends_after_the_timeout() {
    let dir = ring_dir();
    let ring = dir.path().join("ring");
    for (bytes, from) in [
        (vec![0; 1 << 20], "newest"),
        (vec![0; 1 << 20], "oldest"),
        (vec![0xFF; 1 << 20], "oldest"),
        (random(1 << 20), "newest"),
        (random(1 << 20), "oldest"),
    ] {
        fs::write(&ring, &bytes).unwrap();
        run(&ring, &format!("--from {from}")).refused(1, &["no frame", "--timeout"]);
        let in_time = ends(&format!("run --device {} --from {from} --seconds 0.2", ring.display()));
        in_time.refused(1, &["no frame came"]);
    }
}

/// A ring with its register page as a camera leaves it.
fn left_by_a_camera(ring: &Path) -> Vec<u8> {
    let line = "--source noise:2000-4000 --frames 50 --virtual-time --ring-bytes 1MiB";
    ends(&format!("emulate --ring {} {line}", ring.display())).with_code(0);
    fs::read(registers(ring)).expect("a page that can be read")
}

#[test]
fn a_register_page_that_lies_is_refused() {
    let dir = ring_dir();
    let ring = dir.path().join("ring");
    let truth = left_by_a_camera(&ring);
    let refused = |lie: Vec<u8>, words: &[&str]| {
        fs::write(registers(&ring), lie).unwrap();
        run(&ring, "--from oldest").refused(5, &[&["ring.regs"], words].concat());
    };
    let with = |field: usize, value: u64| {
        let mut page = truth.clone();
        let bytes = if field == reg::VERSION { 4 } else { 8 };
        page[field..field + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
        page
    };
    refused(with(reg::MAGIC, 7), &["no register page", "0x0000000000000007"]);
    refused(with(reg::VERSION, 2), &["version 2", "version 1"]);
    refused(with(reg::RING_BYTES, 1 << 21), &["2097152", "1048576"]);
    for slot in [0, 32, 4097, (1 << 18) + 32, u64::MAX] {
        refused(with(reg::MAX_SLOT_BYTES, slot), &["largest slot", &slot.to_string()]);
    }
    refused(vec![], &["register page", "0 bytes", "4096"]);
    refused(truth[..4095].to_vec(), &["register page", "4095 bytes", "4096"]);
    refused(vec![0; 4096], &["no register page"]);
    fs::remove_file(registers(&ring)).unwrap();
    fs::create_dir(registers(&ring)).unwrap();
    run(&ring, "--from oldest").refused(5, &["ring.regs"]);
}

#[test]
fn counters_that_cannot_be_are_refused_at_the_start() {
    let dir = ring_dir();
    let ring = dir.path().join("ring");
    let truth = left_by_a_camera(&ring);
    let at = |field: usize| u64::from_le_bytes(*truth[field..].first_chunk().unwrap());
    let lies = [
        (reg::COMPLETE, at(reg::COMPLETE) + 1),
        (reg::COMPLETE, u64::MAX - 31),
        (reg::COMPLETE, at(reg::RESERVED) + 4096),
        (reg::FRAMES, u64::MAX),
        (reg::RESERVED, 0),
    ];
    for (field, value) in lies {
        let mut page = truth.clone();
        page[field..field + 8].copy_from_slice(&value.to_le_bytes());
        fs::write(registers(&ring), page).unwrap();
        for from in ["oldest", "newest --timeout 0.1"] {
            let ended = ends(&format!("run --device {} --from {from}", ring.display()));
            assert_eq!(ended.code, Some(1), "{field:#x} {ended:?}");
        }
    }
}

#[test]
fn counters_that_begin_to_lie_end_the_run_in_order() {
    let lies = [
        (reg::COMPLETE, 0),
        (reg::FRAMES, 0),
        (reg::COMPLETE, u64::MAX),
        (reg::COMPLETE, 1 << 40),
        (reg::FRAMES, u64::MAX),
        (reg::RESERVED, 0),
    ];
    for (field, value) in lies {
        let dir = ring_dir();
        let (ring, archive) = (dir.path().join("ring"), dir.path().join("a"));
        let mut camera = Running::circbuf(&format!(
            "emulate --ring {} --source noise:2000-4000 --fps 500 --ring-bytes 1MiB",
            ring.display()
        ));
        camera.waits("writing", || register(&ring, reg::FRAMES) > 10);
        let mut driver = Running::circbuf(&format!(
            "run --device {} --durability interval=1 --timeout 5 --archive {}",
            ring.display(),
            archive.display()
        ));
        driver.waits("archiving", || index_entries(&archive).len() > 3);
        camera.freeze();
        let page = fs::OpenOptions::new().write(true).open(registers(&ring)).unwrap();
        // The camera may have been stopped while it changed both counters.
        page.write_all_at(&0u64.to_le_bytes(), reg::UPDATE as u64).unwrap();
        page.write_all_at(&u64::to_le_bytes(value), field as u64).unwrap();
        driver.end().refused(1, &["register page is not to be believed", "contradict"]);
        crate::util::assert_verified(&archive);
    }
}

/// A reservation far ahead makes everything overrun, which is a loss and no failure.
#[test]
fn a_writer_that_is_farther_than_it_can_be_is_not_believed() {
    let dir = ring_dir();
    let ring = dir.path().join("ring");
    let mut page = left_by_a_camera(&ring);
    for reserved in [u64::MAX, u64::MAX - 31, 3 * left_ring_bytes(&page)] {
        page[reg::RESERVED..reg::RESERVED + 8].copy_from_slice(&reserved.to_le_bytes());
        fs::write(registers(&ring), &page).unwrap();
        let ended = ends(&format!("run --device {} --from oldest", ring.display()));
        assert_eq!(ended.code, Some(1), "{reserved:#x} {ended:?}");
    }
}

fn left_ring_bytes(page: &[u8]) -> u64 {
    u64::from_le_bytes(*page[reg::RING_BYTES..].first_chunk().expect("a whole page"))
}
