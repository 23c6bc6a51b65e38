//! Entropy coding as the camera's compressor does it: Annex K Huffman tables, IJG quantisation,
//! 4:2:0 or one component, no restart markers, and of the JPEG file only the scan.
use circbuf_abi::header::{COLOR_MODE_COLOR, COLOR_MODE_MONO4};
use circbuf_abi::jpeg::{QUANT_CHROMA, QUANT_LUMA, marker};
use circbuf_abi::ring::PAYLOAD_BYTES_MAX;
use jpeg_encoder::{
    EncodingError, ImageBuffer, JpegColorType, QuantizationTableType, SamplingFactor,
};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};

/// Bytes behind a scan: the EOI marker.
const EOI_BYTES: usize = 2;

/// A picture that could not be compressed into a frame.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The length field of a trailer has 24 bits.
    #[error(
        "a picture of {width}x{height} takes {bytes} bytes at this quality, a frame holds \
         {PAYLOAD_BYTES_MAX}; ask for a lower quality or a smaller picture"
    )]
    TooLarge {
        /// Width in pixels.
        width: u16,
        /// Height in pixels.
        height: u16,
        /// Length of the scan in bytes.
        bytes: usize,
    },
    /// Refused by the encoder, a picture without pixels for one.
    #[error("a picture of {width}x{height} cannot be compressed: {reason}")]
    Refused {
        /// Width in pixels.
        width: u16,
        /// Height in pixels.
        height: u16,
        /// What the encoder says.
        reason: String,
    },
}

/// A compressed picture, as it goes into the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scan<'a> {
    /// Stuffed entropy-coded bytes, without markers.
    pub payload: &'a [u8],
    /// One of the frame header's `COLOR_MODE_*` constants.
    pub color_mode: u8,
}

/// Compresses pictures of one quality. The buffer is kept from one to the next.
#[derive(Debug)]
pub struct Encoder {
    quality: u8,
    file: Vec<u8>,
}

impl Encoder {
    /// An encoder of the IJG quality `quality`, which is 1 to 100.
    #[must_use]
    pub fn new(quality: u8) -> Self {
        debug_assert!((1..=100).contains(&quality));
        Self { quality, file: Vec::new() }
    }

    /// Quality of both tables, as the frame header tells it.
    #[must_use]
    pub fn quality2(&self) -> u16 {
        u16::from_le_bytes([self.quality; 2])
    }

    /// Compresses `image`. Its chroma is read where x and y are even (see [`ImageBuffer`]: a line
    /// with an odd number has to have chroma as well, but it can be anything).
    ///
    /// # Errors
    /// A picture without pixels, or whose scan is longer than the 24-bit length of a frame.
    pub fn encode(&mut self, image: impl ImageBuffer) -> Result<Scan<'_>, EncodeError> {
        let (width, height) = (image.width(), image.height());
        let color_mode = match image.get_jpeg_color_type() {
            JpegColorType::Luma => COLOR_MODE_MONO4,
            _ => COLOR_MODE_COLOR,
        };
        self.encode_file(image).map_err(|error| EncodeError::Refused {
            width,
            height,
            reason: error.to_string(),
        })?;
        let payload = scan_of(&self.file);
        if payload.len() > PAYLOAD_BYTES_MAX as usize {
            return Err(EncodeError::TooLarge { width, height, bytes: payload.len() });
        }
        Ok(Scan { payload, color_mode })
    }

    /// The scan of the picture that was compressed last; empty before the first one.
    #[must_use]
    pub fn scan(&self) -> &[u8] {
        if self.file.is_empty() { &[] } else { scan_of(&self.file) }
    }

    fn encode_file(&mut self, image: impl ImageBuffer) -> Result<(), EncodingError> {
        self.file.clear();
        let mut encoder = jpeg_encoder::Encoder::new(&mut self.file, self.quality);
        encoder.set_sampling_factor(SamplingFactor::F_2_2);
        let table = |base| {
            let table = quantisation(base, self.quality).map(u16::from);
            QuantizationTableType::Custom(Box::new(table))
        };
        encoder.set_quantization_tables(table(&QUANT_LUMA), table(&QUANT_CHROMA));
        encoder.encode_image(image)
    }
}

/// The quantisation table of an IJG quality from 1 to 100, row by row.
#[must_use]
pub fn quantisation(base: &[u8; 64], quality: u8) -> [u8; 64] {
    let quality = u32::from(quality);
    let scale = if quality < 50 { 5000 / quality } else { 200 - 2 * quality };
    base.map(|step| ((u32::from(step) * scale + 50) / 100).clamp(1, 255) as u8)
}

/// Bytes that the noise of black and white pixels would take, and a fourth more: no picture of
/// this size takes as many. At most what a frame holds.
#[must_use]
pub fn noise_bytes((width, height): (u16, u16), quality: u8, gray: bool) -> u32 {
    const SIDE: u64 = NOISE_PIXELS as u64;
    let mut encoder = Encoder::new(quality);
    let sample = encoder.encode(Noise { gray }).map_or(0, |scan| scan.payload.len() as u64);
    let squares = |pixels: u16| u64::from(pixels).next_multiple_of(16);
    let bytes = sample * squares(width) * squares(height) * 5 / 4 / (SIDE * SIDE) + NOISE_BYTES_MIN;
    u32::try_from(bytes).unwrap_or(u32::MAX).min(PAYLOAD_BYTES_MAX)
}

