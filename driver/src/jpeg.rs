//! The JPEG header that the camera leaves out, made again from the frame header alone.
//!
//! The ring holds entropy-coded scans only. What a decoder needs in front of them follows from
//! size, quality and colour mode, byte for byte as the camera's own `jpeghead.c` makes it:
//!
//! ```text
//! 000  FF D8                                SOI
//! 002  FF E0 00 10 "JFIF" 0 ...             APP0, version 1.1, no units, 1 x 1
//! 014  FF DB 00 43 00, 64 bytes in zigzag   DQT, luma
//! 059  FF DB 00 43 01, 64 bytes in zigzag   DQT, chroma
//! 09E  FF C0 ...                            SOF0, n components
//! ...  FF C4 ...                            DHT: DC and AC of luma, DC and AC of chroma
//! ...  FF DA ...                            SOS
//! ```
//!
//! With three components that is 623 bytes, with one 613.

use circbuf_abi::header::{COLOR_MODE_COLOR, COLOR_MODE_MONO4, COLOR_MODE_RAW16};
use circbuf_abi::jpeg::{HUFFMAN_TABLES, QUANT_CHROMA, QUANT_LUMA, ZIGZAG, marker};

use crate::ring::Geometry;

/// Bytes of the header of a colour picture, the longest there is.
pub const HEADER_BYTES_MAX: usize = 623;

/// The longest Exif block that fits an APP1 segment, whose length field counts itself.
pub const EXIF_BYTES_MAX: usize = 0xFFFF - 2;

/// Bit 7 of the low byte of quality2: the picture is turned, and so are both tables.
const PORTRAIT: u16 = 0x80;
/// Bit 15 of quality2: the second table, too, is made from the luma one.
const CHROMA_FROM_LUMA: u16 = 0x8000;

/// JFIF 1.1, no units, pixels 1 x 1, no thumbnail.
const APP0: [u8; 18] = *b"\xFF\xE0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00";

/// Why no JPEG header can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JpegHeaderError {
    /// Width or height is 0.
    #[error("a picture of {width} x {height} pixels: the frame header tells no size")]
    Size {
        /// Width as told.
        width: u16,
        /// Height as told.
        height: u16,
    },
    /// One of the two qualities is 0.
    #[error("quality2 {quality2:#06x} has a quality of 0; known are 1 to 100")]
    Quality {
        /// As in the frame header.
        quality2: u16,
    },
    /// The frame is pixels, not a scan.
    #[error("colour mode {COLOR_MODE_RAW16} is raw pixels, which have no JPEG header")]
    Raw,
    /// A colour mode that no ordinary decoder reads, or that does not exist.
    #[error(
        "colour mode {color_mode}; known are {COLOR_MODE_COLOR} (4:2:0) and {COLOR_MODE_MONO4} (gray)"
    )]
    ColorMode {
        /// As in the frame header.
        color_mode: u8,
    },
    /// The Exif block does not fit its segment.
    #[error("an Exif block of {bytes} bytes; at most {EXIF_BYTES_MAX} fit")]
    Exif {
        /// Its size.
        bytes: usize,
    },
}

/// The bytes in front of the scan, SOI to SOS.
///
/// # Errors
/// If the geometry is unknown (zeros), raw, or of a colour mode that is not a plain JPEG.
pub fn header(geometry: Geometry) -> Result<Vec<u8>, JpegHeaderError> {
    let mut header = Vec::with_capacity(HEADER_BYTES_MAX);
    append_header(geometry, &mut header)?;
    Ok(header)
}

/// As [`header`], behind what `out` holds already. Nothing is appended in case of an error.
///
/// # Errors
/// As [`header`].
pub fn append_header(geometry: Geometry, out: &mut Vec<u8>) -> Result<(), JpegHeaderError> {
    let components = components(geometry)?;
    let [luma, chroma] = quantisation(geometry.quality2)?;
    out.extend([0xFF, marker::SOI]);
    out.extend(APP0);
    for (id, table) in [(0, luma), (1, chroma)] {
        segment(out, marker::DQT, &[&[id], &table]);
    }
    append_frame(out, geometry, components);
    for table in HUFFMAN_TABLES {
        segment(out, marker::DHT, &[&[table.id], &table.counts, table.symbols]);
    }
    append_scan(out, components);
    Ok(())
}

