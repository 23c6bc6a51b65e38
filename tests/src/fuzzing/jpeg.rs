//! JPEG files as the emulator reads them.

use circbuf_driver::jpeg;
use circbuf_driver::proc::decode::Decoder;
use circbuf_driver::ring::Geometry;
use circbuf_emulator::escape::is_stuffed;
use circbuf_emulator::jpeg_file::{Expressible, JpegError, JpegFile};
use circbuf_emulator::model::FrameTime;
use circbuf_emulator::source::{Source, SourceOptions, SourceSpec};

use super::scratch;

/// More pixels take too long to be decoded in every turn.
const PIXELS_MAX: usize = 1 << 14;

/// The bytes are the file.
pub(super) fn check(bytes: &[u8]) {
    match JpegFile::parse(bytes) {
        Ok(file) => check_file(bytes, &file),
        Err(JpegError::Truncated { at, .. } | JpegError::Segment { at, .. }) => {
            assert!(at <= bytes.len(), "byte {at} of {}", bytes.len());
        }
        Err(_) => {}
    }
}

fn check_file(bytes: &[u8], file: &JpegFile<'_>) {
    let pixels = usize::from(file.width()) * usize::from(file.height());
    assert!(pixels > 0);
    let expressible = file.expressible();
    if let Ok(expressible) = expressible {
        check_expressible(file, &expressible);
    }
    if pixels <= PIXELS_MAX {
        check_source(bytes, file, expressible.ok());
    }
}

/// The header that is made again says the same as the one that was left behind.
fn check_expressible(file: &JpegFile<'_>, expressible: &Expressible<'_>) {
    let Expressible { payload, quality2, color_mode } = *expressible;
    assert!(is_stuffed(payload), "it can stand in a ring");
    let (width, height) = (file.width(), file.height());
    let geometry = Geometry { width, height, quality2, color_mode };
    let again = jpeg::file(geometry, payload, None).expect("the header can be made");
    let parsed = JpegFile::parse(&again).expect("what was made is sound");
    assert_eq!((parsed.width(), parsed.height()), (width, height));
    assert_eq!(parsed.expressible(), Ok(*expressible));
    if usize::from(width) * usize::from(height) <= PIXELS_MAX {
        let decoded =
            Decoder::new().decode_scan(geometry, payload).map(|picture| picture.luma.len());
        assert!(decoded.is_ok(), "{geometry:?}: {decoded:?}");
    }
}

/// Taken as it is where it can be, else compressed anew; a picture of the same size either way.
fn check_source(bytes: &[u8], file: &JpegFile<'_>, expressible: Option<Expressible<'_>>) {
    let options = SourceOptions::default();
    let opened =
        scratch::with_file("a.jpeg", bytes, |path| Source::open(&SourceSpec::Jpeg(path), &options));
    let Ok(mut source) = opened else {
        assert_eq!(expressible, None, "what can be taken as it is is taken");
        return;
    };
    let geometry = source.geometry();
    assert_eq!((geometry.width, geometry.height), (file.width(), file.height()));
    let longest = source.payload_bytes_max() as usize;
    let picture = source.next(0, FrameTime::MAX).expect("it was read").expect("a set has no end");
    assert!(is_stuffed(picture.payload) && (1..=longest).contains(&picture.payload.len()));
    if let Some(expressible) = expressible {
        assert_eq!(picture.payload, expressible.payload, "byte for byte");
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    super::decode::pictures().map(|(geometry, payload)| file(geometry, &payload)).collect()
}

fn file(geometry: Geometry, payload: &[u8]) -> Vec<u8> {
    jpeg::file(geometry, payload, None).expect("a geometry of the emulator's own")
}
