//! The rows of `test_mmap`: `address: 8 words`, both in hex, the address in words.

use std::io::{self, Write};

use circbuf_abi::header;
use circbuf_abi::ring::{CHUNK_BYTES, GAP_BYTES};
use circbuf_driver::forensics::Found;
use circbuf_driver::ring::{FrameHeader, padded};

use super::Piece;

const ROW_BYTES: u64 = CHUNK_BYTES as u64;
const WORD_BYTES: u64 = 4;
/// Digits of an address on the camera.
const ADDRESS_DIGITS_MIN: usize = 6;

/// How frames are listed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listing {
    address_digits: usize,
    /// Whether gap and start of the next frame follow, as in a ring.
    follows: bool,
    annotate: bool,
}

/// Offsets of a frame's rows from its start, in chunks of 32 bytes.
#[derive(Debug, Clone, Copy)]
struct Rows {
    /// With the last byte of the payload.
    last: u64,
    trailer: u64,
    gap: u64,
    next: u64,
}

impl Rows {
    fn of(length: u32) -> Rows {
        let gap = padded(length);
        let last = u64::from(length - 1) / ROW_BYTES * ROW_BYTES;
        Rows { last, trailer: gap - ROW_BYTES, gap, next: gap + GAP_BYTES as u64 }
    }

    /// Those that are printed behind the header's row, each once, in order.
    fn printed(&self, follows: bool) -> Vec<u64> {
        let second = ROW_BYTES.min(self.last);
        let mut rows = vec![0, second, self.last, self.trailer];
        if follows {
            rows.extend([self.gap, self.next]);
        }
        rows.dedup();
        rows
    }
}

impl Listing {
    /// A listing of a file of this size.
    pub(super) fn new(file_bytes: u64, follows: bool, annotate: bool) -> Listing {
        let last = (file_bytes / WORD_BYTES).saturating_sub(1);
        let address_digits = format!("{last:x}").len().max(ADDRESS_DIGITS_MIN);
        Listing { address_digits, follows, annotate }
    }

    /// Writes the rows of one frame; ` ...` stands where rows are left out.
    pub(super) fn write(
        &self,
        out: &mut dyn Write,
        piece: &Piece,
        found: &Found,
    ) -> io::Result<()> {
        let rows = Rows::of(found.length);
        let slot = found.start + piece.image.ring_bytes() - GAP_BYTES as u64;
        self.write_row(out, piece, slot, |_| None, &header_note(found))?;
        let mut before = 0;
        for row in rows.printed(self.follows) {
            if row > before + ROW_BYTES {
                writeln!(out, " ...")?;
            }
            before = row;
            let mark = |word| mark(&rows, row, word);
            self.write_row(out, piece, found.start + row, mark, &note(found, &rows, row))?;
        }
        Ok(())
    }

    fn write_row(
        &self,
        out: &mut dyn Write,
        piece: &Piece,
        offset: u64,
        mark: impl Fn(usize) -> Option<[char; 2]>,
        note: &str,
    ) -> io::Result<()> {
        let offset = offset % piece.image.ring_bytes();
        let digits = self.address_digits;
        write!(out, "{:0digits$x}:", (piece.offset + offset) / WORD_BYTES)?;
        let (words, _) = piece.image.chunk(offset).as_chunks::<4>();
        for (index, word) in words.iter().enumerate() {
            let word = u32::from_le_bytes(*word);
            match mark(index) {
                Some([open, close]) => write!(out, " {open}{word:08x}{close}")?,
                None => write!(out, " {word:08x}")?,
            }
        }
        if self.annotate && !note.is_empty() {
            write!(out, "  {note}")?;
        }
        writeln!(out)
    }
}

/// What encloses a word of a row. In the shortest frames the first word and the length share one.
fn mark(rows: &Rows, row: u64, word: usize) -> Option<[char; 2]> {
    match word {
        0 if row == 0 => Some(['{', '}']),
        7 if row == rows.trailer => Some(['<', '>']),
        0 if row == rows.next => Some(['[', ']']),
        _ => None,
    }
}

fn header_note(found: &Found) -> String {
    let Some(header) = found.header else {
        return "header slot, not stamped".into();
    };
    let geometry = header.geometry();
    format!(
        "header: {} x {}, quality {:#06x}, colour mode {}, Bayer shift {}, meta {}, signature ffff, length {}",
        geometry.width,
        geometry.height,
        geometry.quality2,
        geometry.color_mode,
        header.0[header::BAYER_SHIFT],
        meta_index(&header),
        header.length(),
    )
}

fn meta_index(header: &FrameHeader) -> u16 {
    u16::from_le_bytes([header.0[header::META_INDEX], header.0[header::META_INDEX + 1]])
}

fn note(found: &Found, rows: &Rows, row: u64) -> String {
    let length = found.length;
    let mut notes = Vec::new();
    if row == 0 {
        notes.push(format!("payload: {length} bytes"));
    }
    if row == rows.last {
        let bytes = u64::from(length) - rows.last;
        notes.push(format!("its last {bytes} bytes"));
    }
    if let (true, Some(time)) = (row == rows.trailer, found.time) {
        notes.push(format!("trailer: {} s, {} us, length {length}", time.sec, time.usec));
    }
    if row == rows.gap {
        notes.push("gap: header slot of the next frame".into());
    }
    if row == rows.next {
        notes.push("start of the next frame".into());
    }
    notes.join("; ")
}
