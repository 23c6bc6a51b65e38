use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, symlink};

use super::*;
use crate::fpga::{Fpga, Setup, SetupError};
use crate::model::{Gap, Geometry};

fn open(file: RingFile) -> Fpga {
    try_open(file).unwrap()
}

fn try_open(file: RingFile) -> Result<Fpga, SetupError> {
    let geometry = Geometry::default();
    let setup = Setup {
        gap: Gap::Zero,
        stamped: true,
        payload_bytes_max: 900,
        geometry,
        frame_period_ns: 0,
    };
    Fpga::new(file, setup)
}

/// The ring that a register page belongs to, by what stands in it.
fn described(page: &[u8]) -> Identity {
    let field = |at: usize| u64::from_le_bytes(page[at..][..8].try_into().unwrap());
    Identity { device: field(0x040), inode: field(0x048) }
}

fn identity(path: &Path) -> Identity {
    Identity::of(&fs::metadata(path).unwrap())
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_ring_gets_its_name_when_it_is_whole_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ring");
    let file = RingFile::create(&path, 8192).unwrap();
    assert!(!path.exists());
    let fpga = open(file);
    assert_eq!(names(folder.path()), ["ring", "ring.regs"]);
    assert_eq!(fs::metadata(&path).unwrap().len(), 8192);
    assert_eq!(fs::read(registers_path(&path)).unwrap()[..8], *b"CIRCREGS");
    assert_eq!(fpga.file().path(), Some(path.as_path()));
    drop(fpga);
    assert_eq!(names(folder.path()), ["ring", "ring.regs"]);
}

#[test]
fn what_was_never_named_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let file = RingFile::create(&folder.path().join("ring"), 8192).unwrap();
    assert_eq!(names(folder.path()).len(), 2);
    drop(file);
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn a_live_camera_keeps_its_ring_and_a_dead_one_leaves_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ring");
    let fpga = open(RingFile::create(&path, 8192).unwrap());
    let locked =
        |path: &Path| Flock::lock(File::open(path).unwrap(), FlockArg::LockSharedNonblock).is_err();
    assert!(locked(&path));
    let error = RingFile::create(&path, 8192).unwrap_err();
    assert!(matches!(error, RingFileError::InUse { .. }), "{error}");
    assert_eq!(names(folder.path()), ["ring", "ring.regs"]);

    let old = File::open(&path).unwrap();
    drop(fpga);
    assert!(!locked(&path));
    let fpga = open(RingFile::create(&path, 4096).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().len(), 4096);
    assert_eq!(old.metadata().unwrap().len(), 8192, "an old mapping keeps its memory");
    assert!(locked(&path));
    drop(fpga);
}

#[test]
fn two_cameras_do_not_replace_one_ring_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ring");
    drop(open(RingFile::create(&path, 8192).unwrap()));
    let first = RingFile::create(&path, 8192).unwrap();
    let error = RingFile::create(&path, 8192).unwrap_err();
    assert!(matches!(error, RingFileError::InUse { .. }), "{error}");
    drop(first);
    drop(RingFile::create(&path, 8192).unwrap());
}

#[test]
fn a_file_that_is_no_ring_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("thesis.txt");
    let refused = |what: &str| {
        let error = RingFile::create(&path, 8192).unwrap_err().to_string();
        assert!(error.contains("thesis.txt") && error.contains(what), "{error}");
    };
    fs::write(&path, "years of work").unwrap();
    refused("this is no ring (there is no register page beside it), not replaced");
    fs::write(registers_path(&path), "something else").unwrap();
    refused("this is no ring");
    fs::remove_file(&path).unwrap();
    refused("this is no register page");
    fs::remove_file(registers_path(&path)).unwrap();
    fs::create_dir(&path).unwrap();
    refused("this is no regular file");
    fs::remove_dir(&path).unwrap();
    symlink("/dev/null", &path).unwrap();
    refused("this is no regular file");
    fs::remove_file(&path).unwrap();

    // An empty file, as mktemp makes it, holds nothing that could be lost.
    File::create(&path).unwrap().flush().unwrap();
    drop(open(RingFile::create(&path, 8192).unwrap()));
}

