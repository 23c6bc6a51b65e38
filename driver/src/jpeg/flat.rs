//! Scans whose blocks are flat: DC coefficients only, at quality 100, where a step is 1 and every
//! level survives. Made for tests, without any encoder's help.

use circbuf_abi::header::{COLOR_MODE_COLOR, COLOR_MODE_MONO4};
use circbuf_abi::jpeg::{
    HUFFMAN_AC_CHROMA, HUFFMAN_AC_LUMA, HUFFMAN_DC_CHROMA, HUFFMAN_DC_LUMA, HuffmanTable,
};

use crate::ring::Geometry;

/// The geometry of a gray picture made of flat blocks.
pub(crate) fn gray(width: u16, height: u16) -> Geometry {
    Geometry { width, height, quality2: 100, color_mode: COLOR_MODE_MONO4 }
}

/// The geometry of a colour picture made of flat blocks.
pub(crate) fn color(width: u16, height: u16) -> Geometry {
    Geometry { color_mode: COLOR_MODE_COLOR, ..gray(width, height) }
}

/// The scan in which the block at (column, row) has the luma that `level` tells, and no colour.
pub(crate) fn scan(geometry: Geometry, level: impl Fn(usize, usize) -> u8) -> Vec<u8> {
    let (width, height) = (usize::from(geometry.width), usize::from(geometry.height));
    let mut bits = Bits::default();
    let mut before = 0;
    let mut luma = |bits: &mut Bits, column, row| {
        let dc = (i32::from(level(column, row)) - 128) * 8;
        bits.block(dc - before, [HUFFMAN_DC_LUMA, HUFFMAN_AC_LUMA]);
        before = dc;
    };
    if geometry.color_mode == COLOR_MODE_MONO4 {
        for row in 0..height.div_ceil(8) {
            (0..width.div_ceil(8)).for_each(|column| luma(&mut bits, column, row));
        }
        return bits.finish();
    }
    for y in 0..height.div_ceil(16) {
        for x in 0..width.div_ceil(16) {
            for (dx, dy) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                luma(&mut bits, 2 * x + dx, 2 * y + dy);
            }
            bits.block(0, [HUFFMAN_DC_CHROMA, HUFFMAN_AC_CHROMA]);
            bits.block(0, [HUFFMAN_DC_CHROMA, HUFFMAN_AC_CHROMA]);
        }
    }
    bits.finish()
}

#[derive(Default)]
struct Bits(Vec<bool>);

impl Bits {
    fn block(&mut self, difference: i32, [dc, ac]: [HuffmanTable; 2]) {
        let size = 32 - difference.unsigned_abs().leading_zeros();
        self.symbol(&dc, size as u8);
        // A negative value is sent as its ones' complement.
        let value = if difference < 0 { difference - 1 } else { difference };
        self.bits(value as u32, size);
        self.symbol(&ac, 0);
    }

    fn symbol(&mut self, table: &HuffmanTable, symbol: u8) {
        let (mut code, mut next) = (0u32, 0);
        for (index, &count) in table.counts.iter().enumerate() {
            for &candidate in &table.symbols[next..next + usize::from(count)] {
                if candidate == symbol {
                    return self.bits(code, index as u32 + 1);
                }
                code += 1;
            }
            next += usize::from(count);
            code <<= 1;
        }
        panic!("the table has no symbol {symbol:#x}");
    }

    fn bits(&mut self, value: u32, count: u32) {
        (0..count).rev().for_each(|bit| self.0.push(value >> bit & 1 == 1));
    }

    /// Fills the last byte with zeros, as the FPGA does, and stuffs.
    fn finish(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for byte in self.0.chunks(8) {
            let value =
                byte.iter().enumerate().fold(0, |v, (i, &bit)| v | u8::from(bit) << (7 - i));
            bytes.push(value);
            if value == 0xFF {
                bytes.push(0);
            }
        }
        bytes
    }
}
