//! Arrays of numpy as the emulator reads them.

use circbuf_driver::proc::decode::Decoder;
use circbuf_driver::ring::Geometry;
use circbuf_emulator::escape::is_stuffed;
use circbuf_emulator::model::FrameTime;
use circbuf_emulator::source::{Source, SourceError, SourceOptions, SourceSpec};

use super::input::Input;
use super::scratch;

/// How far compression at quality 100 may take a level away.
const LEVELS_OFF_MAX: i32 = 8;

/// Byte 0: whether there is a window, and whether the file follows or an array.
pub(super) fn check(bytes: &[u8]) {
    let mut input = Input::of(bytes);
    let mode = input.u8();
    let window = (mode & 1 != 0).then(|| match mode & 2 {
        0 => (f64::from(input.u16()) - 32768.0, f64::from(input.u16())),
        _ => (f64::from_bits(input.u64()), f64::from_bits(input.u64())),
    });
    if mode & 4 == 0 {
        check_file(input.rest(), window);
    } else {
        check_array(input, window);
    }
}

fn open(file: &[u8], window: Option<(f64, f64)>) -> Result<Source, SourceError> {
    let options = SourceOptions { quality: 100, window, ..SourceOptions::default() };
    scratch::with_file("a.npy", file, |path| Source::open(&SourceSpec::Npy(path), &options))
}

/// A picture of as many pixels as the file has data for.
fn check_file(file: &[u8], window: Option<(f64, f64)>) {
    let Ok(mut source) = open(file, window) else { return };
    let geometry = source.geometry();
    let pixels = usize::from(geometry.width) * usize::from(geometry.height);
    assert!(pixels > 0 && pixels < file.len(), "{geometry:?} from {} bytes", file.len());
    assert_eq!(decoded(&mut source).len(), pixels);
}

fn decoded(source: &mut Source) -> Vec<u8> {
    let picture = source.next(0, FrameTime::MAX).expect("it was read").expect("a set has no end");
    assert!(is_stuffed(picture.payload));
    let (width, height, quality2) = (picture.width, picture.height, picture.quality2);
    let geometry = Geometry { width, height, quality2, color_mode: picture.color_mode };
    let mut decoder = Decoder::new();
    decoder.decode_scan(geometry, picture.payload).expect("a whole scan").luma.to_vec()
}

/// An array that was stored as numpy does it comes out as levels of gray.
fn check_array(mut input: Input<'_>, window: Option<(f64, f64)>) {
    let (kind, width, height) = (input.u8() % 3, 1 + input.u8() % 48, 1 + input.u8() % 48);
    let (descr, bytes) = [("|u1", 1), ("<i2", 2), ("<u2", 2)][usize::from(kind)];
    let pixels = usize::from(width) * usize::from(height);
    let mut data = input.rest().to_vec();
    data.resize(pixels * bytes, 0x55);
    let values: Vec<i32> = data
        .chunks_exact(bytes)
        .map(|value| match (kind, value) {
            (1, &[low, high]) => i16::from_le_bytes([low, high]).into(),
            (_, &[low, high]) => u16::from_le_bytes([low, high]).into(),
            _ => value[0].into(),
        })
        .collect();
    let opened = open(&file(descr, (height.into(), width.into()), &data), window);
    let lawful = window.is_none_or(|(low, high)| low.is_finite() && high.is_finite() && low < high);
    assert_eq!(opened.is_ok(), lawful, "{opened:?}");
    let Ok(mut source) = opened else { return };
    let levels = levels(&values, window);
    let far = |(got, wanted): (&u8, &f64)| (f64::from(*got) - wanted).abs() > LEVELS_OFF_MAX.into();
    let decoded = decoded(&mut source);
    assert_eq!(decoded.len(), pixels);
    assert!(!decoded.iter().zip(&levels).any(far), "{levels:?} came as {decoded:?}");
}

fn levels(values: &[i32], window: Option<(f64, f64)>) -> Vec<f64> {
    let edge = |value: Option<&i32>| f64::from(*value.expect("there is a pixel"));
    let (low, high) = window.unwrap_or_else(|| {
        let (low, high) = (edge(values.iter().min()), edge(values.iter().max()));
        (low, high.max(low + 1.0))
    });
    let level = |value: &i32| {
        let level = ((f64::from(*value) - low) / (high - low) * 255.0).clamp(0.0, 255.0);
        if level.is_nan() { 0.0 } else { level }
    };
    values.iter().map(level).collect()
}

fn file(descr: &str, (rows, columns): (u16, u16), data: &[u8]) -> Vec<u8> {
    let header =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({rows}, {columns}), }}\n");
    let length = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\0", length.as_slice(), header.as_bytes(), data].concat()
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let raw = |descr, data: &[u8]| [&[0], file(descr, (2, 3), data).as_slice()].concat();
    let windowed = [&[1, 0, 0, 0, 1], file("<i2", (1, 1), &[1, 2]).as_slice()].concat();
    let mut newer = raw("<u2", &[7; 12]);
    newer.splice(7..9, [2, 0]);
    newer.splice(11..11, [0, 0]);
    vec![
        raw("|u1", &[1, 2, 3, 4, 5, 6]),
        raw("<i2", &[0, 1, 2, 0x80, 3, 4, 5, 6, 7, 8, 9, 0xFF]),
        windowed,
        newer,
        vec![4, 0, 15, 7, 0, 255, 128, 3],
        vec![4, 1, 7, 7, 0, 255, 128, 3],
        vec![5, 0, 0, 0, 0x80, 2, 8, 16, 1, 2, 3, 4],
    ]
}
