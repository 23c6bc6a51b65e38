//! For tests: the way back from a payload to pixels, written naively and on its own.
use circbuf_abi::header::COLOR_MODE_MONO4;
use circbuf_abi::jpeg::{HUFFMAN_TABLES, QUANT_CHROMA, QUANT_LUMA, ZIGZAG};
use proptest::test_runner::{Config as ProptestConfig, RngSeed};
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::model::Picture;

/// So many cases of a property, the same ones every time.
pub(crate) fn seeded(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(0x353_393),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn dqt(id: u8, base: &[u8; 64], quality: u8) -> Vec<u8> {
    let quality = i32::from(quality);
    let scale = if quality < 50 { 5000 / quality } else { 200 - 2 * quality };
    let mut segment = vec![0xFF, 0xDB, 0, 67, id];
    for at in ZIGZAG {
        let step = (i32::from(base[usize::from(at)]) * scale + 50) / 100;
        segment.push(step.clamp(1, 255) as u8);
    }
    segment
}

/// A whole JPEG file of a picture.
pub(crate) fn jpeg_file(picture: &Picture<'_>) -> Vec<u8> {
    let [luma, chroma] = picture.quality2.to_le_bytes();
    let gray = picture.color_mode == COLOR_MODE_MONO4;
    let mut file = vec![0xFF, 0xD8];
    file.extend(dqt(0, &QUANT_LUMA, luma));
    file.extend(dqt(1, &QUANT_CHROMA, chroma));
    let components: &[[u8; 3]] =
        if gray { &[[1, 0x11, 0]] } else { &[[1, 0x22, 0], [2, 0x11, 1], [3, 0x11, 1]] };
    file.extend([0xFF, 0xC0, 0, 8 + 3 * components.len() as u8, 8]);
    file.extend(picture.height.to_be_bytes());
    file.extend(picture.width.to_be_bytes());
    file.push(components.len() as u8);
    file.extend(components.concat());
    for table in HUFFMAN_TABLES {
        file.extend([0xFF, 0xC4, 0, 19 + table.symbols.len() as u8, table.id]);
        file.extend(table.counts);
        file.extend(table.symbols);
    }
    file.extend([0xFF, 0xDA, 0, 6 + 2 * components.len() as u8, components.len() as u8]);
    for [id, _, tables] in components {
        file.extend([*id, tables * 0x11]);
    }
    file.extend([0, 63, 0]);
    file.extend(picture.payload);
    file.extend([0xFF, 0xD9]);
    file
}

/// The pixels of a JPEG file, by a decoder that is not ours.
pub(crate) fn decode(file: &[u8], colors: ColorSpace) -> Vec<u8> {
    let options = DecoderOptions::default().set_strict_mode(true).jpeg_set_out_colorspace(colors);
    let mut decoder = zune_jpeg::JpegDecoder::new_with_options(ZCursor::new(file), options);
    decoder.decode().expect("decodable")
}

/// The luma of a picture.
pub(crate) fn luma(picture: &Picture<'_>) -> Vec<u8> {
    let pixels = decode(&jpeg_file(picture), ColorSpace::Luma);
    assert_eq!(pixels.len(), usize::from(picture.width) * usize::from(picture.height));
    pixels
}

/// What a code says: its bits as they stand, the CRC checked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) number: u32,
    pub(crate) sec: u32,
    pub(crate) usec: u32,
    pub(crate) kind: u8,
}

/// Reads the block code in the upper left corner, `cell` pixels a side.
pub(crate) fn read_code(luma: &[u8], width: usize, cell: usize) -> Option<Told> {
    let mut bits = 0_u128;
    for row in 1..8 {
        for column in 1..17 {
            let (x, y) = (column * cell + cell / 2, row * cell + cell / 2);
            bits = bits << 1 | u128::from(luma[y * width + x] < 126);
        }
    }
    let mut crc = 0xFFFF_u32;
    for bit in (20..112).rev().map(|bit| (bits >> bit) as u32 & 1).chain([0; 4]) {
        crc = crc << 1 ^ if (crc >> 15 & 1) ^ bit == 1 { 0x1021 } else { 0 };
        crc &= 0xFFFF;
    }
    let told = Told {
        number: (bits >> 80) as u32,
        sec: (bits >> 48) as u32,
        usec: (bits >> 28) as u32 & 0xF_FFFF,
        kind: (bits >> 20) as u8,
    };
    (crc == (bits >> 4) as u32 & 0xFFFF && bits & 15 == 10).then_some(told)
}
