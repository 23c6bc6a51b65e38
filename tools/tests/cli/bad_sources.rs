//! Pictures that are none.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use crate::config::npy;
use crate::util::{Ended, Running, circbuf, disk_dir, ends, ends_unprivileged, json, number};

fn run(source: &Path) -> Ended {
    ends(&format!("run --frames 3 --virtual-time --source {}", source.display()))
}

#[test]
fn what_is_missing_or_empty_or_nothing_we_know_is_named() {
    let dir = disk_dir();
    let path = |name: &str| dir.path().join(name);
    run(&path("missing")).refused(1, &["missing", "No such file"]);
    fs::create_dir(path("folder")).unwrap();
    run(&path("folder")).refused(1, &["folder", "empty"]);
    for name in ["empty.jpg", "empty.npy", "empty.y4m"] {
        fs::write(path(name), []).unwrap();
        run(&path(name)).refused(1, &[name]);
        fs::write(path(name), "this is a text and no picture at all").unwrap();
        run(&path(name)).refused(1, &[name]);
    }
    fs::write(path("notes.txt"), "text").unwrap();
    run(&path("notes.txt")).refused(1, &["notes.txt"]);
    fs::write(path("folder/notes.txt"), "text").unwrap();
    run(&path("folder")).refused(1, &["folder"]);
}

#[test]
fn a_source_without_permission_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let dir = disk_dir();
    let file = dir.path().join("a.npy");
    fs::write(&file, npy("|u1", "(48, 64)", 48 * 64, 0)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    let ended = ends_unprivileged(dir.path(), &format!("run {}", file.display()));
    ended.refused(1, &["a.npy", "Permission denied"]);
}

#[test]
fn pictures_of_different_sizes_are_named_with_their_sizes() {
    let dir = disk_dir();
    fs::write(dir.path().join("a.npy"), npy("|u1", "(48, 64)", 48 * 64, 0)).unwrap();
    fs::write(dir.path().join("b.npy"), npy("|u1", "(64, 48)", 48 * 64, 0)).unwrap();
    run(dir.path()).refused(1, &["a.npy is 64x48", "b.npy is 48x64", "scale them"]);
    let jpegs = disk_dir();
    let folder = jpegs.path().join("jpegs");
    fs::create_dir(&folder).unwrap();
    for (name, size) in [("a", "--width 160"), ("b", "--width 320")] {
        let made = disk_dir();
        let options = format!("--height 240 {size}");
        let file = jpeg(made.path(), &options);
        fs::write(folder.join(format!("{name}.jpeg")), file).unwrap();
    }
    run(&folder).refused(1, &["a.jpeg is 160x240", "b.jpeg is 320x240"]);
}

/// A JPEG as the export makes it.
fn jpeg(dir: &Path, options: &str) -> Vec<u8> {
    let (archive, out) = (dir.join("a"), dir.join("out"));
    json(&format!(
        "run --source synthetic:1 --virtual-time --lossless --frames 1 --json --archive {} {options}",
        archive.display()
    ));
    ends(&format!("archive export {} --out {}", archive.display(), out.display())).with_code(0);
    let file = fs::read_dir(out).expect("the folder").next().expect("a file").expect("a name");
    fs::read(file.path()).expect("the file")
}

#[test]
fn a_damaged_array_is_named_with_what_is_wrong() {
    let dir = disk_dir();
    let whole = npy("|u1", "(48, 64)", 48 * 64, 0);
    let file = dir.path().join("a.npy");
    let cases: Vec<Vec<u8>> = vec![
        whole[..whole.len() - 1].to_vec(),
        whole[..9].to_vec(),
        whole[..60].to_vec(),
        npy("<f8", "(48, 64)", 48 * 64 * 8, 0),
        npy("|u1", "(48,)", 48, 0),
        npy("|u1", "(2, 48, 64)", 2 * 48 * 64, 0),
        npy("|u1", "(0, 0)", 0, 0),
        npy("|u1", "(99999999999, 99999999999)", 10, 0),
        npy("|u1", "(48, 64", 48 * 64, 0),
        [&whole[..8], &[0xFF, 0xFF], &whole[10..]].concat(),
    ];
    for (case, bytes) in cases.into_iter().enumerate() {
        fs::write(&file, bytes).unwrap();
        let ended = run(&file);
        assert_eq!(ended.code, Some(1), "case {case}: {ended:?}");
        ended.refused(1, &["a.npy"]);
    }
    fs::write(&file, whole).unwrap();
    run(&file).with_code(0);
}

