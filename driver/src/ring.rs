//! What the bytes of a ring mean: the arithmetic of slots, trailers and frame headers.
//!
//! The layout is drawn in [`circbuf_abi::ring`]. Everything here works on copies of a few bytes;
//! it neither knows where they came from nor whether they are still true.

use byteorder::{ByteOrder, LittleEndian};
use circbuf_abi::header::{self, HEADER_BYTES, SIGNATURE};
use circbuf_abi::ring::{
    CHUNK_BYTES, GAP_BYTES, MICROSECONDS, PAYLOAD_BYTES_MAX, TRAILER_BYTES, TRAILER_MARKER, trailer,
};
use serde::{Deserialize, Serialize};

/// Bytes from a frame's start to the end of its trailer: payload, zeros and trailer. A multiple of
/// 32, at least 32.
#[must_use]
pub const fn padded(length: u32) -> u64 {
    ((length as u64 + 15) & !31) + 32
}

/// Bytes from a frame's start to the next frame's: [`padded`] and the gap.
#[must_use]
pub const fn slot(length: u32) -> u64 {
    padded(length) + GAP_BYTES as u64
}

/// Exposure time as the FPGA tells it: microseconds since 1970 by the camera's clock, which may be
/// set forwards or back at any time.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize, Deserialize,
)]
pub struct Timestamp {
    /// Seconds since 1970.
    pub sec: u32,
    /// Microseconds, below 1,000,000.
    pub usec: u32,
}

impl Timestamp {
    /// Microseconds since 1970.
    #[must_use]
    pub const fn micros(self) -> u64 {
        self.sec as u64 * MICROSECONDS as u64 + self.usec as u64
    }
}

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:06}", self.sec, self.usec)
    }
}

/// The 12 bytes at the end of a frame's last chunk, not yet trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Trailer {
    /// Exposure time; the microseconds may be out of range.
    pub time: Timestamp,
    /// Length of the stuffed payload in bytes, below 2^24.
    pub length: u32,
    /// Highest byte of the length word, FF in a trailer.
    pub marker: u8,
}

impl Trailer {
    /// What is read where nothing was ever written.
    pub(crate) const NONE: Trailer =
        Trailer { time: Timestamp { sec: 0, usec: 0 }, length: 0, marker: 0 };

    /// Reads the trailer from the last 12 bytes of a chunk.
    #[must_use]
    pub fn parse(chunk: &[u8; CHUNK_BYTES]) -> Trailer {
        let bytes = &chunk[CHUNK_BYTES - TRAILER_BYTES..];
        let word = LittleEndian::read_u32(&bytes[trailer::LENGTH..]);
        Trailer {
            time: Timestamp {
                sec: LittleEndian::read_u32(&bytes[trailer::SECONDS..]),
                usec: LittleEndian::read_u32(&bytes[trailer::MICROSECONDS..]),
            },
            length: word & PAYLOAD_BYTES_MAX,
            marker: word.to_be_bytes()[0],
        }
    }

    /// Whether the fields can be those of a trailer at all: marker FF, a length of at least 1,
    /// microseconds below 1,000,000.
    #[must_use]
    pub const fn is_plausible(&self) -> bool {
        self.marker == TRAILER_MARKER && self.length >= 1 && self.time.usec < MICROSECONDS
    }
}

/// The 32 bytes of a header slot, not yet trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader(pub [u8; HEADER_BYTES]);

impl FrameHeader {
    /// Whether the signature FF FF stands at bytes 26-27 and the length's high byte is 0.
    #[must_use]
    pub fn is_stamped(&self) -> bool {
        self.u16(header::SIGNATURE_OFFSET) == SIGNATURE && self.0[header::LENGTH + 3] == 0
    }