#[test]
fn errors_name_the_file_and_the_cause() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("nowhere/ring");
    let error = RingFile::create(&missing, 8192).unwrap_err().to_string();
    assert!(error.contains("nowhere/ring: cannot make it: No such file"), "{error}");
    let error = RingFile::create(&folder.path().join("ring"), 1 << 62).unwrap_err().to_string();
    assert!(error.contains("ring: cannot allocate its space"), "{error}");
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn the_size_of_a_memfd_is_sealed() {
    let file = RingFile::memfd(8192).unwrap();
    for fd in [file.ring_fd(), file.registers_fd()] {
        let fd = File::from(fd.try_clone_to_owned().unwrap());
        assert!(fd.set_len(0).is_err());
        assert!(fd.set_len(1 << 20).is_err());
    }
}

#[test]
fn nobody_but_the_fpga_writes_into_a_memfd_that_is_sealed() {
    let fpga = open(RingFile::memfd(8192).unwrap());
    fpga.file().seal_content().unwrap();
    for fd in [fpga.file().ring_fd(), fpga.file().registers_fd()] {
        let again = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let again = OpenOptions::new().read(true).write(true).open(again).unwrap();
        for file in [File::from(fd.try_clone_to_owned().unwrap()), again] {
            let refused = file.write_at(&[1], 0).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(Errno::EPERM as i32));
            let refused = MmapOptions::new().map_raw(&file).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(Errno::EPERM as i32));
            assert!(MmapOptions::new().map_raw_read_only(&file).is_ok());
        }
    }
}

/// Who opens between the two names finds the page of the new ring beside the old one.
#[test]
fn a_register_page_tells_which_ring_it_belongs_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ring");
    let page = || described(&fs::read(registers_path(&path)).unwrap());
    drop(open(RingFile::create(&path, 8192).unwrap()));
    let old = identity(&path);
    assert_eq!(page(), old);
    drop(open(RingFile::create(&path, 8192).unwrap()));
    assert_eq!(page(), identity(&path));
    assert_ne!(page(), old);

    let fpga = open(RingFile::memfd(8192).unwrap());
    let duplicate = |fd: BorrowedFd<'_>| File::from(fd.try_clone_to_owned().unwrap());
    let mut page = [0; PAGE_BYTES];
    duplicate(fpga.file().registers_fd()).read_exact(&mut page).unwrap();
    assert_eq!(described(&page), Identity::default(), "a ring without a name");
}

#[test]
fn a_driver_that_tries_the_lock_is_no_camera() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ring");
    File::create(&path).unwrap();
    let probe = || Flock::lock(File::open(&path).unwrap(), FlockArg::LockSharedNonblock).unwrap();
    let attempt = |probing: u32| {
        let (mut held, mut pauses) = (Some(probe()), 0);
        let locked = lock_patiently(File::open(&path).unwrap(), &path, || {
            pauses += 1;
            if pauses == probing {
                held = None;
            }
        });
        (locked.is_ok(), pauses)
    };
    assert_eq!(attempt(1), (true, 1));
    assert_eq!(attempt(9), (true, 9));
    assert_eq!(attempt(11), (false, 10));
}

#[test]
fn of_two_cameras_on_a_new_name_the_second_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ring");
    let (first, second) = (RingFile::create(&path, 8192), RingFile::create(&path, 4096));
    let fpga = open(first.unwrap());
    let error = try_open(second.unwrap()).unwrap_err();
    assert!(matches!(error, SetupError::RingFile(RingFileError::InUse { .. })), "{error}");
    assert_eq!(names(folder.path()), ["ring", "ring.regs"]);
    assert_eq!(fs::metadata(&path).unwrap().len(), 8192);
    assert_eq!(described(&fs::read(registers_path(&path)).unwrap()), identity(&path));
    drop(fpga);
}

#[test]
fn a_register_page_without_its_ring_goes_to_one_camera() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ring");
    drop(open(RingFile::create(&path, 8192).unwrap()));
    fs::remove_file(&path).unwrap();
    let first = RingFile::create(&path, 8192).unwrap();
    let error = RingFile::create(&path, 8192).unwrap_err();
    assert!(matches!(error, RingFileError::InUse { .. }), "{error}");
    drop(open(first));
    assert_eq!(described(&fs::read(registers_path(&path)).unwrap()), identity(&path));
}

#[test]
fn a_file_that_came_meanwhile_is_not_replaced_and_gets_no_page() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("thesis.txt");
    let file = RingFile::create(&path, 8192).unwrap();
    fs::write(&path, "years of work").unwrap();
    let error = try_open(file).unwrap_err();
    assert!(matches!(error, SetupError::RingFile(RingFileError::InUse { .. })), "{error}");
    assert_eq!(names(folder.path()), ["thesis.txt"]);
    assert_eq!(fs::read(&path).unwrap(), b"years of work");
}
