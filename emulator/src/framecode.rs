//! The encoder of the block code by which a synthetic picture tells its number; its layout is in
//! [`circbuf_abi::framecode`].
use circbuf_abi::framecode::{
    BIT_COLUMNS, BIT_ROWS, CELL_LARGE, CELL_SMALL, COLUMNS, CRC16_INITIAL, CRC16_POLYNOMIAL,
    KIND_CYCLE, KIND_FRAME, LARGE_HEIGHT, LARGE_WIDTH, LUMA_CLEAR, LUMA_SET, ROWS, SYNC,
};

use crate::model::FrameTime;

/// Bits that the CRC covers: number, seconds, microseconds, kind.
const COVERED_BITS: u32 = 92;

/// What the number of a code counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeKind {
    /// Frames since the camera began.
    Frame,
    /// The place in a cycle of pictures compressed beforehand.
    Cycle,
}

/// The cells of one code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockCode {
    rows: [u16; BIT_ROWS],
    cell: usize,
}

impl BlockCode {
    /// The code of a frame in a picture of `width` x `height` pixels. Of the number, the low 32
    /// bits are told; microseconds are below 1,000,000.
    #[must_use]
    pub fn new(number: u64, time: FrameTime, kind: CodeKind, width: u16, height: u16) -> Self {
        let bits = code_bits(number, time, kind);
        let row = |row| (bits >> (BIT_COLUMNS * (BIT_ROWS - 1 - row))) as u16;
        Self { rows: std::array::from_fn(row), cell: cell_pixels(width, height) }
    }

    /// Width of the code in pixels, its white frame included.
    #[must_use]
    pub fn width(&self) -> usize {
        COLUMNS * self.cell
    }

    /// Height of the code in pixels, its white frame included.
    #[must_use]
    pub fn height(&self) -> usize {
        ROWS * self.cell
    }

    /// Draws line `y` of the code into the first pixels of `line`, the luma of a line of the
    /// picture. Nothing is drawn below the code.
    pub fn draw_line(&self, y: usize, line: &mut [u8]) {
        let row = y / self.cell;
        if row >= ROWS {
            return;
        }
        for (column, cell) in line.chunks_mut(self.cell).take(COLUMNS).enumerate() {
            cell.fill(if self.is_set(row, column) { LUMA_SET } else { LUMA_CLEAR });
        }
    }

    fn is_set(&self, row: usize, column: usize) -> bool {
        let inside = (1..=BIT_ROWS).contains(&row) && (1..=BIT_COLUMNS).contains(&column);
        inside && self.rows[row - 1] >> (BIT_COLUMNS - column) & 1 == 1
    }
}

/// Side of a cell in a picture of this size, in pixels.
#[must_use]
pub fn cell_pixels(width: u16, height: u16) -> usize {
    let large = usize::from(width) >= LARGE_WIDTH && usize::from(height) >= LARGE_HEIGHT;
    if large { CELL_LARGE } else { CELL_SMALL }
}

/// The 112 bits, the first one highest.
fn code_bits(number: u64, time: FrameTime, kind: CodeKind) -> u128 {
    let kind = match kind {
        CodeKind::Frame => KIND_FRAME,
        CodeKind::Cycle => KIND_CYCLE,
    };
    let covered = u128::from(number as u32) << 60
        | u128::from(time.sec) << 28
        | u128::from(time.usec & 0x000F_FFFF) << 8
        | u128::from(kind);
    let sent = (covered << 4).to_be_bytes();
    let crc = crc16(&sent[sent.len() - (COVERED_BITS as usize).div_ceil(8)..]);
    covered << 20 | u128::from(crc) << 4 | u128::from(SYNC)
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(CRC16_INITIAL, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| {
            crc << 1 ^ if crc & 0x8000 == 0 { 0 } else { CRC16_POLYNOMIAL }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: FrameTime = FrameTime { sec: 0x46FF_4A82, usec: 0x303BD };

    #[test]
    fn the_crc_is_that_of_the_standard_check_string() {
        assert_eq!(crc16(b"123456789"), 0x29B1);
    }

    /// The cells by hand, # for black: number 0x123, the time of the frame in the listing of an
    /// Elphel 353 (0x46FF4A82 s, 0x303BD us), KIND_FRAME, the CRC of 00 00 01 23 46 FF 4A 82 30 3B
    /// D5 A0 (0x7EAA by another program), 1010.
    #[test]
    fn golden_cells() {
        let code = BlockCode::new(0x1_0000_0123, TIME, CodeKind::Frame, 639, 480);
        let cells = [
            "------------------",
            "------------------",
            "--------#--#---##-",
            "--#---##-########-",
            "--#--#-#-#-----#--",
            "---##------###-##-",
            "-##-#-#-##-#--###-",
            "-###-#-#-#-#-#-#--",
            "------------------",
        ];
        for y in 0..9 * 8 {
            let mut line = vec![1; 200];
            code.draw_line(y, &mut line);
            let expected = cells[y / 8].bytes().map(|cell| if cell == b'#' { 16 } else { 235 });
            let drawn = line[..144].chunks(8).map(|cell| {
                assert!(cell.iter().all(|luma| *luma == cell[0]), "line {y}");
                cell[0]
            });
            assert!(drawn.eq(expected), "line {y}: {line:?}");
            assert!(line[144..].iter().all(|luma| *luma == 1), "drawn beside the code");
        }
        let mut below = [1; 200];
        code.draw_line(72, &mut below);
        assert_eq!(below, [1; 200]);
    }

    #[test]
    fn a_place_in_a_cycle_says_so() {
        let bits = code_bits(7, TIME, CodeKind::Cycle);
        assert_eq!((bits >> 20) as u8, 0xC3);
        assert_eq!((bits >> 80) as u32, 7);
    }

    #[test]
    fn cells_are_large_where_the_picture_is() {
        assert_eq!(cell_pixels(640, 480), 16);
        assert_eq!(cell_pixels(639, 480), 8);
        assert_eq!(cell_pixels(640, 479), 8);
    }
}