    /// Whether all of it is zero, as the FPGA leaves it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0 == [0; HEADER_BYTES]
    }

    /// Length of the stuffed payload in bytes.
    #[must_use]
    pub fn length(&self) -> u32 {
        LittleEndian::read_u32(&self.0[header::LENGTH..])
    }

    /// Picture parameters in the layout of the 393 and of the 353's firmware 8.x.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        Geometry {
            width: self.u16(header::WIDTH),
            height: self.u16(header::HEIGHT),
            quality2: self.u16(header::QUALITY2),
            color_mode: self.0[header::COLOR_MODE],
        }
    }

    /// The header that a handler would have stamped, for rings that have none.
    #[must_use]
    pub fn synthesise(geometry: Geometry, length: u32) -> FrameHeader {
        let mut bytes = [0; HEADER_BYTES];
        LittleEndian::write_u16(&mut bytes[header::QUALITY2..], geometry.quality2);
        bytes[header::COLOR_MODE] = geometry.color_mode;
        LittleEndian::write_u16(&mut bytes[header::WIDTH..], geometry.width);
        LittleEndian::write_u16(&mut bytes[header::HEIGHT..], geometry.height);
        LittleEndian::write_u16(&mut bytes[header::SIGNATURE_OFFSET..], SIGNATURE);
        LittleEndian::write_u32(&mut bytes[header::LENGTH..], length);
        FrameHeader(bytes)
    }

    fn u16(&self, offset: usize) -> u16 {
        LittleEndian::read_u16(&self.0[offset..])
    }
}

/// What has to be known of a frame to make its JPEG header again. All zero where it is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Geometry {
    /// Pixels in a row.
    pub width: u16,
    /// Rows.
    pub height: u16,
    /// Quality of the luma table (low byte) and of the chroma table (high byte), 1 to 100 each.
    pub quality2: u16,
    /// One of `circbuf_abi::header::COLOR_MODE_*`.
    pub color_mode: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The FPGA's way: zeros until four of them and the trailer have gone out at a chunk's end.
    fn padded_naive(length: u32) -> u64 {
        let mut bytes = u64::from(length) + 4;
        while (bytes + 12) % 32 != 0 {
            bytes += 1;
        }
        bytes + 12
    }

    #[test]
    fn padding_equals_the_naive_form_for_every_residue() {
        for length in 1..4096 {
            assert_eq!(padded(length), padded_naive(length), "length {length}");
        }
        assert_eq!(padded(PAYLOAD_BYTES_MAX), padded_naive(PAYLOAD_BYTES_MAX));
    }

    #[test]
    fn the_two_lengths_of_the_golden_listing_lead_to_its_addresses() {
        assert_eq!((padded(0x378FE), slot(0x378FE)), (0x37920, 0xDE50 * 4));
        assert_eq!((padded(0x37929), slot(0x37929)), (0x37940, 0x37960));
    }

    #[test]
    fn the_golden_trailer_is_read_as_2007_09_30_and_227_582_bytes() {
        let mut chunk = [0; 32];
        chunk[20..].copy_from_slice(&[
            0x82, 0x4A, 0xFF, 0x46, 0xBD, 0x03, 0x03, 0x00, 0xFE, 0x78, 0x03, 0xFF,
        ]);
        let trailer = Trailer::parse(&chunk);
        let time = Timestamp { sec: 1_191_135_874, usec: 197_565 };
        assert_eq!(trailer, Trailer { time, length: 227_582, marker: 0xFF });
        assert!(trailer.is_plausible());
    }

    #[test]
    fn the_golden_header_is_stamped_and_tells_the_length() {
        let header = FrameHeader([
            0xA4, 0, 0, 0, 0x00, 0x08, 0x00, 0x06, 0x20, 0x01, 0x6C, 0x01, 0xC1, 0x46, 0x39, 0x0A,
            0x0A, 0x01, 0xAB, 0x01, 0x40, 0x40, 0x40, 0x40, 0, 0, 0xFF, 0xFF, 0xFE, 0x78, 0x03, 0,
        ]);
        assert!(header.is_stamped());
        assert_eq!(header.length(), 0x378FE);
    }

    #[test]
    fn a_synthesised_header_tells_what_went_in() {
        let geometry = Geometry { width: 2048, height: 1536, quality2: 0x5050, color_mode: 0 };
        let header = FrameHeader::synthesise(geometry, 0x12_3456);
        assert!(header.is_stamped());
        assert_eq!((header.geometry(), header.length()), (geometry, 0x12_3456));
    }

    #[test]
    fn implausible_trailers_are_told_apart() {
        let good = Trailer { time: Timestamp { sec: 1, usec: 999_999 }, length: 1, marker: 0xFF };
        assert!(good.is_plausible());
        assert!(!Trailer { marker: 0xFE, ..good }.is_plausible());
        assert!(!Trailer { length: 0, ..good }.is_plausible());
        let late = Timestamp { sec: 1, usec: 1_000_000 };
        assert!(!Trailer { time: late, ..good }.is_plausible());
    }
}
