//! The camera's character device: commands of `lseek` and device numbers.
//!
//! `lseek(fd, command, SEEK_END)` with a command above 0 moves the file position of `/dev/circbufN`,
//! or tells something about it; a position is a byte offset in the ring. Sources: `circbuf.c`,
//! `c313a.h` and `x393_devices.h` of the 393, and their ancestors for the 353.

/// To the global read pointer, which one program leaves for another; the position is checked.
pub const LSEEK_CIRC_TORP: i64 = 1;
/// To the write pointer, where the next frame will start.
pub const LSEEK_CIRC_TOWP: i64 = 2;
/// To the frame before.
pub const LSEEK_CIRC_PREV: i64 = 3;
/// To the frame behind, also if it is not there yet.
pub const LSEEK_CIRC_NEXT: i64 = 4;
/// To the newest whole frame.
pub const LSEEK_CIRC_LAST: i64 = 5;
/// To the oldest frame.
pub const LSEEK_CIRC_FIRST: i64 = 6;
/// To the oldest frame but one.
pub const LSEEK_CIRC_SCND: i64 = 7;
/// Makes the position the global read pointer.
pub const LSEEK_CIRC_SETP: i64 = 8;
/// Checks that the position is the write pointer or a whole frame.
pub const LSEEK_CIRC_VALID: i64 = 9;
/// Checks that the position is a whole frame.
pub const LSEEK_CIRC_READY: i64 = 10;
/// Sleeps while the position is the write pointer.
pub const LSEEK_CIRC_WAIT: i64 = 11;
/// Bytes from the write pointer up to the position; they become the position too.
pub const LSEEK_CIRC_FREE: i64 = 12;
/// Bytes from the position up to the write pointer; they become the position too.
pub const LSEEK_CIRC_USED: i64 = 13;
/// Number of the last compressed frame (393 only).
pub const LSEEK_CIRC_GETFRAME: i64 = 16;
/// The first of 32 commands that wait until a bit of the camera's `DAEMON_EN` parameter is set.
pub const LSEEK_DAEMON_CIRCBUF: i64 = 0xA0;

/// Low bits of a command to the JPEG header node that select what is made; the others, minus 1, are
/// the frame's offset in the ring.
pub const JPEGHEAD_SELECTOR: i64 = 0x1F;
/// Selector: the two quantisation tables alone, 128 bytes. Any other makes the whole header.
pub const JPEGHEAD_TABLES: i64 = 2;

/// Major number of the nodes.
pub const MAJOR: u32 = 135;
/// Minor number of `/dev/circbuf0` of a 393; the other channels follow.
pub const MINOR_CIRCBUF: u32 = 32;
/// Minor number of `/dev/jpeghead0` of a 393; the other channels follow.
pub const MINOR_JPEGHEAD: u32 = 48;
/// Minor number of the 353's `/dev/circbuf`.
pub const MINOR_NC353_CIRCBUF: u32 = 11;
/// Minor number of the 353's `/dev/jpeghead`.
pub const MINOR_NC353_JPEGHEAD: u32 = 13;
