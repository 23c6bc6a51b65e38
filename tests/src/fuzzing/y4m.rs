//! YUV4MPEG2 streams as the emulator reads them.

use circbuf_driver::proc::decode::Decoder;
use circbuf_driver::ring::Geometry;
use circbuf_emulator::escape::is_stuffed;
use circbuf_emulator::model::{FrameTime, Picture};
use circbuf_emulator::source::{Input, Source, SourceOptions, SourceSpec};

use super::scratch;

const FRAMES_MAX: u64 = 8;

/// The bytes are the stream.
pub(super) fn check(bytes: &[u8]) {
    let opened = scratch::with_file("a.y4m", bytes, |path| {
        Source::open(&SourceSpec::Y4m(Input::File(path)), &SourceOptions::default())
    });
    let Ok(mut source) = opened else { return };
    assert!(bytes.starts_with(b"YUV4MPEG2"));
    assert!(source.fps_hint().is_none_or(|fps| fps.is_finite() && fps > 0.0));
    let geometry = source.geometry();
    let (longest, mut frames) = (source.payload_bytes_max() as usize, 0);
    let ended = loop {
        match source.next(frames, FrameTime::MAX) {
            Ok(Some(picture)) => check_picture(&picture, geometry.width, longest),
            Ok(None) => break true,
            Err(_) => break false,
        }
        frames += 1;
        if frames == FRAMES_MAX {
            return;
        }
    };
    let (whole, rest) = frames_in(bytes, frame_bytes(bytes, geometry.width, geometry.height));
    // A stream without a picture is an error.
    let is_whole = rest == 0 && whole > 0;
    assert_eq!((frames, ended), (whole, is_whole), "frames, and whether nothing is behind them");
}

fn check_picture(picture: &Picture<'_>, width: u16, longest: usize) {
    assert!(is_stuffed(picture.payload) && (1..=longest).contains(&picture.payload.len()));
    assert_eq!(picture.width, width);
    let (height, quality2, color_mode) = (picture.height, picture.quality2, picture.color_mode);
    let geometry = Geometry { width, height, quality2, color_mode };
    let mut decoder = Decoder::new();
    let decoded = decoder.decode_scan(geometry, picture.payload).expect("a whole scan");
    assert_eq!(decoded.luma.len(), usize::from(width) * usize::from(height));
}

/// Bytes of a picture, by the last colour that the header names.
fn frame_bytes(stream: &[u8], width: u16, height: u16) -> usize {
    let line = stream.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut fields = line[b"YUV4MPEG2".len()..].split(u8::is_ascii_whitespace);
    let color = fields.rfind(|field| field.first() == Some(&b'C'));
    let (width, height) = (usize::from(width), usize::from(height));
    let chroma = match color {
        Some(b"Cmono") => 0,
        Some(b"C422") => width.div_ceil(2) * height,
        Some(b"C444") => width * height,
        _ => width.div_ceil(2) * height.div_ceil(2),
    };
    width * height + 2 * chroma
}

/// Whole frames behind the header, and bytes behind the last of them.
fn frames_in(stream: &[u8], frame_bytes: usize) -> (u64, usize) {
    let behind_line = |bytes: &[u8]| bytes.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
    let mut rest = &stream[behind_line(stream).unwrap_or(stream.len())..];
    let mut frames = 0;
    while let Some(line) = behind_line(rest).filter(|line| *line < 1025) {
        let is_frame = rest.starts_with(b"FRAME\n") || rest.starts_with(b"FRAME ");
        let Some(behind) = rest.get(line + frame_bytes..).filter(|_| is_frame) else { break };
        (rest, frames) = (behind, frames + 1);
    }
    (frames, rest.len())
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let stream = |header: &str, frame_bytes: usize| {
        let frame = [b"FRAME\n".as_slice(), &vec![0x55; frame_bytes]].concat();
        [b"YUV4MPEG2 ", header.as_bytes(), b"\n", &frame, &frame].concat()
    };
    vec![
        stream("W8 H8 F25:1 Ip A1:1 C420jpeg", 96),
        stream("W5 H3 F30000:1001 It Cmono XCOLORRANGE=FULL", 15),
        stream("W6 H4 C422", 48),
        stream("W3 H2 C444", 18),
        stream("W4 H4", 24)[..60].to_vec(),
        b"YUV4MPEG2 W4 H4\n".to_vec(),
    ]
}
