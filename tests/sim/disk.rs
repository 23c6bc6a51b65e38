//! A disk that fails: the system itself is made to refuse, so that the real archive sees what it
//! would see elsewhere.
//!
//! * With a limit on the size of files (`RLIMIT_FSIZE`) a write that crosses it is short, and one
//!   behind it fails with `EFBIG`, as do reservations. The limit is that of the process: only one
//!   simulation may run in it.
//! * A file system of its own, a few MiB of tmpfs, is filled up to some pages: `ENOSPC`. It takes a
//!   namespace in which it may be mounted; where the system allows none, this one kind of failure
//!   does not happen.
//! * A name that leads to `/dev/full` fails with `ENOSPC` when a segment is begun.

use std::fs::File;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Once, OnceLock};

use circbuf_tests::Random;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::statvfs::fstatvfs;
use tempfile::TempDir;

/// Where the small file system is mounted.
const VARIABLE: &str = "SIM_DISK";

/// What it holds.
const SMALL_DISK_BYTES: u64 = 8 << 20;

/// The disk, as far as it can be made to fail.
pub(crate) struct Disk {
    dir: TempDir,
    file_bytes_max: Option<u64>,
    /// Takes all room but little; only on a small disk.
    ballast: Option<File>,
}

impl Disk {
    pub(crate) fn new() -> Disk {
        survive_limits();
        let small = std::env::var_os(VARIABLE).map(PathBuf::from);
        let ballast = small.as_ref().map(|disk| tempfile::tempfile_in(disk).unwrap());
        let place = small.unwrap_or(PathBuf::from("/dev/shm"));
        let dir = tempfile::tempdir_in(place).or_else(|_| tempfile::tempdir()).unwrap();
        Disk { dir, file_bytes_max: None, ballast }
    }

    /// A directory on it.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The disk fails in some way, or, if it did, does not any more.
    pub(crate) fn change(&mut self, random: &mut Random) {
        match (&self.ballast, random.once_in(2)) {
            (Some(ballast), true) => match ballast.metadata().unwrap().len() {
                0 => fill(ballast, random.below(24)),
                _ => ballast.set_len(0).unwrap(),
            },
            _ => {
                let limit = random.below(60_000);
                self.file_bytes_max = self.file_bytes_max.is_none().then_some(limit);
            }
        }
    }

    /// The next file of this name cannot be written.
    pub(crate) fn trap(&self, name: &str) {
        // There may be such a file, or a trap, already.
        drop(symlink("/dev/full", self.dir().join(name)));
    }

    /// From here on it works.
    pub(crate) fn mend(&mut self) {
        self.file_bytes_max = None;
        if let Some(ballast) = &self.ballast {
            ballast.set_len(0).unwrap();
        }
        let files = std::fs::read_dir(self.dir()).unwrap().map(|file| file.unwrap().path());
        files.filter(|path| path.is_symlink()).for_each(|trap| std::fs::remove_file(trap).unwrap());
    }

    /// Lets it fail as long as the value lives.
    pub(crate) fn limit(&self) -> Limited {
        Limited::to(self.file_bytes_max.unwrap_or(RLIM_INFINITY))
    }
}

/// Leaves so many pages free.
fn fill(ballast: &File, pages: u64) {
    let disk = fstatvfs(ballast).unwrap();
    let free = disk.blocks_available().saturating_sub(pages) * disk.fragment_size();
    if free > 0 {
        fallocate(ballast, FallocateFlags::empty(), 0, free as i64).unwrap();
    }
}

/// A write behind the limit also raises a signal, which would end the process.
fn survive_limits() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let flag = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(Signal::SIGXFSZ as i32, flag).unwrap();
    });
}

/// As long as it lives, no file grows beyond the limit.
pub(crate) struct Limited;

impl Limited {
    fn to(bytes: u64) -> Limited {
        let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
        setrlimit(Resource::RLIMIT_FSIZE, bytes.min(hard), hard).unwrap();
        Limited
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
        setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
    }
}

/// This program, to be run with a small disk if the system allows it.
pub(crate) fn program_with_disk() -> Command {
    static DIR: OnceLock<Option<TempDir>> = OnceLock::new();
    let program = std::env::current_exe().unwrap();
    let Some(dir) = DIR.get_or_init(mount_point) else { return Command::new(program) };
    let mut command = in_namespace("exec \"$@\"", dir.path());
    command.arg(program);
    command
}

/// A place where it can be mounted, tried out.
fn mount_point() -> Option<TempDir> {
    let dir = tempfile::tempdir().unwrap();
    let mut command = in_namespace(":", dir.path());
    let tried = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success()).then_some(dir)
}

fn in_namespace(then: &str, dir: &Path) -> Command {
    let script = format!("mount -t tmpfs -o size={SMALL_DISK_BYTES} sim \"${VARIABLE}\" && {then}");
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "--", "sh", "-c", &script, "sh"]);
    command.env(VARIABLE, dir);
    command
}
