//! The block code by which a synthetic picture tells its number: black and white squares that
//! survive JPEG, in the upper left corner of the picture.
//!
//! ```text
//! 18 x 9 cells: a white frame of one cell around 16 x 7 bits, row by row, most significant first
//! bits   0- 31  frame number (its low 32 bits), or the place in a cycle
//! bits  32- 63  seconds of the timestamp
//! bits  64- 83  microseconds of the timestamp
//! bits  84- 91  kind: KIND_FRAME or KIND_CYCLE
//! bits  92-107  CRC-16 of bits 0-91, sent as 12 bytes with 4 zero bits behind them
//!               (polynomial 0x1021, initial value 0xFFFF, not reflected)
//! bits 108-111  1 0 1 0
//! ```
//!
//! A set bit is a black cell (luma 16), a clear one a white cell (luma 235).

/// Cells in a row, the white frame included.
pub const COLUMNS: usize = 18;
/// Rows of cells, the white frame included.
pub const ROWS: usize = 9;
/// Bits in a row.
pub const BIT_COLUMNS: usize = 16;
/// Rows of bits.
pub const BIT_ROWS: usize = 7;
/// Side of a cell in pixels where the picture is at least [`LARGE_WIDTH`] x [`LARGE_HEIGHT`].
pub const CELL_LARGE: usize = 16;
/// Side of a cell in smaller pictures.
pub const CELL_SMALL: usize = 8;
/// See [`CELL_LARGE`].
pub const LARGE_WIDTH: usize = 640;
/// See [`CELL_LARGE`].
pub const LARGE_HEIGHT: usize = 480;
/// The narrowest picture that holds the code, in pixels.
pub const WIDTH_MIN: usize = COLUMNS * CELL_SMALL;
/// The lowest picture that holds the code, in pixels.
pub const HEIGHT_MIN: usize = ROWS * CELL_SMALL;
/// Luma of a set bit.
pub const LUMA_SET: u8 = 16;
/// Luma of a clear bit and of the frame around the bits.
pub const LUMA_CLEAR: u8 = 235;
/// Polynomial of the CRC-16.
pub const CRC16_POLYNOMIAL: u16 = 0x1021;
/// Initial value of the CRC-16.
pub const CRC16_INITIAL: u16 = 0xFFFF;
/// Kind: the number is that of the frame.
pub const KIND_FRAME: u8 = 0x5A;
/// Kind: the number is the place in a cycle of pictures, and the time is 0: they are compressed before
/// any time is known.
pub const KIND_CYCLE: u8 = 0xC3;
/// The last four bits.
pub const SYNC: u8 = 0b1010;

const _: () = {
    assert!(BIT_COLUMNS * BIT_ROWS == 112 && COLUMNS == BIT_COLUMNS + 2 && ROWS == BIT_ROWS + 2);
    assert!(COLUMNS * CELL_LARGE <= LARGE_WIDTH && ROWS * CELL_LARGE <= LARGE_HEIGHT);
};
