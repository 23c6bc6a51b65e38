//! JPEG files: taken as they are where the frame header can express them, else compressed anew.
use std::collections::BTreeMap;
use std::path::Path;

use circbuf_abi::ring::PAYLOAD_BYTES_MAX;
use jpeg_encoder::{ImageBuffer, JpegColorType, rgb_to_ycbcr};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::spec::{Files, read_file};
use super::{FileSize, JpegMode, PictureSet, SourceError, SourceOptions, refused};
use crate::encode::{Encoder, Scan};
use crate::jpeg_file::{JpegFile, Obstacle};

/// Pictures with more pixels are not decoded: their size may be a flipped bit, and the pixels
/// would have to fit into memory.
const DECODED_PIXELS_MAX: usize = 1 << 26;

/// Reads all files into memory.
pub(super) fn read_set(files: &Files, options: &SourceOptions) -> Result<PictureSet, SourceError> {
    let mut set = PictureSet::default();
    let mut encoder = Encoder::new(options.quality);
    let mut encoded = BTreeMap::new();
    for path in &files.paths {
        let bytes = read_file(path, PAYLOAD_BYTES_MAX.into())?;
        if let Some(obstacle) = push(&mut set, path, &bytes, (options.jpeg, &mut encoder))? {
            *encoded.entry(obstacle).or_insert(0) += 1;
        }
    }
    note_encoded(&mut set, &encoded, options.quality);
    if files.ignored > 0 {
        set.note(format!("other files in the folder, ignored: {}", files.ignored));
    }
    set.note_differences();
    Ok(set)
}

/// Adds a file, and says what stood in the way if it had to be compressed anew.
fn push(
    set: &mut PictureSet,
    path: &Path,
    bytes: &[u8],
    (mode, encoder): (JpegMode, &mut Encoder),
) -> Result<Option<Obstacle>, SourceError> {
    let file = JpegFile::parse(bytes).map_err(|error| refused(path, error))?;
    let size = FileSize { path: path.into(), width: file.width(), height: file.height() };
    let obstacle = match file.expressible() {
        Ok(found) => {
            let scan = Scan { payload: found.payload, color_mode: found.color_mode };
            set.push(size, scan, found.quality2)?;
            return Ok(None);
        }
        Err(obstacle) => obstacle,
    };
    if mode == JpegMode::Verbatim {
        let reason =
            format!("{obstacle}, which a frame header cannot express; --jpeg auto re-encodes it");
        return Err(refused(path, reason));
    }
    let pixels = decode(&file, bytes).map_err(|reason| refused(path, reason))?;
    let quality2 = encoder.quality2();
    let scan = encoder.encode(&pixels).map_err(|error| refused(path, error))?;
    set.push(size, scan, quality2)?;
    Ok(Some(obstacle))
}

fn note_encoded(set: &mut PictureSet, encoded: &BTreeMap<Obstacle, usize>, quality: u8) {
    let total: usize = encoded.values().sum();
    if total == 0 {
        return;
    }
    let reasons: Vec<_> =
        encoded.iter().map(|(obstacle, count)| format!("{obstacle} ({count})")).collect();
    set.note(format!(
        "{total} of {} JPEGs re-encoded at quality {quality}: {}",
        set.len(),
        reasons.join(", ")
    ));
}

/// Decoded pixels, one or three bytes each.
struct Pixels {
    bytes: Vec<u8>,
    width: u16,
    height: u16,
    gray: bool,
}

fn decode(file: &JpegFile<'_>, bytes: &[u8]) -> Result<Pixels, String> {
    let (width, height, gray) = (file.width(), file.height(), file.is_gray());
    if usize::from(width) * usize::from(height) > DECODED_PIXELS_MAX {
        return Err(format!(
            "{width}x{height} is too large to be decoded, the limit is {DECODED_PIXELS_MAX} pixels"
        ));
    }
    let colors = if gray { ColorSpace::Luma } else { ColorSpace::RGB };
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_out_colorspace(colors);
    let decoded = JpegDecoder::new_with_options(ZCursor::new(bytes), options)
        .decode()
        .map_err(|error| format!("cannot be decoded: {error}"))?;
    let channels = if gray { 1 } else { 3 };
    if decoded.len() != usize::from(width) * usize::from(height) * channels {
        return Err("cannot be decoded: the decoder gives another size".into());
    }
    Ok(Pixels { bytes: decoded, width, height, gray })
}

impl ImageBuffer for &Pixels {
    fn get_jpeg_color_type(&self) -> JpegColorType {
        if self.gray { JpegColorType::Luma } else { JpegColorType::Ycbcr }
    }

    fn width(&self) -> u16 {
        self.width
    }

    fn height(&self) -> u16 {
        self.height
    }

    fn fill_buffers(&self, y: u16, buffers: &mut [Vec<u8>; 4]) {
        let bytes = usize::from(self.width) * if self.gray { 1 } else { 3 };
        let line = &self.bytes[usize::from(y) * bytes..][..bytes];
        if self.gray {
            buffers[0].extend_from_slice(line);
            return;
        }
        for pixel in line.as_chunks::<3>().0 {
            let (luma, blue, red) = rgb_to_ycbcr(pixel[0], pixel[1], pixel[2]);
            buffers[0].push(luma);
            buffers[1].push(blue);
            buffers[2].push(red);
        }
    }
}
