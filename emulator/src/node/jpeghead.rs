//! The JPEG header that a camera makes for a frame, byte for byte as its `jpegheader_create` does.
use circbuf_abi::header::{
    BAYER_SHIFT, COLOR_MODE, COLOR_MODE_COLOR, COLOR_MODE_MONO4, HEADER_BYTES, HEIGHT, LENGTH,
    QUALITY2, SIGNATURE, SIGNATURE_OFFSET, WIDTH,
};
use circbuf_abi::jpeg::{HUFFMAN_TABLES, QUANT_CHROMA, QUANT_LUMA, ZIGZAG, marker};
use circbuf_abi::node::{JPEGHEAD_SELECTOR, JPEGHEAD_TABLES};
use nix::errno::Errno;
use nix::libc::{SEEK_CUR, SEEK_END, SEEK_SET};

use super::{Answer, Node, Sought};

/// The camera's buffer for a header, in bytes (`JPEG_HEADER_MAXSIZE`).
pub const HEADER_BYTES_MAX: usize = 0x300;

/// JFIF 1.1, no units, pixels 1 x 1, no thumbnail.
const APP0: [u8; 18] = *b"\xFF\xE0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00";

/// Bit 7 of the luma quality: both tables are transposed.
const PORTRAIT: u8 = 0x80;

/// Bit 7 of the chroma quality: the luma table serves for chroma too.
const LUMA_FOR_CHROMA: u8 = 0x80;

/// Colour modes besides the plain ones (`c313a.h`).
const MONO6: u8 = 1;
const JP46: u8 = 2;
const JP46DC: u8 = 3;
const COLOR20: u8 = 4;
const JP4: u8 = 5;
const JP4DC: u8 = 6;
const JP4DIFF: u8 = 7;
const JP4HDR: u8 = 8;
const JP4DIFF2: u8 = 9;
const JP4HDR2: u8 = 10;

/// A component: identifier, sampling, quantisation table; and its Huffman tables in the scan.
type Component = ([u8; 3], u8);

impl Node {
    /// `lseek(fd, command, SEEK_END)` on `/dev/jpegheadN`, with a command above 0: the bytes that
    /// can be read from the beginning of the file afterwards.
    ///
    /// # Errors
    /// EINVAL if no whole frame starts where the command says.
    pub fn jpeg_header(&self, command: i64) -> Result<Vec<u8>, Errno> {
        let start = (command & !JPEGHEAD_SELECTOR) as u64;
        // A frame that was found by NEXT at the end of the ring has the ring's size for its place.
        if start > self.ring_bytes() {
            return Err(Errno::EINVAL);
        }
        let slot = self.ring.chunk_before(start);
        let is_signed = slot[SIGNATURE_OFFSET..LENGTH] == SIGNATURE.to_le_bytes();
        if !is_signed || slot[HEADER_BYTES - 1] != 0 {
            return Err(Errno::EINVAL);
        }
        match command & JPEGHEAD_SELECTOR {
            JPEGHEAD_TABLES => Ok(quantisation(&slot).concat()),
            _ => Ok(header(&slot)),
        }
    }
}

fn header(slot: &[u8; HEADER_BYTES]) -> Vec<u8> {
    let components = components(slot[COLOR_MODE], slot[BAYER_SHIFT]);
    let mut out = vec![0xFF, marker::SOI];
    out.extend(APP0);
    for (id, table) in (0..).zip(quantisation(slot)) {
        segment(&mut out, marker::DQT, &[&[id], &table]);
    }
    let count = components.len() as u8;
    let [height, width] = [HEIGHT, WIDTH].map(|field| [slot[field + 1], slot[field]]);
    let described: Vec<u8> = components.iter().flat_map(|(frame, _)| *frame).collect();
    segment(&mut out, marker::SOF0, &[&[8], &height, &width, &[count], &described]);
    for table in HUFFMAN_TABLES {
        segment(&mut out, marker::DHT, &[&[table.id], &table.counts, table.symbols]);
    }
    let scanned: Vec<u8> = components.iter().flat_map(|([id, ..], scan)| [*id, *scan]).collect();
    segment(&mut out, marker::SOS, &[&[count], &scanned, &[0, 0x3F, 0]]);
    out
}