#[test]
fn a_damaged_jpeg_is_named_with_what_is_wrong() {
    let dir = disk_dir();
    let whole = jpeg(dir.path(), "--width 160 --height 120");
    let file = dir.path().join("a.jpeg");
    let sof = whole.windows(2).position(|marker| marker == [0xFF, 0xC0]).unwrap();
    let with = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        bytes
    };
    let mut cases = vec![with(sof + 1, 0xC2), with(sof + 4, 12), with(sof + 9, 4), with(0, 0)];
    cases.extend([2, 3, 10, sof + 3, whole.len() / 2].map(|cut| whole[..cut].to_vec()));
    for (case, bytes) in cases.into_iter().enumerate() {
        fs::write(&file, bytes).unwrap();
        let ended = run(&file);
        assert_eq!(ended.code, Some(1), "case {case}: {ended:?}");
        ended.refused(1, &["a.jpeg"]);
    }
    fs::write(&file, &whole).unwrap();
    run(&file).with_code(0);
}

#[test]
fn a_jpeg_that_the_frame_header_cannot_express_is_compressed_again_aloud_or_refused() {
    let dir = disk_dir();
    let mut file = jpeg(dir.path(), "--width 160 --height 120");
    let dqt = file.windows(2).position(|marker| marker == [0xFF, 0xDB]).unwrap();
    // A quantisation that no quality gives.
    file[dqt + 5] ^= 1;
    let path = dir.path().join("a.jpeg");
    fs::write(&path, file).unwrap();
    let again = run(&path).with_code(0);
    assert!(again.stderr.lines().any(|line| line.starts_with("note: ")), "{again:?}");
    let line = format!("run --frames 3 --virtual-time --jpeg verbatim {}", path.display());
    ends(&line).refused(1, &["a.jpeg"]);
}

/// A stream of gray pictures.
fn y4m(frames: usize) -> Vec<u8> {
    let mut stream = b"YUV4MPEG2 W64 H48 F25:1 Cmono\n".to_vec();
    for shade in 0..frames {
        stream.extend(b"FRAME\n");
        stream.extend((0..64 * 48).map(|n| (n + shade) as u8));
    }
    stream
}

fn streamed(bytes: &[u8]) -> Ended {
    let mut command = circbuf("run --virtual-time --lossless --json --source y4m:-");
    command.stdin(Stdio::piped());
    let mut running = Running::start(command);
    let mut stdin = running.stdin();
    // What is refused is not read to its end.
    let _closed = stdin.write_all(bytes);
    drop(stdin);
    running.end()
}

#[test]
fn a_stream_from_stdin_is_read_to_its_end() {
    let books = streamed(&y4m(7)).with_code(0).json();
    assert_eq!(number(&books, "ring.passed"), 7);
}

#[test]
fn a_stream_that_goes_wrong_ends_with_the_frame_in_which_it_did() {
    let whole = y4m(3);
    let frame = 64 * 48 + 6;
    let header = whole.len() - 3 * frame;
    let mut without_frame = whole.clone();
    without_frame[header + frame] = b'X';
    let text = |header: &str| [header.as_bytes(), &whole[header.len()..]].concat();
    let cases: Vec<(Vec<u8>, Vec<&str>)> = vec![
        (whole[..whole.len() - 5].to_vec(), vec!["frame 2"]),
        (whole[..header + frame + 3].to_vec(), vec!["frame 1"]),
        (without_frame, vec!["frame 1", "FRAME"]),
        (whole[..header].to_vec(), vec!["input", "no picture"]),
        (vec![], vec!["input"]),
        (b"YUV4MPEG2 W64".to_vec(), vec!["input"]),
        (text("YUV4MPEG3 W64 H48 F25:1 Cmono\n"), vec!["input"]),
        (text("YUV4MPEG2 W0 H48 F25:1 Cmono\n"), vec!["input", "width"]),
        (text("YUV4MPEG2 W64 H48 F25:1 C420p10\n"), vec!["input", "420p10"]),
        (text("YUV4MPEG2 W64 F25:1 Cmono\n"), vec!["input"]),
        (vec![b'Y'; 1 << 20], vec!["input"]),
    ];
    for (stream, words) in cases {
        streamed(&stream).refused(1, &words);
        let dir = disk_dir();
        let file = dir.path().join("a.y4m");
        fs::write(&file, &stream).unwrap();
        run(&file).refused(1, &["a.y4m"]);
    }
}
