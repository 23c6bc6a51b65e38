use std::fs;
use std::path::{Path, PathBuf};

use jpeg_encoder::{ColorType, SamplingFactor};
use tempfile::TempDir;

use super::*;
use crate::rebuild;

fn spec(text: &str) -> SourceSpec {
    text.parse().unwrap()
}

fn path(path: &Path) -> SourceSpec {
    SourceSpec::Path(path.into())
}

fn write(folder: &TempDir, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn jpeg(width: u16, height: u16, sampling: SamplingFactor) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut file, 75);
    encoder.set_sampling_factor(sampling);
    let pixels: Vec<u8> =
        (0..usize::from(width) * usize::from(height)).flat_map(|at| [at as u8, 90, 200]).collect();
    encoder.encode(&pixels, width, height, ColorType::Rgb).unwrap();
    file
}

fn npy(height: u16, width: u16, level: u8) -> Vec<u8> {
    let header =
        format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({height}, {width}), }}\n");
    let mut file = b"\x93NUMPY\x01\0".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.bytes());
    file.extend((0..usize::from(width) * usize::from(height)).map(|at| level ^ at as u8));
    file
}

fn open(spec: &SourceSpec) -> Result<Source, String> {
    Source::open(spec, &SourceOptions::default()).map_err(|error| error.to_string())
}

fn payload(source: &mut Source, number: u64) -> Vec<u8> {
    source.next(number, FrameTime::default()).unwrap().unwrap().payload.to_vec()
}

#[test]
fn names_of_sources() {
    assert_eq!(spec("synthetic"), SourceSpec::Synthetic { cycle: None });
    assert_eq!(spec("synthetic:25"), SourceSpec::Synthetic { cycle: Some(25) });
    assert_eq!(spec("noise:8"), SourceSpec::Noise { bytes_min: 8, bytes_max: 8 });
    assert_eq!(spec("noise:1-99"), SourceSpec::Noise { bytes_min: 1, bytes_max: 99 });
    assert_eq!(spec("y4m:-"), SourceSpec::Y4m(Input::Stdin));
    assert_eq!(spec("y4m:a:b"), SourceSpec::Y4m(Input::File("a:b".into())));
    assert_eq!(spec("jpeg:x"), SourceSpec::Jpeg("x".into()));
    assert_eq!(spec("npy:x"), SourceSpec::Npy("x".into()));
    assert_eq!(spec("some/folder"), SourceSpec::Path("some/folder".into()));
    for bad in [
        "",
        "jpeg:",
        "y4m:",
        "noise",
        "noise:0",
        "noise:9-8",
        "noise:1-16777216",
        "noise:x",
        "synthetic:0",
        "synthetic:-1",
        "synthetic:",
        "synthetic:1000000",
    ] {
        let error = bad.parse::<SourceSpec>().unwrap_err().to_string();
        assert!(error.starts_with(&format!("source {bad:?}: ")), "{error}");
    }
}

#[test]
fn jpegs_go_round_in_order_of_their_names_byte_for_byte() {
    let folder = TempDir::new().unwrap();
    let second = jpeg(64, 48, SamplingFactor::F_2_2);
    write(&folder, "b.JPG", &second);
    write(&folder, "a.jpeg", jpeg(64, 48, SamplingFactor::F_2_1));
    write(&folder, "notes.txt", "");
    let mut source = open(&path(folder.path())).unwrap();
    assert_eq!(
        source.geometry(),
        Geometry { width: 64, height: 48, quality2: 80 << 8 | 80, color_mode: 0 }
    );
    assert_eq!(
        source.notes(),
        [
            "1 of 2 JPEGs re-encoded at quality 80: colour sampled otherwise than 4:2:0 (1)",
            "other files in the folder, ignored: 1",
            "1 of 2 pictures differ from the first in quality or colour, and a bare ring tells \
             only that of the first",
        ]
    );
    let verbatim = payload(&mut source, 1);
    assert!(second.ends_with(&[&verbatim[..], &[0xFF, 0xD9]].concat()));
    assert_eq!(payload(&mut source, u64::MAX), verbatim);
    assert_eq!(payload(&mut source, 2), payload(&mut source, 0));
    let longest = verbatim.len().max(payload(&mut source, 0).len());
    assert_eq!(source.payload_bytes_max() as usize, longest);
}

#[test]
fn a_jpeg_encoded_anew_looks_the_same() {
    let folder = TempDir::new().unwrap();
    let file = jpeg(64, 48, SamplingFactor::F_1_1);
    write(&folder, "a.jpg", &file);
    let mut source = open(&path(folder.path())).unwrap();
    let picture = source.next(0, FrameTime::default()).unwrap().unwrap();
    let colors = zune_jpeg::zune_core::colorspace::ColorSpace::Luma;
    let before = rebuild::decode(&file, colors);
    let off =
        rebuild::luma(&picture).into_iter().zip(before).map(|(a, b)| u64::from(a.abs_diff(b)));
    assert!(off.sum::<u64>() < 64 * 48 * 6);
}

