use std::io::Cursor;

use proptest::prelude::*;

use super::*;
use crate::rebuild;
use zune_jpeg::zune_core::colorspace::ColorSpace;

fn open(stream: &[u8]) -> Result<Y4m, String> {
    Y4m::from_reader("test", Cursor::new(stream.to_vec()), 95).map_err(|error| error.to_string())
}

fn stream(header: &str, frames: &[&[u8]]) -> Vec<u8> {
    let mut stream = format!("YUV4MPEG2 {header}\n").into_bytes();
    for frame in frames {
        stream.extend(b"FRAME\n");
        stream.extend(*frame);
    }
    stream
}

/// Left half and right half of a 32x16 picture in video levels, in planes of `columns` x `lines`.
fn halves(columns: usize, lines: usize, left: u8, right: u8) -> Vec<u8> {
    let line = [vec![left; columns / 2], vec![right; columns / 2]].concat();
    line.repeat(lines)
}

/// Cb and Cr where two flat halves are, read from a decoder.
fn decoded(stream: &[u8]) -> [[u8; 3]; 2] {
    let mut source = open(stream).unwrap();
    let picture = source.next().unwrap().unwrap();
    let pixels = rebuild::decode(&rebuild::jpeg_file(&picture), ColorSpace::YCbCr);
    let at = |x: usize| std::array::from_fn(|channel| pixels[(8 * 32 + x) * 3 + channel]);
    [at(4), at(27)]
}

fn assert_near(found: [[u8; 3]; 2], expected: [[u8; 3]; 2]) {
    for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
        assert!(found.abs_diff(*expected) <= 2, "{found} {expected}");
    }
}

#[test]
fn every_sampling_gives_the_same_picture_in_full_range() {
    let luma = halves(32, 16, 16, 235);
    for (name, columns, lines) in
        [("420", 16, 8), ("420jpeg", 16, 8), ("420paldv", 16, 8), ("422", 16, 16), ("444", 32, 16)]
    {
        let frame =
            [luma.clone(), halves(columns, lines, 128, 16), halves(columns, lines, 240, 128)];
        let stream = stream(&format!("W32 H16 F25:1 Ip A1:1 C{name}"), &[&frame.concat()]);
        assert_near(decoded(&stream), [[0, 128, 255], [255, 0, 128]]);
    }
}

#[test]
fn full_range_stays_as_it_is() {
    let frame =
        [halves(32, 16, 40, 200), halves(16, 8, 100, 128), halves(16, 8, 128, 150)].concat();
    let stream = stream("W32 H16 XCOLORRANGE=FULL", &[&frame]);
    assert_near(decoded(&stream), [[40, 100, 128], [200, 128, 150]]);
}

#[test]
fn gray_and_odd_sizes() {
    let mut source = open(&stream("W3 H5 Cmono", &[&[235; 15], &[16; 15]])).unwrap();
    for white in [true, false] {
        let picture = source.next().unwrap().unwrap();
        assert_eq!((picture.width, picture.height, picture.color_mode), (3, 5, 14));
        assert!(rebuild::luma(&picture).iter().all(|luma| (*luma > 250) == white));
    }
    assert!(source.next().unwrap().is_none() && source.next().unwrap().is_none());
    let mut odd = open(&stream("W3 H5 C420", &[&[128; 15 + 2 * 6]])).unwrap();
    let picture = odd.next().unwrap().unwrap();
    assert_eq!(rebuild::luma(&picture).len(), 15);
    assert!(odd.next().unwrap().is_none());
}

#[test]
fn what_the_header_says() {
    let source =
        open(&stream("W1920 H1080 F30000:1001 It C420mpeg2 XYSCSS=420MPEG2", &[])).unwrap();
    assert!((source.fps_hint().unwrap() - 29.97).abs() < 0.001);
    assert!(source.notes()[0].contains("interlaced"));
    let geometry = source.geometry();
    assert_eq!((geometry.width, geometry.height, geometry.color_mode), (1920, 1080, 0));
    assert_eq!(open(&stream("W2 H2 F0:0", &[])).unwrap().fps_hint(), None);
}

#[test]
fn headers_that_cannot_be_are_refused() {
    let error = |stream: &[u8]| open(stream).unwrap_err();
    assert!(error(b"").starts_with("test, picture 0: it is empty; "));
    assert!(error(b"YUV4MPEG2 W2 H2").contains("cut short in a line"));
    assert!(error(b"RIFF\n").contains("no y4m stream"));
    assert!(error(&stream("H2", &[])).contains("no width and height"));
    assert!(error(&stream("W70000 H2", &[])).contains("a size of \"70000\""));
    assert!(error(&stream("W65535 H65535", &[])).contains("is the limit"));
    for deep in ["420p10", "422p12", "mono16", "444alpha", "411"] {
        let error = error(&stream(&format!("W2 H2 C{deep}"), &[]));
        assert!(error.contains(deep) && error.contains("yuv420p"), "{error}");
    }
    let long = stream(&"X".repeat(2000), &[]);
    assert!(error(&long).contains("longer than 1024"));
}

#[test]
fn a_stream_without_a_picture_is_no_silent_end() {
    let mut source = open(&stream("W4 H4", &[])).unwrap();
    let error = source.next().unwrap_err().to_string();
    assert_eq!(error, "test, picture 0: it has a header, but no picture");
}

#[test]
fn a_stream_that_breaks_off_is_no_silent_end() {
    let whole = stream("W4 H4", &[&[1; 24], &[2; 24]]);
    let first = whole.len() - 30;
    for bytes in first + 1..whole.len() {
        let mut source = open(&whole[..bytes]).unwrap();
        assert!(source.next().unwrap().is_some());
        let error = source.next().unwrap_err().to_string();
        assert!(error.starts_with("test, picture 1: the stream is cut short"), "{error}");
    }
    let mut junk = whole.clone();
    junk[first] = b'f';
    let mut source = open(&junk).unwrap();
    source.next().unwrap();
    assert!(source.next().unwrap_err().to_string().contains("no FRAME line"));
}

proptest! {
    #![proptest_config(rebuild::seeded(300))]

    #[test]
    fn flipped_bytes_never_panic(
        flips in prop::collection::vec((0..70_usize, any::<u8>()), 1..5),
    ) {
        let mut bytes = stream("W4 H4 F25:1 C420jpeg", &[&[1; 24], &[2; 24]]);
        for (place, byte) in flips {
            bytes[place] = byte;
        }
        if let Ok(mut source) = open(&bytes) {
            while let Ok(Some(_)) = source.next() {}
        }
    }
}
