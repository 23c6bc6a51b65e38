//! What the house promises about its own source, held as tests.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() && name != "target" {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every source file: its path from the root, and its text.
fn sources() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for folder in ["driver", "emulator", "tools", "tests"] {
        rust_files(&root().join(folder), &mut files);
    }
    assert!(files.len() > 50, "the walk finds the source");
    files.sort();
    let relative = |path: &PathBuf| path.strip_prefix(root()).unwrap().display().to_string();
    files.iter().map(|path| (relative(path), std::fs::read_to_string(path).unwrap())).collect()
}

/// Paths of the files that pass.
fn which(passes: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let passing = sources().into_iter().filter(|(path, text)| passes(path, text));
    passing.map(|(path, _)| path).collect()
}

#[test]
fn unsafe_stands_in_the_named_files_alone() {
    let named = [
        "driver/benches/kernels.rs",
        "driver/benches/throughput.rs",
        "driver/src/archive/uring/registered.rs",
        "driver/src/archive/uring.rs",
        "driver/src/copy/vector.rs",
        "driver/src/device/pci/vfio.rs",
        "driver/src/device/pci/wire.rs",
        "driver/src/mapping.rs",
        "driver/src/sigbus.rs",
        "driver/src/slab/region.rs",
        "emulator/benches/load.rs",
        "emulator/src/dma/x86.rs",
        "emulator/src/dma.rs",
        "emulator/src/escape/x86.rs",
        "tests/tests/steady.rs",
        "tools/src/exec/seccomp.rs",
        "tools/src/exec/spawn.rs",
    ];
    let marks = [concat!("unsafe", " {"), concat!("unsafe", " impl"), concat!("unsafe", " fn")];
    assert_eq!(which(|_, text| marks.iter().any(|mark| text.contains(mark))), named);
}

#[test]
fn a_file_has_at_most_500_lines_without_its_tests() {
    let lines = |text: &str| {
        text.split("#[cfg(test)]\nmod tests {").next().map_or(0, |code| code.lines().count())
    };
    assert_eq!(which(|path, text| !path.ends_with("tests.rs") && lines(text) > 500), [""; 0]);
}

#[test]
fn driver_and_emulator_never_see_each_other() {
    let uses = |text: &str, other: &str| {
        text.lines().any(|line| line.contains(other) && !line.trim_start().starts_with("//"))
    };
    let is_code = |path: &str, folder: &str| {
        path.starts_with(folder) && !path.contains("tests") && !path.contains("benches")
    };
    assert_eq!(
        which(|path, text| is_code(path, "driver/") && uses(text, "circbuf_emulator")),
        [""; 0]
    );
    assert_eq!(
        which(|path, text| is_code(path, "emulator/") && uses(text, "circbuf_driver")),
        [""; 0]
    );
}

#[test]
fn every_path_that_the_readme_names_is_there() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let folders = ["driver/", "emulator/", "tools/", "tests/", "scripts/"];
    let is_path = |word: &&str| {
        folders.iter().any(|folder| word.starts_with(folder)) && !word.contains([' ', '{', '\n'])
    };
    let missing: Vec<&str> =
        readme.split('`').filter(is_path).filter(|path| !root().join(path).exists()).collect();
    assert_eq!(missing, [""; 0]);
}