#[test]
fn with_verbatim_a_jpeg_that_does_not_fit_is_refused_by_name() {
    let folder = TempDir::new().unwrap();
    write(&folder, "odd.jpg", jpeg(64, 48, SamplingFactor::F_2_1));
    let options = SourceOptions { jpeg: JpegMode::Verbatim, ..SourceOptions::default() };
    let error = Source::open(&path(folder.path()), &options).unwrap_err().to_string();
    assert!(error.contains("odd.jpg: colour sampled otherwise"), "{error}");
}

#[test]
fn pictures_of_different_sizes_are_named_both() {
    let folder = TempDir::new().unwrap();
    write(&folder, "a.jpg", jpeg(64, 48, SamplingFactor::F_2_2));
    write(&folder, "b.jpg", jpeg(48, 64, SamplingFactor::F_2_2));
    let error = open(&path(folder.path())).unwrap_err();
    assert!(error.contains("a.jpg is 64x48") && error.contains("b.jpg is 48x64"), "{error}");
}

#[test]
fn what_is_missing_or_empty_or_no_picture_is_told() {
    let folder = TempDir::new().unwrap();
    let error = |path: &Path| open(&SourceSpec::Path(path.into())).unwrap_err();
    assert!(error(folder.path()).contains("the folder is empty"));
    assert!(error(&folder.path().join("none")).starts_with("cannot read "));
    let empty = write(&folder, "empty", "");
    assert!(error(&empty).ends_with("the file is empty"));
    let text = write(&folder, "text", "some words");
    assert!(error(&text).ends_with("neither a JPEG nor an npy nor a y4m file"));
    assert!(error(folder.path()).contains("none of the 2 files"));
    let hollow = write(&folder, "hollow.jpg", "");
    assert!(error(&hollow).contains("hollow.jpg: no JPEG file"));
    let mut file = jpeg(64, 48, SamplingFactor::F_2_2);
    file.truncate(file.len() / 2);
    let cut = write(&folder, "cut.jpg", file);
    assert!(error(&cut).contains("cut.jpg: cut short"));
}

#[test]
fn a_file_too_large_is_refused_before_it_is_read() {
    let folder = TempDir::new().unwrap();
    for (name, bytes) in [("a.jpg", 1 << 24), ("b.npy", (1 << 28) + 1)] {
        let path = write(&folder, name, "");
        fs::File::options().write(true).open(&path).unwrap().set_len(bytes).unwrap();
        let error = open(&SourceSpec::Path(path)).unwrap_err();
        assert!(error.ends_with(&format!("{bytes} bytes; {} is the limit", bytes - 1)), "{error}");
    }
}

#[test]
fn a_folder_of_two_kinds_is_refused_unless_one_is_named() {
    let folder = TempDir::new().unwrap();
    write(&folder, "a.jpg", jpeg(64, 48, SamplingFactor::F_2_2));
    write(&folder, "b.npy", npy(48, 64, 7));
    let error = open(&path(folder.path())).unwrap_err();
    assert!(error.contains("a.jpg") && error.contains("b.npy"), "{error}");
    let source = open(&SourceSpec::Npy(folder.path().into())).unwrap();
    assert_eq!(source.geometry().color_mode, 14);
    assert_eq!(source.notes()[1], "other files in the folder, ignored: 1");
}

#[test]
fn the_kind_of_a_file_without_a_name_is_told_by_its_content() {
    let folder = TempDir::new().unwrap();
    let jpeg = write(&folder, "one", jpeg(64, 48, SamplingFactor::F_2_2));
    let npy = write(&folder, "two", npy(48, 64, 7));
    let y4m = write(&folder, "three", "YUV4MPEG2 W2 H2 Cmono\nFRAME\nabcd");
    assert!(matches!(open(&path(&jpeg)), Ok(Source::Jpeg(_))));
    assert!(matches!(open(&path(&npy)), Ok(Source::Npy(_))));
    assert!(matches!(open(&path(&y4m)), Ok(Source::Y4m(_))));
}

#[test]
fn options_that_cannot_be_are_refused() {
    let error = |options| Source::open(&spec("noise:1"), &options).unwrap_err().to_string();
    for quality in [0, 101] {
        assert!(error(SourceOptions { quality, ..Default::default() }).contains("1 to 100"));
    }
    for window in [(1.0, 1.0), (2.0, 1.0), (f64::NAN, 1.0), (0.0, f64::INFINITY)] {
        let options = SourceOptions { window: Some(window), ..Default::default() };
        assert!(error(options).starts_with("a window from"));
    }
}

#[test]
fn noise_says_that_it_decodes_to_nothing() {
    let source = open(&spec("noise:100-200")).unwrap();
    assert_eq!((source.geometry(), source.payload_bytes_max()), (Geometry::default(), 200));
    assert_eq!(source.notes(), ["noise decodes to nothing: its bitstreams are random"]);
}
