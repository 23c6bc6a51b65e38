//! Reads the block code by which a synthetic picture tells its number.
//!
//! The layout is drawn in [`circbuf_abi::framecode`].

use circbuf_abi::framecode::{
    BIT_COLUMNS, BIT_ROWS, CELL_LARGE, CELL_SMALL, COLUMNS, CRC16_INITIAL, CRC16_POLYNOMIAL,
    KIND_CYCLE, KIND_FRAME, LARGE_HEIGHT, LARGE_WIDTH, LUMA_CLEAR, LUMA_SET, ROWS, SYNC,
};
use serde::{Deserialize, Serialize};

use crate::proc::decode::Picture;
use crate::ring::Timestamp;

/// What the number in a picture counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NumberIs {
    /// Frames.
    Frame,
    /// The place in a cycle of pictures.
    Cycle,
}

/// The code of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameCode {
    /// Low 32 bits of the frame number, or the place in a cycle.
    pub number: u32,
    /// Which of both.
    pub number_is: NumberIs,
    /// The frame's timestamp, or that of the cycle's start.
    pub time: Timestamp,
}

/// Between black and white, as far from either.
const THRESHOLD: u32 = (LUMA_SET as u32 + LUMA_CLEAR as u32) / 2;
const BITS: usize = BIT_COLUMNS * BIT_ROWS;
/// The checked bits as bytes; four zero bits stand behind them.
const CHECKED_BYTES: usize = 12;

/// Reads the code from the upper left corner of a picture. `None` if there is none, or if too
/// much of it was lost in compression for its checksum to hold.
#[must_use]
pub fn read(picture: &Picture<'_>) -> Option<FrameCode> {
    let large = picture.width >= LARGE_WIDTH && picture.height >= LARGE_HEIGHT;
    let cell = if large { CELL_LARGE } else { CELL_SMALL };
    if picture.width < COLUMNS * cell || picture.height < ROWS * cell {
        return None;
    }
    let bits = (0..BITS).fold(0u128, |bits, bit| {
        let (column, row) = (bit % BIT_COLUMNS + 1, bit / BIT_COLUMNS + 1);
        bits << 1 | u128::from(is_black(picture, cell, column, row))
    });
    parse(bits)
}

/// Whether the inner half of a cell is black on average. Its rim is left out, because there
/// ringing and chroma filters mix the neighbours in.
fn is_black(picture: &Picture<'_>, cell: usize, column: usize, row: usize) -> bool {
    let (inner, rim) = (cell / 2, cell / 4);
    let sum: u32 = (0..inner)
        .map(|y| {
            let start = (row * cell + rim + y) * picture.width + column * cell + rim;
            picture.luma[start..start + inner].iter().map(|&luma| u32::from(luma)).sum::<u32>()
        })
        .sum();
    sum < THRESHOLD * (inner * inner) as u32
}

/// `bits`: the 112 bits of the code, the first one highest.
fn parse(bits: u128) -> Option<FrameCode> {
    let field =
        |first: usize, count: usize| (bits >> (BITS - first - count)) as u64 & !(!0 << count);
    let mut checked = [0; CHECKED_BYTES];
    checked.copy_from_slice(&(bits >> (BITS - 92) << 4).to_be_bytes()[16 - CHECKED_BYTES..]);
    if field(108, 4) != u64::from(SYNC) || field(92, 16) != u64::from(crc16(&checked)) {
        return None;
    }
    let number_is = match field(84, 8) as u8 {
        KIND_FRAME => NumberIs::Frame,
        KIND_CYCLE => NumberIs::Cycle,
        _ => return None,
    };
    let time = Timestamp { sec: field(32, 32) as u32, usec: field(64, 20) as u32 };
    Some(FrameCode { number: field(0, 32) as u32, number_is, time })
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(CRC16_INITIAL, |crc, &byte| {
        (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| {
            let carry = crc & 0x8000 != 0;
            crc << 1 ^ if carry { CRC16_POLYNOMIAL } else { 0 }
        })
    })
}

#[cfg(test)]
pub(crate) mod golden {
    /// Frame 0x12345678 at 0x46FF4A82.197565, kind frame, row by row as cells: `#` is black. The
    /// checksum was computed with Python's `binascii.crc_hqx`.
    pub(crate) const ROWS: [&str; 7] = [
        "...#..#...##.#..",
        ".#.#.##..####...",
        ".#...##.########",
        ".#..#.#.#.....#.",
        "..##......###.##",
        "##.#.#.##.#....#",
        "..#######.#.#.#.",
    ];
}

#[cfg(test)]
mod tests {
    use super::golden::ROWS as GOLDEN;
    use super::*;

    fn plane(width: usize, height: usize, cell: usize, rows: &[&str]) -> Vec<u8> {
        let mut luma = vec![LUMA_CLEAR; width * height];
        for (row, cells) in rows.iter().enumerate() {
            for (column, mark) in cells.chars().enumerate() {
                if mark == '.' {
                    continue;
                }
                for y in 0..cell {
                    let start = ((row + 1) * cell + y) * width + (column + 1) * cell;
                    luma[start..start + cell].fill(LUMA_SET);
                }
            }
        }
        luma
    }

    fn read_plane(width: usize, height: usize, luma: &[u8]) -> Option<FrameCode> {
        read(&Picture { width, height, luma })
    }

    const EXPECTED: FrameCode = FrameCode {
        number: 0x1234_5678,
        number_is: NumberIs::Frame,
        time: Timestamp { sec: 0x46FF_4A82, usec: 197_565 },
    };

    #[test]
    fn the_golden_cells_are_read_in_both_sizes() {
        for (width, height, cell) in [(144, 72, 8), (639, 480, 8), (640, 480, 16), (2048, 1536, 16)]
        {
            let luma = plane(width, height, cell, &GOLDEN);
            assert_eq!(read_plane(width, height, &luma), Some(EXPECTED), "{width} x {height}");
        }
    }

    #[test]
    fn every_flipped_cell_is_noticed() {
        let luma = plane(144, 72, 8, &GOLDEN);
        for bit in 0..112 {
            let mut flipped = luma.clone();
            for y in 0..8 {
                let start = ((bit / 16 + 1) * 8 + y) * 144 + (bit % 16 + 1) * 8;
                flipped[start..start + 8].iter_mut().for_each(|l| *l = LUMA_SET + LUMA_CLEAR - *l);
            }
            assert_eq!(read_plane(144, 72, &flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn pictures_without_a_code_have_none() {
        for luma in [0, 128, 255] {
            assert_eq!(read_plane(160, 120, &[luma; 160 * 120]), None);
        }
        let small = plane(144, 72, 8, &GOLDEN);
        assert_eq!(read_plane(144, 71, &small[..144 * 71]), None);
        assert_eq!(read_plane(0, 0, &[]), None);
    }

    #[test]
    fn the_rim_of_a_cell_does_not_matter() {
        let mut luma = plane(144, 72, 8, &GOLDEN);
        for (index, luma) in luma.iter_mut().enumerate() {
            let (x, y) = (index % 144 % 8, index / 144 % 8);
            if !(2..6).contains(&x) || !(2..6).contains(&y) {
                *luma = 128;
            }
        }
        assert_eq!(read_plane(144, 72, &luma), Some(EXPECTED));
    }
}
