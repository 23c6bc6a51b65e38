//! A directory in memory for what is only read from files.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

thread_local! {
    static DIR: TempDir = make();
}

fn make() -> TempDir {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    dir.expect("a directory for files that live for a moment")
}

/// Does something with an empty directory. Each thread has one of its own.
pub(super) fn with_dir<R>(then: impl FnOnce(&Path) -> R) -> R {
    DIR.with(|dir| {
        for entry in fs::read_dir(dir.path()).expect("it is ours") {
            fs::remove_file(entry.expect("it is ours").path()).expect("there are files alone");
        }
        then(dir.path())
    })
}

/// Does something with a file of this name and content.
pub(super) fn with_file<R>(name: &str, bytes: &[u8], then: impl FnOnce(PathBuf) -> R) -> R {
    with_dir(|dir| {
        let path = dir.join(name);
        fs::write(&path, bytes).expect("there is room");
        then(path)
    })
}