fn segment(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    let bytes = 2 + parts.iter().map(|part| part.len()).sum::<usize>();
    out.extend([0xFF, kind]);
    out.extend((bytes as u16).to_be_bytes());
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// The components of a colour mode; none for one that the camera does not know either, and for raw
/// pixels, whose header nobody asks for.
fn components(color_mode: u8, bayer_shift: u8) -> Vec<Component> {
    let dc = |id| ([id, 0x11, 0], 0x00);
    match color_mode {
        COLOR_MODE_COLOR | MONO6 | JP46 | COLOR20 => {
            vec![([1, 0x22, 0], 0x00), ([2, 0x11, 1], 0x11), ([3, 0x11, 1], 0x11)]
        }
        JP46DC => (1..=4).map(dc).chain((5..=6).map(|id| ([id, 0x11, 1], 0x11))).collect(),
        COLOR_MODE_MONO4 => vec![([1, 0x22, 0], 0x00)],
        JP4 => vec![([4, 0x22, 0], 0x00)],
        JP4DC => (4..=7).map(dc).collect(),
        JP4DIFF | JP4DIFF2 => differences(&[4_u8.wrapping_sub(bayer_shift) & 3]),
        JP4HDR | JP4HDR2 => differences(&[4, 6].map(|from: u8| from.wrapping_sub(bayer_shift) & 3)),
        _ => Vec::new(),
    }
}

/// Four components of which those in `bases` are pixels, and the others differences to them.
fn differences(bases: &[u8]) -> Vec<Component> {
    let component = |at| match bases.contains(&at) {
        true => ([4 + at, 0x11, 0x00], 0x00),
        false => ([4 + at, 0x11, 0x11], 0x11),
    };
    (0..4).map(component).collect()
}

/// The tables for luma and chroma, in zigzag order.
fn quantisation(slot: &[u8; HEADER_BYTES]) -> [[u8; 64]; 2] {
    let (luma, mut chroma) = (slot[QUALITY2], slot[QUALITY2 + 1]);
    if chroma == 0 {
        chroma = luma & !PORTRAIT;
    }
    let is_portrait = luma & PORTRAIT != 0;
    let for_chroma = if chroma & LUMA_FOR_CHROMA == 0 { &QUANT_CHROMA } else { &QUANT_LUMA };
    [
        scaled(&QUANT_LUMA, luma & !PORTRAIT, is_portrait),
        scaled(for_chroma, chroma & !LUMA_FOR_CHROMA, is_portrait),
    ]
}

fn scaled(standard: &[u8; 64], quality: u8, is_portrait: bool) -> [u8; 64] {
    let quality = u32::from(quality).clamp(1, 100);
    let scale = if quality < 50 { 5000 / quality } else { 200 - 2 * quality };
    ZIGZAG.map(|at| {
        let at = if is_portrait { at % 8 * 8 + at / 8 } else { at };
        ((u32::from(standard[usize::from(at)]) * scale + 50) / 100).clamp(1, 255) as u8
    })
}

/// `lseek` on `/dev/jpegheadN` where no header is made: the file has `bytes` bytes and stands at
/// `position`. It never leaves the file; in front of its beginning it fails with EOVERFLOW, at the
/// beginning.
#[must_use]
pub fn seek_in_header(bytes: u64, position: u64, offset: i64, whence: i32) -> Sought {
    let from = match whence {
        SEEK_SET => 0,
        SEEK_CUR => position,
        SEEK_END => bytes,
        _ => return Sought { position, answer: Answer::Fails(Errno::EINVAL) },
    };
    match u64::try_from(i128::from(from) + i128::from(offset)) {
        Ok(to) => Sought { position: to.min(bytes), answer: Answer::Is(to.min(bytes)) },
        Err(_) => Sought { position: 0, answer: Answer::Fails(Errno::EOVERFLOW) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(color_mode: u8, bayer_shift: u8, quality2: u16) -> [u8; HEADER_BYTES] {
        let mut slot = [0; HEADER_BYTES];
        slot[QUALITY2..][..2].copy_from_slice(&quality2.to_le_bytes());
        slot[COLOR_MODE] = color_mode;
        slot[BAYER_SHIFT] = bayer_shift;
        slot
    }

    /// Sizes as the camera's programs know them, 9 bytes of frame header in front of the components.
    #[test]
    fn every_colour_mode_has_its_components() {
        let modes: [(u8, usize, &[u8]); 6] = [
            (COLOR_MODE_COLOR, 623, &[3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1]),
            (JP46DC, 638, &[6, 1, 0x11, 0, 2, 0x11, 0]),
            (COLOR_MODE_MONO4, 613, &[1, 1, 0x22, 0]),
            (JP4, 613, &[1, 4, 0x22, 0]),
            (JP4DC, 628, &[4, 4, 0x11, 0, 5, 0x11, 0]),
            (99, 623 - 3 * 5, &[0, 0xFF, 0xC4]),
        ];
        for (mode, bytes, components) in modes {
            let header = header(&slot(mode, 0, 80));
            assert_eq!(header.len(), bytes, "mode {mode}");
            assert_eq!(header[0x9E + 9..][..components.len()], *components, "mode {mode}");
            assert!(header.len() <= HEADER_BYTES_MAX);
        }
    }

    #[test]
    fn differences_have_other_tables_than_their_bases() {
        let tables = |mode, shift| -> Vec<(u8, u8)> {
            let components = components(mode, shift);
            components.into_iter().map(|([id, _, quantisation], _)| (id, quantisation)).collect()
        };
        assert_eq!(tables(JP4DIFF, 0), [(4, 0), (5, 0x11), (6, 0x11), (7, 0x11)]);
        assert_eq!(tables(JP4DIFF2, 3), [(4, 0x11), (5, 0), (6, 0x11), (7, 0x11)]);
        assert_eq!(tables(JP4HDR, 0), [(4, 0), (5, 0x11), (6, 0), (7, 0x11)]);
    }

    #[test]
    fn qualities_choose_scale_and_turn_the_tables() {
        // 50 is the standard itself; its second value in zigzag order is the right neighbour.
        let [luma, chroma] = quantisation(&slot(0, 0, 50));
        assert_eq!(
            (luma[..3].to_vec(), chroma[..3].to_vec()),
            (vec![16, 11, 12], vec![17, 18, 18])
        );
        let [turned, _] = quantisation(&slot(0, 0, 50 | 0x80));
        assert_eq!(turned[..3], [16, 12, 11]);
        let [_, as_luma] = quantisation(&slot(0, 0, 50 | (50 | 0x80) << 8));
        assert_eq!(as_luma, luma);
        let [_, other] = quantisation(&slot(0, 0, 50 | 25 << 8));
        assert_eq!(other[..3], [34, 36, 36]);
        assert_eq!(quantisation(&slot(0, 0, 100)), [[1; 64]; 2]);
    }
}
