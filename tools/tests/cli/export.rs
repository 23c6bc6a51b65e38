//! Exported files.

use std::fs;
use std::path::Path;

use exif::{In, Reader, Tag};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;

use crate::util::{SMALL, at, disk_dir, ends, json, number, read_ledger};

fn names(dir: &Path) -> Vec<String> {
    let files = fs::read_dir(dir).expect("the folder").map(|file| file.expect("a name"));
    let mut names: Vec<_> =
        files.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn exported_frames_are_jpeg_files_named_after_their_exposure() {
    let dir = disk_dir();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (archive, ledger, out) = (path("a"), path("ledger"), path("jpeg"));
    ends(&format!("run {SMALL} --lossless --frames 5 --archive {archive} --ledger {ledger}"))
        .with_code(0);
    let report = json(&format!("archive export {archive} --to jpeg --out {out} --json"));
    assert_eq!((number(&report, "files"), number(&report, "damaged")), (5, 0));
    let truth = read_ledger(&dir.path().join("ledger"));
    let expected: Vec<_> =
        truth.iter().map(|entry| format!("{}_{:06}_0.jpeg", entry.sec, entry.usec)).collect();
    assert_eq!(names(Path::new(&out)), expected);
    for (entry, name) in truth.iter().zip(&expected) {
        let file = fs::read(Path::new(&out).join(name)).unwrap();
        let mut decoder = JpegDecoder::new(ZCursor::new(&file[..]));
        decoder.decode().unwrap();
        assert_eq!(decoder.dimensions(), Some((160, 120)));
        let exif =
            Reader::new().read_from_container(&mut &mut std::io::Cursor::new(&file)).unwrap();
        let text = |tag| {
            let field = exif.get_field(tag, In::PRIMARY).unwrap();
            field.display_value().to_string().replace('"', "")
        };
        assert_eq!(text(Tag::SubSecTimeOriginal), format!("{:06}", entry.usec));
        assert!(text(Tag::DateTimeOriginal).starts_with("2007-"), "virtual time begins there");
    }
    // The same once more: nothing is overwritten.
    ends(&format!("archive export {archive} --out {out}")).with_code(0);
    let mut twice = expected.clone();
    twice.extend(
        truth
            .iter()
            .map(|entry| format!("{}_{:06}_0_{}.jpeg", entry.sec, entry.usec, entry.number)),
    );
    twice.sort();
    assert_eq!(names(Path::new(&out)), twice);
}

#[test]
fn an_exported_file_is_a_source_again_and_its_scan_is_the_same_to_the_byte() {
    let dir = disk_dir();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let run = |source: &str, name: &str| {
        let (archive, ledger) = (path(&format!("a{name}")), path(&format!("l{name}")));
        ends(&format!("run {source} --lossless --frames 4 --archive {archive} --ledger {ledger}"))
            .with_code(0);
        let entries = read_ledger(Path::new(&ledger)).into_iter();
        entries.map(|entry| (entry.length, entry.crc32c)).collect::<Vec<_>>()
    };
    let first = run(SMALL, "1");
    ends(&format!("archive export {} --out {}", path("a1"), path("jpeg"))).with_code(0);
    let source = format!("--source {} --jpeg verbatim --virtual-time", path("jpeg"));
    assert_eq!(run(&source, "2"), first);
}

#[test]
fn noise_is_archived_and_cannot_be_made_into_pictures() {
    let dir = disk_dir();
    let archive = dir.path().join("a");
    let archive = archive.display();
    let books = json(&format!(
        "run --source noise:500-900 --virtual-time --lossless --frames 3 --json --archive {archive} \
         --proc decode"
    ));
    assert_eq!(at(&books, "decoded.undecodable"), 3);
    let out = dir.path().join("out");
    let export = ends(&format!("archive export {archive} --out {}", out.display()));
    export.refused(1, &["3 frames cannot be made into JPEG files"]);
    assert!(names(&out).is_empty());
}
