//! Configuration files, the environment and flags, and which of them goes first.

use std::fs;
use std::path::{Path, PathBuf};

use crate::util::{Running, circbuf, disk_dir, ends, json, number};

/// A folder of gray pictures as `.npy`, as numpy saves them.
pub(crate) fn npy_folder(dir: &Path) -> PathBuf {
    let folder = dir.join("npy");
    fs::create_dir(&folder).expect("a new folder");
    for shade in 0..3 {
        fs::write(folder.join(format!("{shade}.npy")), npy("|u1", "(48, 64)", 48 * 64, shade))
            .expect("room for it");
    }
    folder
}

/// An `.npy` file of version 1.0 with `bytes` bytes of data.
pub(crate) fn npy(descr: &str, shape: &str, bytes: usize, shade: u8) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    let header = format!("{header:<117}\n");
    let mut file = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    file.extend(header.as_bytes());
    file.extend((0..bytes).map(|n| (n % 64) as u8 * 3 + shade));
    file
}

#[test]
fn a_folder_of_arrays_seconds_and_a_configuration_run_as_they_are_typed() {
    let dir = disk_dir();
    let folder = npy_folder(dir.path());
    let config = dir.path().join("config.toml");
    fs::write(
        &config,
        "[source]\nquality = 90\nwindow = \"0,255\"\n[ring]\nbytes = \"1MiB\"\n\
         [pace]\nfps = 10.0\nvirtual_time = true\nlossless = true\n\
         [proc]\nprocessor = \"decode\"\npolicy = \"nth=2\"\n[driver]\nmax_lost = \"0%\"\n",
    )
    .unwrap();
    let line = format!("run {} 2 --config {} --json", folder.display(), config.display());
    let books = json(&line);
    assert_eq!(number(&books, "ring.bytes"), 1 << 20);
    assert_eq!(number(&books, "ring.passed"), 20, "2 s at 10 a second");
    assert_eq!(number(&books, "consumers.proc.delivered"), 10);
    assert_eq!(number(&books, "decoded.frames"), 10);
}

#[test]
fn a_flag_goes_before_the_environment_and_that_before_the_file() {
    let dir = disk_dir();
    let config = dir.path().join("config.toml");
    fs::write(
        &config,
        "[source]\nwidth = 160\nheight = 120\n[pace]\nvirtual_time = true\nlossless = true\n\
         [limits]\nframes = 3\n",
    )
    .unwrap();
    let passed = |flag: &str, environment: Option<&str>| {
        let mut command = circbuf(&format!("run --config {} --json {flag}", config.display()));
        environment.map(|frames| command.env("CIRCBUF_FRAMES", frames));
        number(&Running::start(command).end().with_code(0).json(), "ring.passed")
    };
    assert_eq!(passed("", None), 3);
    assert_eq!(passed("", Some("4")), 4);
    assert_eq!(passed("--frames 5", Some("4")), 5);
    let unpaced = dir.path().join("unpaced.toml");
    fs::write(&unpaced, "[pace]\nunpaced = true\nvirtual_time = true\nlossless = true\n").unwrap();
    let line = format!("run --config {} --source synthetic:2 --json", unpaced.display());
    assert_eq!(number(&json(&format!("{line} --fps 10 --seconds 2")), "ring.passed"), 20);
    let mut command = circbuf("run --json");
    command.env("CIRCBUF_CONFIG", &config);
    assert_eq!(number(&Running::start(command).end().with_code(0).json(), "ring.passed"), 3);
}

#[test]
fn a_configuration_that_is_wrong_is_refused_by_file_line_and_key() {
    let dir = disk_dir();
    let config = dir.path().join("config.toml");
    let cases = [
        ("[source]\nwidht = 5\n", vec!["line 2", "widht", "width"]),
        ("[sources]\n", vec!["line 1", "sources"]),
        ("[source]\nwidth = \"wide\"\n", vec!["line 2", "wide"]),
        ("[source]\nwidth = -1\n", vec!["line 2", "-1"]),
        ("[source]\nquality = 0\n", vec!["source.quality", "1 to 100"]),
        ("[source]\njpeg = \"never\"\n", vec!["line 2", "never", "verbatim"]),
        ("[source]\nwindow = \"5\"\n", vec!["line 2", "LOW,HIGH"]),
        ("[ring]\nbytes = \"1parsec\"\n", vec!["line 2", "parsec"]),
        ("[limits]\nseconds = 0\n", vec!["line 2", "above 0"]),
        ("[limits]\nframes = 0\n", vec!["limits.frames"]),
        ("[proc]\npolicy = \"some\"\n", vec!["line 2", "some", "every"]),
        ("[proc]\nqueue = 0\n", vec!["proc.queue"]),
        ("[arch]\ndurability = 7\n", vec!["line 2", "interval=MS"]),
        ("[pace]\nfps = true\n", vec!["line 2", "boolean"]),
        ("[pace\n", vec!["line 1"]),
        ("width = 5\n", vec!["line 1", "width"]),
        ("\u{0}", vec!["line 1"]),
    ];
    let line = format!("run --frames 1 --config {}", config.display());
    for (text, mut words) in cases {
        fs::write(&config, text).unwrap();
        words.push("config.toml");
        ends(&line).refused(2, &words);
    }
    fs::write(&config, [0xFF, 0xFE]).unwrap();
    ends(&line).refused(2, &["config.toml"]);
    let mut command = circbuf("run --seconds 1");
    command.env("CIRCBUF_FRAMES", "some");
    Running::start(command).end().refused(2, &["some", "--frames"]);
    fs::remove_file(&config).unwrap();
    ends(&line).refused(2, &["config.toml", "No such file"]);
    ends("run --frames 1 --config /").refused(2, &["/"]);
}
