//! A ring written by a program: frames, pieces of frames, and whatever else.

use circbuf_abi::header;
use circbuf_abi::ring::{CHUNK_BYTES, TRAILER_BYTES};

use super::input::Input;
use super::law::padded;

/// A pen over the bytes of a ring, with no camera's conscience.
#[derive(Debug)]
pub(super) struct Pen {
    pub(super) ring: Vec<u8>,
    /// Where the next piece is written; a multiple of 32.
    cursor: u64,
    sec: u32,
}

impl Pen {
    pub(super) fn new(ring: Vec<u8>) -> Pen {
        Pen { ring, cursor: CHUNK_BYTES as u64, sec: 1 }
    }

    /// One step of the program.
    pub(super) fn step(&mut self, input: &mut Input<'_>) {
        match input.u8() % 8 {
            0 | 1 => {
                let (length, stamped) = (1 + u32::from(input.u16() % 1200), !input.once_in(4));
                self.frame(length, stamped, input.u8());
            }
            2 => self.cursor = u64::from(input.u16()) * CHUNK_BYTES as u64 % self.ring_bytes(),
            3 => {
                let count = usize::from(input.u8() % 64);
                self.put(self.cursor, input.take(count));
                self.forward(count as u64);
            }
            4 => {
                let (at, byte) = (u64::from(input.u16()), input.u8());
                self.put(at, &[byte]);
            }
            5 => {
                let fill = if input.once_in(2) { 0 } else { 0xFF };
                let count = usize::from(input.u8() % 16) * CHUNK_BYTES;
                self.put(self.cursor, &vec![fill; count]);
                self.forward(count as u64);
            }
            6 => {
                let length = u32::from(input.u16());
                self.trailer(self.cursor + CHUNK_BYTES as u64, length);
                self.forward(CHUNK_BYTES as u64);
            }
            _ => {
                self.stamp(self.cursor + CHUNK_BYTES as u64, u32::from(input.u16()));
                self.sec = self.sec.wrapping_add_signed(i32::from(input.u8() as i8));
            }
        }
    }

    /// A lawful frame at the cursor, unless `fill` makes its payload otherwise.
    fn frame(&mut self, length: u32, stamped: bool, fill: u8) {
        let (start, end) = (self.cursor, self.cursor + padded(length));
        self.put(start, &vec![fill.max(1) - 1; length as usize]);
        self.put(start + u64::from(length), &vec![0; (end - start) as usize - length as usize]);
        self.trailer(end, length);
        self.put(end, &[0; CHUNK_BYTES]);
        if stamped {
            self.stamp(start, length);
        }
        self.forward(end + CHUNK_BYTES as u64 - start);
        self.sec = self.sec.wrapping_add(1);
    }

    fn trailer(&mut self, end: u64, length: u32) {
        let words = [self.sec, 7, length | 0xFF00_0000];
        let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        self.put(end - TRAILER_BYTES as u64, &bytes);
    }

    fn stamp(&mut self, start: u64, length: u32) {
        let slot = start + self.ring_bytes() - header::HEADER_BYTES as u64;
        self.put(slot + header::SIGNATURE_OFFSET as u64, &[0xFF; 2]);
        self.put(slot + header::LENGTH as u64, &length.to_le_bytes());
    }

    fn forward(&mut self, bytes: u64) {
        let next = (self.cursor + bytes).next_multiple_of(CHUNK_BYTES as u64);
        self.cursor = next % self.ring_bytes();
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        for (at, byte) in (at..).zip(bytes) {
            let offset = (at % self.ring_bytes()) as usize;
            self.ring[offset] = *byte;
        }
    }

    fn ring_bytes(&self) -> u64 {
        self.ring.len() as u64
    }
}
