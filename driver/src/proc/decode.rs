//! Decodes frames into their luma, for measurements.

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use circbuf_abi::jpeg::marker;

use crate::frame::Frame;
use crate::jpeg::{self, JpegHeaderError};
use crate::ring::Geometry;

/// The largest width and height that are decoded, in pixels. A frame header is not checked by
/// anything but its signature, and 65535 x 65535 pixels would take 4 GiB.
pub const SIDE_MAX: u16 = 16384;

/// What the decoder finds if it reads past a scan that ends early. Behind EOI it would read zeros,
/// which are codes, and decode garbage in silence; no table has a code of 16 ones.
const BEHIND_SCAN: [u8; 18] =
    [0xFF, 0, 0xFF, 0, 0xFF, 0, 0xFF, 0, 0xFF, 0, 0xFF, 0, 0xFF, 0, 0xFF, 0, 0xFF, marker::EOI];

/// The luma of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picture<'a> {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// One byte a pixel, row by row, `width * height` of them.
    pub luma: &'a [u8],
}

/// Why a frame has no picture.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The frame header tells of none.
    #[error("no picture: {0}")]
    Header(#[from] JpegHeaderError),
    /// Larger than what is decoded.
    #[error("a picture of {width} x {height} pixels; at most {SIDE_MAX} x {SIDE_MAX} are decoded")]
    Size {
        /// Width as told.
        width: u16,
        /// Height as told.
        height: u16,
    },
    /// The scan is broken.
    #[error("the scan of {bytes} bytes for {width} x {height} pixels is broken: {reason}")]
    Scan {
        /// Bytes of the payload.
        bytes: usize,
        /// Width as told.
        width: u16,
        /// Height as told.
        height: u16,
        /// What the decoder says.
        reason: String,
    },
}

/// A decoder with the buffers that it needs again for every frame.
#[derive(Debug, Default)]
pub struct Decoder {
    file: Vec<u8>,
    luma: Vec<u8>,
}

impl Decoder {
    /// A decoder without buffers; they grow with the first frame.
    #[must_use]
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Decodes the luma of a frame.
    ///
    /// # Errors
    /// If no JPEG header can be made for it, it is too large, or its scan is broken or ends early.
    pub fn decode(&mut self, frame: &Frame) -> Result<Picture<'_>, DecodeError> {
        self.decode_scan(frame.geometry(), frame.payload())
    }

    /// Decodes the luma of a scan of which the geometry is known otherwise.
    ///
    /// # Errors
    /// As [`Decoder::decode`].
    pub fn decode_scan(
        &mut self,
        geometry: Geometry,
        payload: &[u8],
    ) -> Result<Picture<'_>, DecodeError> {
        let Geometry { width, height, .. } = geometry;
        if width > SIDE_MAX || height > SIDE_MAX {
            return Err(DecodeError::Size { width, height });
        }
        let broken = |reason| DecodeError::Scan { bytes: payload.len(), width, height, reason };
        if let Some(at) = unstuffed(payload) {
            return Err(broken(format!("an FF without 00 behind it at byte {at}")));
        }
        self.file.clear();
        jpeg::append_header(geometry, &mut self.file)?;
        self.file.extend(payload);
        self.file.extend(BEHIND_SCAN);
        let (columns, rows) = (usize::from(width), usize::from(height));
        self.luma.resize(columns * rows, 0);
        decode_luma(&self.file, &mut self.luma).map_err(broken)?;
        Ok(Picture { width: columns, height: rows, luma: &self.luma })
    }
}

/// Place of the first FF that is not stuffed. The decoder would take it for a marker: end the picture
/// there, or leave bytes out, and count what was in the buffer before as decoded.
fn unstuffed(payload: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(found) = payload[from..].iter().position(|&byte| byte == 0xFF) {
        let at = from + found;
        if payload.get(at + 1) != Some(&0) {
            return Some(at);
        }
        from = at + 2;
    }
    None
}