const NOISE_PIXELS: u16 = 128;
/// In a picture of a few blocks, one can lie far from the mean.
const NOISE_BYTES_MIN: u64 = 1024;

struct Noise {
    gray: bool,
}

impl ImageBuffer for Noise {
    fn get_jpeg_color_type(&self) -> JpegColorType {
        if self.gray { JpegColorType::Luma } else { JpegColorType::Ycbcr }
    }

    fn width(&self) -> u16 {
        NOISE_PIXELS
    }

    fn height(&self) -> u16 {
        NOISE_PIXELS
    }

    fn fill_buffers(&self, y: u16, buffers: &mut [Vec<u8>; 4]) {
        let planes = if self.gray { 1 } else { 3 };
        for (seed, plane) in buffers.iter_mut().take(planes).enumerate() {
            let mut random = Xoshiro256PlusPlus::seed_from_u64(u64::from(y) << 2 | seed as u64);
            plane.extend(
                (0..NOISE_PIXELS).map(|_| random.next_u64() as u8 >> 7).map(|bit| bit * 255),
            );
        }
    }
}

/// What stands between the header of the only scan and EOI in a file that our encoder has made.
fn scan_of(file: &[u8]) -> &[u8] {
    let mut at = 2;
    loop {
        let bytes = usize::from(u16::from_be_bytes([file[at + 2], file[at + 3]]));
        let segment = file[at + 1];
        at += 2 + bytes;
        if segment == marker::SOS {
            return &file[at..file.len() - EOI_BYTES];
        }
    }
}

#[cfg(test)]
mod tests {
    use circbuf_abi::jpeg::{HUFFMAN_TABLES, ZIGZAG};

    use super::*;
    use crate::model::Picture;
    use crate::rebuild;

    fn find(file: &[u8], kind: u8, id: u8) -> &[u8] {
        let mut at = 2;
        loop {
            let bytes = usize::from(u16::from_be_bytes([file[at + 2], file[at + 3]]));
            if file[at + 1] == kind && file[at + 4] == id {
                return &file[at + 5..at + 2 + bytes];
            }
            at += 2 + bytes;
        }
    }

    #[test]
    fn quantisation_by_hand() {
        // Quality 50 is the table itself; 80 is 40 % of it: 16 -> (640 + 50) / 100.
        assert_eq!(quantisation(&QUANT_LUMA, 50), QUANT_LUMA);
        assert_eq!(quantisation(&QUANT_LUMA, 80)[..8], [6, 4, 4, 6, 10, 16, 20, 24]);
        assert_eq!(quantisation(&QUANT_CHROMA, 100), [1; 64]);
        assert_eq!(quantisation(&QUANT_LUMA, 1)[..2], [255, 255]);
        assert_eq!(quantisation(&QUANT_LUMA, 10)[..3], [80, 55, 50]);
    }

    #[test]
    fn the_tables_in_the_encoders_file_are_those_of_the_formula_and_annex_k() {
        for quality in [1, 10, 49, 50, 51, 80, 100] {
            let mut encoder = Encoder::new(quality);
            encoder.encode(Noise { gray: false }).unwrap();
            for (id, base) in [(0, &QUANT_LUMA), (1, &QUANT_CHROMA)] {
                let steps = quantisation(base, quality);
                let zigzag = ZIGZAG.map(|at| steps[usize::from(at)]);
                assert_eq!(find(&encoder.file, marker::DQT, id), zigzag, "quality {quality}");
            }
            for table in HUFFMAN_TABLES {
                let found = find(&encoder.file, marker::DHT, table.id);
                assert_eq!(found, [&table.counts, table.symbols].concat());
            }
        }
    }

    #[test]
    fn noise_survives_at_the_best_quality_and_is_stuffed() {
        for gray in [false, true] {
            let mut encoder = Encoder::new(100);
            let Scan { payload, color_mode } = encoder.encode(Noise { gray }).unwrap();
            assert!(crate::escape::is_stuffed(payload));
            let (width, height) = (NOISE_PIXELS, NOISE_PIXELS);
            let picture =
                Picture { payload, crc32c: None, quality2: 0x6464, color_mode, width, height };
            let mut drawn = Default::default();
            (0..height).for_each(|y| Noise { gray }.fill_buffers(y, &mut drawn));
            for (decoded, luma) in rebuild::luma(&picture).iter().zip(&drawn[0]) {
                assert!(decoded.abs_diff(*luma) <= 3, "{decoded} {luma}");
            }
        }
    }

    #[test]
    fn the_bound_follows_size_and_quality_and_ends_where_frames_do() {
        let bound = |size, quality| noise_bytes(size, quality, false);
        assert!(bound((64, 64), 90) > bound((64, 64), 50));
        assert!(bound((128, 64), 50) > bound((64, 64), 50));
        assert!(bound((2048, 1536), 80) < 4_900_000, "fits four times into an NC353");
        assert_eq!(bound((65535, 65535), 100), PAYLOAD_BYTES_MAX);
    }
}