/// A complete file: header, payload and EOI. `exif` is an Exif block that begins with "Exif" and
/// two zeros; it becomes the APP1 segment right behind SOI, where the camera puts it.
///
/// # Errors
/// As [`header`], or if the Exif block is longer than [`EXIF_BYTES_MAX`].
pub fn file(
    geometry: Geometry,
    payload: &[u8],
    exif: Option<&[u8]>,
) -> Result<Vec<u8>, JpegHeaderError> {
    let header = header(geometry)?;
    let exif_bytes = exif.map_or(0, <[u8]>::len);
    if exif_bytes > EXIF_BYTES_MAX {
        return Err(JpegHeaderError::Exif { bytes: exif_bytes });
    }
    let mut file = Vec::with_capacity(header.len() + exif_bytes + payload.len() + 6);
    let (soi, rest) = header.split_at(2);
    file.extend(soi);
    if let Some(exif) = exif {
        segment(&mut file, marker::APP1, &[exif]);
    }
    file.extend(rest);
    file.extend(payload);
    file.extend([0xFF, marker::EOI]);
    Ok(file)
}

/// A component as SOF0 and SOS name it.
#[derive(Debug)]
struct Component {
    id: u8,
    /// Horizontal and vertical sampling, a nibble each.
    sampling: u8,
    quantisation: u8,
    /// DC and AC Huffman table, a nibble each.
    huffman: u8,
}

const COLOR: [Component; 3] = [
    Component { id: 1, sampling: 0x22, quantisation: 0, huffman: 0x00 },
    Component { id: 2, sampling: 0x11, quantisation: 1, huffman: 0x11 },
    Component { id: 3, sampling: 0x11, quantisation: 1, huffman: 0x11 },
];

fn components(geometry: Geometry) -> Result<&'static [Component], JpegHeaderError> {
    let Geometry { width, height, .. } = geometry;
    if width == 0 || height == 0 {
        return Err(JpegHeaderError::Size { width, height });
    }
    match geometry.color_mode {
        COLOR_MODE_COLOR => Ok(&COLOR),
        // A scan of one component is never interleaved, so that its sampling says nothing about
        // the order of its blocks; 2 x 2 is what the camera writes, and decoders take it.
        COLOR_MODE_MONO4 => Ok(&COLOR[..1]),
        COLOR_MODE_RAW16 => Err(JpegHeaderError::Raw),
        color_mode => Err(JpegHeaderError::ColorMode { color_mode }),
    }
}

/// Both tables in zigzag order.
fn quantisation(quality2: u16) -> Result<[[u8; 64]; 2], JpegHeaderError> {
    // A camera that was given one quality uses it for both tables.
    let both = if quality2 < 0x100 { quality2 | (quality2 & 0x7F) << 8 } else { quality2 };
    let (luma, chroma) = (both & 0x7F, both >> 8 & 0x7F);
    if luma == 0 || chroma == 0 {
        return Err(JpegHeaderError::Quality { quality2 });
    }
    let portrait = both & PORTRAIT != 0;
    let second = if both & CHROMA_FROM_LUMA == 0 { &QUANT_CHROMA } else { &QUANT_LUMA };
    Ok([scaled(&QUANT_LUMA, luma, portrait), scaled(second, chroma, portrait)])
}

/// The table at a quality of 1 to 100 by the formula of the IJG; more counts as 100.
fn scaled(table: &[u8; 64], quality: u16, portrait: bool) -> [u8; 64] {
    let quality = u32::from(quality.min(100));
    let scale = if quality < 50 { 5000 / quality } else { 200 - 2 * quality };
    ZIGZAG.map(|place| {
        let place = usize::from(place);
        let place = if portrait { place % 8 * 8 + place / 8 } else { place };
        let step = (u32::from(table[place]) * scale + 50) / 100;
        step.clamp(1, 255) as u8
    })
}

fn append_frame(out: &mut Vec<u8>, geometry: Geometry, components: &[Component]) {
    let [h1, h0] = geometry.height.to_be_bytes();
    let [w1, w0] = geometry.width.to_be_bytes();
    let mut body = vec![8, h1, h0, w1, w0, components.len() as u8];
    for component in components {
        body.extend([component.id, component.sampling, component.quantisation]);
    }
    segment(out, marker::SOF0, &[&body]);
}

fn append_scan(out: &mut Vec<u8>, components: &[Component]) {
    let mut body = vec![components.len() as u8];
    for component in components {
        body.extend([component.id, component.huffman]);
    }
    // All coefficients, 0 to 63, in one pass: baseline knows nothing else.
    body.extend([0, 63, 0]);
    segment(out, marker::SOS, &[&body]);
}

/// Appends a marker segment; the length counts its own two bytes.
fn segment(out: &mut Vec<u8>, marker: u8, parts: &[&[u8]]) {
    let bytes = 2 + parts.iter().map(|part| part.len()).sum::<usize>();
    let length = u16::try_from(bytes).expect("tables are short and Exif blocks were measured");
    out.extend([0xFF, marker]);
    out.extend(length.to_be_bytes());
    parts.iter().for_each(|part| out.extend(*part));
}

#[cfg(test)]
pub(crate) mod flat;
#[cfg(test)]
mod tests;