fn decode_luma(file: &[u8], luma: &mut [u8]) -> Result<(), String> {
    let options = DecoderOptions::default()
        // Otherwise the rest of a broken scan is filled up with gray and counts as decoded.
        .set_strict_mode(true)
        .set_max_width(usize::from(SIDE_MAX))
        .set_max_height(usize::from(SIDE_MAX))
        .jpeg_set_out_colorspace(ColorSpace::Luma);
    JpegDecoder::new_with_options(ZCursor::new(file), options)
        .decode_into(luma)
        .map_err(|error| format!("{error:?}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::jpeg::flat;

    fn level(column: usize, row: usize) -> u8 {
        (16 + (column * 7 + row * 31) % 220) as u8
    }

    fn assert_flat_blocks(geometry: Geometry) {
        let scan = flat::scan(geometry, level);
        let mut decoder = Decoder::new();
        let picture = decoder.decode_scan(geometry, &scan).expect("a whole scan");
        assert_eq!(
            (picture.width, picture.height),
            (geometry.width.into(), geometry.height.into())
        );
        for (index, &luma) in picture.luma.iter().enumerate() {
            let (x, y) = (index % picture.width, index / picture.width);
            assert_eq!(luma, level(x / 8, y / 8), "pixel {x}, {y} of {geometry:?}");
        }
    }

    #[test]
    fn every_block_of_a_gray_picture_lands_in_its_place() {
        for (width, height) in [(8, 8), (16, 16), (24, 40), (33, 17), (640, 480), (1, 1)] {
            assert_flat_blocks(flat::gray(width, height));
        }
    }

    #[test]
    fn every_block_of_a_colour_picture_lands_in_its_place() {
        for (width, height) in [(16, 16), (48, 32), (33, 17), (40, 24), (640, 480), (8, 8)] {
            assert_flat_blocks(flat::color(width, height));
        }
    }

    #[test]
    fn a_scan_that_ends_early_is_an_error() {
        for geometry in [flat::gray(64, 64), flat::color(64, 64)] {
            let scan = flat::scan(geometry, level);
            for cut in 1..scan.len() {
                let mut decoder = Decoder::new();
                let result = decoder.decode_scan(geometry, &scan[..cut]);
                let is_broken = matches!(result, Err(DecodeError::Scan { .. }));
                assert!(is_broken, "{cut} of {} bytes of {geometry:?}", scan.len());
            }
        }
    }

    /// Found by fuzzing: behind a marker, pixels of the picture before were taken for decoded.
    #[test]
    fn a_marker_in_a_scan_is_an_error() {
        let geometry = flat::gray(64, 64);
        let scan = flat::scan(geometry, level);
        for marker in [marker::EOI, marker::APP1, 0xD0, 0x01] {
            for at in 0..scan.len() {
                let mut broken = scan.clone();
                broken.splice(at..at, [0xFF, marker, 0, 2]);
                let is_broken = Decoder::new().decode_scan(geometry, &broken).is_err();
                assert!(is_broken, "FF {marker:02X} at {at} of {}", scan.len());
            }
        }
        let ends_in_ff = [scan.as_slice(), &[0xFF]].concat();
        assert!(Decoder::new().decode_scan(geometry, &ends_in_ff).is_err());
    }

    #[test]
    fn what_has_no_header_or_is_too_large_is_refused() {
        let mut decoder = Decoder::new();
        let zero = decoder.decode_scan(Geometry::default(), &[0]).unwrap_err();
        assert!(matches!(zero, DecodeError::Header(JpegHeaderError::Size { .. })));
        let large = decoder.decode_scan(flat::gray(16385, 1), &[0]).unwrap_err();
        assert!(large.to_string().contains("16385 x 1"), "{large}");
    }

    #[test]
    fn a_smaller_picture_after_a_larger_one_has_its_own_size() {
        let mut decoder = Decoder::new();
        for geometry in [flat::gray(64, 64), flat::gray(16, 8)] {
            let scan = flat::scan(geometry, level);
            let picture = decoder.decode_scan(geometry, &scan).unwrap();
            assert_eq!(picture.luma.len(), picture.width * picture.height);
        }
    }

    fn stuffed(bytes: Vec<u8>) -> Vec<u8> {
        bytes.into_iter().flat_map(|b| [Some(b), (b == 0xFF).then_some(0)]).flatten().collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn random_scans_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 1..6000),
            (width, height, gray, stuff) in (1u16..200, 1u16..200, any::<bool>(), any::<bool>()),
        ) {
            let geometry = if gray { flat::gray(width, height) } else { flat::color(width, height) };
            let payload = if stuff { stuffed(bytes) } else { bytes };
            let _ = Decoder::new().decode_scan(geometry, &payload);
        }

        #[test]
        fn a_scan_with_flipped_bytes_never_panics(
            flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            gray in any::<bool>(),
        ) {
            let geometry = if gray { flat::gray(120, 88) } else { flat::color(120, 88) };
            let mut scan = flat::scan(geometry, level);
            flips.iter().for_each(|(at, value)| *at.get_mut(&mut scan) = *value);
            let _ = Decoder::new().decode_scan(geometry, &scan);
        }
    }

    #[test]
    fn noise_of_a_frame_s_size_decodes_to_nothing() {
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        });
        let noise = stuffed(noise.take(100_000).collect());
        assert!(Decoder::new().decode_scan(flat::color(640, 480), &noise).is_err());
    }
}
