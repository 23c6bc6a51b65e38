//! Frames with any header and any payload, decoded; and the code in a picture.

use circbuf_driver::jpeg;
use circbuf_driver::proc::decode::{Decoder, Picture};
use circbuf_driver::proc::framecode::{self, NumberIs};
use circbuf_driver::proc::measure::Luma;
use circbuf_driver::ring::Geometry;
use circbuf_emulator::framecode::{BlockCode, CodeKind};
use circbuf_emulator::model::FrameTime;
use circbuf_emulator::source::{self, Source, SourceOptions, SourceSpec};

use super::input::Input;
use super::scratch;

/// More pixels take too long to be decoded in every turn.
const PIXELS_MAX: usize = 1 << 15;

/// Byte 0: any geometry or a small one. Then the geometry and the payload.
pub(super) fn check(bytes: &[u8]) {
    let mut input = Input::of(bytes);
    let mode = input.u8();
    let side = |input: &mut Input<'_>| match mode & 1 {
        0 => input.u16() % 200,
        _ => input.u16(),
    };
    let (width, height) = (side(&mut input), side(&mut input));
    let geometry = Geometry { width, height, quality2: input.u16(), color_mode: input.u8() };
    let payload = input.rest();
    check_header(geometry, payload);
    if usize::from(width) * usize::from(height) <= PIXELS_MAX {
        check_scan(geometry, payload);
    }
    check_code(width, height, payload);
}

/// A file is header, payload and EOI.
fn check_header(geometry: Geometry, payload: &[u8]) {
    let header = jpeg::header(geometry);
    let file = jpeg::file(geometry, payload, None);
    let (Ok(header), Ok(file)) = (&header, &file) else {
        assert!(header.is_err() && file.is_err(), "both or none");
        return;
    };
    assert!(header.len() <= jpeg::HEADER_BYTES_MAX && header.starts_with(&[0xFF, 0xD8]));
    assert_eq!(*file, [header.as_slice(), payload, &[0xFF, 0xD9]].concat());
}

/// A decoder that was used before decodes the same as a new one.
fn check_scan(geometry: Geometry, payload: &[u8]) {
    let mut decoder = Decoder::new();
    let Ok(picture) = decoder.decode_scan(geometry, payload) else { return };
    let Geometry { width, height, .. } = geometry;
    assert_eq!((picture.width, picture.height), (width.into(), height.into()));
    let luma = picture.luma.to_vec();
    assert_eq!(luma.len(), picture.width * picture.height);
    check_luma(&picture);
    let _refused = decoder.decode_scan(geometry, &payload[payload.len() / 2..]);
    let again = decoder.decode_scan(geometry, payload).expect("it was decoded before");
    assert!(again.luma == luma, "{geometry:?}: the same bytes give the same picture");
}

fn check_luma(picture: &Picture<'_>) {
    let measured = Luma::of(picture);
    assert!((0.0..=255.0).contains(&measured.mean) && (0.0..=1.0).contains(&measured.saturated));
    assert!(measured.p1 <= measured.p50 && measured.p50 <= measured.p99);
    assert!(measured.sharpness >= 0.0);
    let _number = framecode::read(picture);
}

/// What was drawn is read, and what was scribbled over it does no harm.
fn check_code(width: u16, height: u16, bytes: &[u8]) {
    let (columns, rows) = (usize::from(width), usize::from(height));
    if columns * rows > PIXELS_MAX {
        return;
    }
    let mut input = Input::of(bytes);
    let number = input.u64();
    let time = FrameTime { sec: input.u32(), usec: input.u32() % 1_000_000 };
    let code = BlockCode::new(number, time, CodeKind::Frame, width, height);
    let mut luma = vec![128; columns * rows];
    let has_room = code.width() <= columns && code.height() <= rows;
    if has_room {
        luma.chunks_exact_mut(columns).enumerate().take(code.height()).for_each(|(y, line)| {
            code.draw_line(y, line);
        });
    }
    let read = framecode::read(&Picture { width: columns, height: rows, luma: &luma });
    assert_eq!(read.is_some(), has_room, "{width} x {height}");
    if let Some(read) = read {
        assert_eq!((read.number, read.number_is), (number as u32, NumberIs::Frame));
        assert_eq!((read.time.sec, read.time.usec), (time.sec, time.usec));
    }
    luma.iter_mut().zip(input.rest()).for_each(|(luma, byte)| *luma ^= byte);
    let _number = framecode::read(&Picture { width: columns, height: rows, luma: &luma });
}

/// Small pictures as the emulator compresses them.
pub(super) fn pictures() -> impl Iterator<Item = (Geometry, Vec<u8>)> {
    let kinds = [("W8 H8 Cmono", 64), ("W16 H16", 384), ("W33 H17 C444", 1683)];
    let coded = [(false, 60), (true, 100)].map(|(gray, quality)| {
        let options = SourceOptions { width: 144, height: 72, gray, quality, ..Default::default() };
        first_picture(&SourceSpec::Synthetic { cycle: None }, &options)
    });
    let flat = kinds.map(|(header, bytes)| {
        let planes: Vec<u8> = (0..bytes).map(|at: u32| (at * 37 % 200) as u8).collect();
        let stream = [b"YUV4MPEG2 ", header.as_bytes(), b"\nFRAME\n", &planes].concat();
        scratch::with_file("a.y4m", &stream, |path| {
            let spec = SourceSpec::Y4m(source::Input::File(path));
            first_picture(&spec, &SourceOptions::default())
        })
    });
    flat.into_iter().chain(coded)
}

fn first_picture(spec: &SourceSpec, options: &SourceOptions) -> (Geometry, Vec<u8>) {
    let mut source = Source::open(spec, options).expect("a small picture");
    let time = FrameTime { sec: 1, usec: 2 };
    let picture = source.next(0, time).expect("it can be made").expect("there is one");
    let (width, height, quality2) = (picture.width, picture.height, picture.quality2);
    let geometry = Geometry { width, height, quality2, color_mode: picture.color_mode };
    (geometry, picture.payload.to_vec())
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let seed = |(geometry, payload): (Geometry, Vec<u8>)| {
        let [w, h, q] = [geometry.width, geometry.height, geometry.quality2].map(u16::to_le_bytes);
        [&[0], w.as_slice(), &h, &q, &[geometry.color_mode], &payload].concat()
    };
    pictures().map(seed).collect()
}
