//! Reads JPEG files: what their scan is, and whether a frame header could express it. Any bytes
//! may be given; nothing in them is believed before it has been compared with the file's length.
mod cursor;
mod expressible;
mod walk;

use circbuf_abi::jpeg::marker;
use circbuf_abi::ring::PAYLOAD_BYTES_MAX;

use cursor::Cursor;
pub use expressible::{Expressible, Obstacle};

/// Stands alone, without a length (T.81, table B.1).
const TEM: u8 = 0x01;
const APP14: u8 = 0xEE;
/// Components, quantisation tables and Huffman tables of a class are at most as many.
const SLOTS: usize = 4;

/// A JPEG file that is no source of frames.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JpegError {
    /// There is no SOI marker.
    #[error("no JPEG file (it does not begin with FF D8)")]
    NotJpeg,
    /// Its scan could be longer than a frame.
    #[error("{bytes} bytes, and a frame holds at most {PAYLOAD_BYTES_MAX}")]
    TooLarge {
        /// Length of the file.
        bytes: usize,
    },
    /// Sound, but of a kind that a camera does not make.
    #[error("{0}; only 8-bit sequential Huffman-coded JPEGs in gray or colour are read")]
    Kind(&'static str),
    /// The file, or a segment, ends too early.
    #[error("cut short at byte {at}, in {inside}; make the file again, or leave it out")]
    Truncated {
        /// Offset in the file.
        at: usize,
        /// What should have been there.
        inside: &'static str,
    },
    /// A segment that says what cannot be.
    #[error("corrupt at byte {at}: {reason}; make the file again, or leave it out")]
    Segment {
        /// Offset in the file.
        at: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// Entropy-coded data that cannot be decoded.
    #[error(
        "corrupt scan: {reason} in block {block} of {blocks}; make the file again, or leave it out"
    )]
    Scan {
        /// Block of 8x8 samples, counted from 0 in the order of the scan.
        block: u64,
        /// Blocks that the header announces.
        blocks: u64,
        /// What is wrong.
        reason: &'static str,
    },
}

/// A component of the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Component {
    id: u8,
    horizontal: u8,
    vertical: u8,
    quantisation: usize,
}

/// A component of the scan: its place in the frame and its tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ScanComponent {
    component: usize,
    dc: usize,
    ac: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Huffman<'a> {
    counts: [u8; 16],
    symbols: &'a [u8],
}

/// A parsed file. Its structure is sound; where it has one scan only, so is the entropy coding.
#[derive(Debug, Clone)]
pub struct JpegFile<'a> {
    width: u16,
    height: u16,
    components: Vec<Component>,
    /// In zigzag order, as in the file.
    quantisation: [Option<[u16; 64]>; SLOTS],
    dc: [Option<Huffman<'a>>; SLOTS],
    ac: [Option<Huffman<'a>>; SLOTS],
    restart_interval: u16,
    has_jfif: bool,
    adobe_transform: Option<u8>,
    scan: Vec<ScanComponent>,
    scans: usize,
    payload: &'a [u8],
}

impl<'a> JpegFile<'a> {
    /// Parses a whole file, and if it has one scan, proves that the scan can be decoded to its end.
    ///
    /// # Errors
    /// A file that is no JPEG, of a kind that a camera does not make, truncated or corrupt.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, JpegError> {
        if bytes.len() > PAYLOAD_BYTES_MAX as usize {
            return Err(JpegError::TooLarge { bytes: bytes.len() });
        }
        if !bytes.starts_with(&[0xFF, marker::SOI]) {
            return Err(JpegError::NotJpeg);
        }
        let mut file = Self {
            width: 0,
            height: 0,
            components: Vec::new(),
            quantisation: [None; SLOTS],
            dc: [None; SLOTS],
            ac: [None; SLOTS],
            restart_interval: 0,
            has_jfif: false,
            adobe_transform: None,
            scan: Vec::new(),
            scans: 0,
            payload: &[],
        };
        file.read_segments(&mut Cursor { bytes, at: 2 })?;
        if file.scans == 1 {
            if file.scan.len() != file.components.len() {
                let reason = "the scan of a component is missing";
                return Err(JpegError::Segment { at: bytes.len(), reason });
            }
            walk::walk(&file)?;
        }
        Ok(file)
    }

    /// Width in pixels.
    #[must_use]
    pub fn width(&self) -> u16 {
        self.width
    }

    /// Height in pixels.
    #[must_use]
    pub fn height(&self) -> u16 {
        self.height
    }

    /// Whether there is one component only.
    #[must_use]
    pub fn is_gray(&self) -> bool {
        self.components.len() == 1
    }

    fn read_segments(&mut self, cursor: &mut Cursor<'a>) -> Result<(), JpegError> {
        loop {
            let at = cursor.at;
            match cursor.marker()? {
                marker::EOI if self.scans == 0 => {
                    return Err(JpegError::Segment { at, reason: "it ends without a scan" });
                }
                marker::EOI => return Ok(()),
                TEM => {}
                kind => {
                    let segment = cursor.segment()?;
                    self.read_segment(kind, segment, cursor)?;
                }
            }
        }
    }

    /// Tables behind the first scan are left alone: only a file of several scans can have a use
    /// for them, and those are not read any further here.
    fn read_segment(
        &mut self,
        kind: u8,
        mut segment: Cursor<'a>,
        file: &mut Cursor<'a>,
    ) -> Result<(), JpegError> {
        match kind {
            marker::SOS => self.read_scan(&mut segment, file),
            _ if self.scans > 0 => Ok(()),
            marker::DQT => self.read_quantisation(&mut segment),
            marker::DHT => self.read_huffman(&mut segment),
            marker::DRI => {
                self.restart_interval = segment.u16()?;
                Ok(())
            }
            marker::APP0 => {
                self.has_jfif |= segment.rest().starts_with(b"JFIF\0");
                Ok(())
            }
            APP14 => {
                let adobe = segment.rest();
                if adobe.starts_with(b"Adobe") {
                    self.adobe_transform = adobe.get(11).copied();
                }
                Ok(())
            }
            marker::SOF0 | 0xC1 => self.read_frame(&mut segment),
            0xC2 => Err(JpegError::Kind("progressive")),
            0xC3 | 0xC7 | 0xCB | 0xCF => Err(JpegError::Kind("lossless")),
            0xC5 | 0xC6 => Err(JpegError::Kind("hierarchical")),
            0xC9 | 0xCA | 0xCC | 0xCD | 0xCE => Err(JpegError::Kind("arithmetic coding")),
            _ => Ok(()),
        }
    }

    fn read_frame(&mut self, segment: &mut Cursor<'a>) -> Result<(), JpegError> {
        let at = segment.at;
        let precision = segment.u8()?;
        (self.height, self.width) = (segment.u16()?, segment.u16()?);
        let components = segment.u8()?;
        if !self.components.is_empty() {
            return Err(JpegError::Segment { at, reason: "a second frame header" });
        }
        match (precision, components) {
            (12, _) => return Err(JpegError::Kind("12 bits a sample")),
            (8, 1 | 3) => {}
            (8, 4) => return Err(JpegError::Kind("four components (CMYK or YCCK)")),
            (8, _) => return Err(JpegError::Kind("neither one nor three components")),
            _ => return Err(JpegError::Segment { at, reason: "bits a sample are not 8 or 12" }),
        }
        if self.width == 0 {
            return Err(JpegError::Segment { at, reason: "a width of 0" });
        }
        if self.height == 0 {
            return Err(JpegError::Kind("height not told in front of the scan (DNL)"));
        }
        for _ in 0..components {
            let component = segment.component()?;
            self.components.push(component);
        }
        Ok(())
    }

    fn read_quantisation(&mut self, segment: &mut Cursor<'a>) -> Result<(), JpegError> {
        while !segment.rest().is_empty() {
            let at = segment.at;
            let (precision, slot) = nibbles(segment.u8()?);
            if precision > 1 || slot >= SLOTS {
                return Err(JpegError::Segment { at, reason: "a quantisation table numbered > 3" });
            }
            let mut table = [0; 64];
            for step in &mut table {
                *step = if precision == 0 { u16::from(segment.u8()?) } else { segment.u16()? };
            }
            self.quantisation[slot] = Some(table);
        }
        Ok(())
    }

    fn read_huffman(&mut self, segment: &mut Cursor<'a>) -> Result<(), JpegError> {
        while !segment.rest().is_empty() {
            let at = segment.at;
            let (class, slot) = nibbles(segment.u8()?);
            if class > 1 || slot >= SLOTS {
                return Err(JpegError::Segment { at, reason: "a Huffman table numbered > 3" });
            }
            let mut counts = [0; 16];
            counts.copy_from_slice(segment.take(16)?);
            let codes = counts.iter().map(|count| usize::from(*count)).sum();
            let table = Huffman { counts, symbols: segment.take(codes)? };
            if walk::is_oversubscribed(&table) {
                return Err(JpegError::Segment {
                    at,
                    reason: "a Huffman table with too many codes",
                });
            }
            if class == 0 { self.dc[slot] = Some(table) } else { self.ac[slot] = Some(table) }
        }
        Ok(())
    }

    fn read_scan(
        &mut self,
        segment: &mut Cursor<'a>,
        file: &mut Cursor<'a>,
    ) -> Result<(), JpegError> {
        let at = segment.at;
        let count = segment.u8()?;
        if count == 0 || usize::from(count) > self.components.len() {
            return Err(JpegError::Segment { at, reason: "a scan of components the frame lacks" });
        }
        let mut scan = Vec::new();
        for _ in 0..count {
            scan.push(self.scan_component(segment)?);
        }
        if segment.take(3)? != [0, 63, 0] {
            return Err(JpegError::Segment {
                at,
                reason: "a sequential scan of some coefficients",
            });
        }
        let payload = file.entropy_coded()?;
        if self.scans == 0 {
            (self.scan, self.payload) = (scan, payload);
        }
        self.scans += 1;
        Ok(())
    }

    fn scan_component(&self, segment: &mut Cursor<'a>) -> Result<ScanComponent, JpegError> {
        let at = segment.at;
        let id = segment.u8()?;
        let (dc, ac) = nibbles(segment.u8()?);
        let component = self.components.iter().position(|component| component.id == id);
        match component {
            Some(component) if dc < SLOTS && ac < SLOTS => Ok(ScanComponent { component, dc, ac }),
            _ => Err(JpegError::Segment { at, reason: "a scan of components the frame lacks" }),
        }
    }
}

fn nibbles(byte: u8) -> (usize, usize) {
    (usize::from(byte >> 4), usize::from(byte & 15))
}

#[cfg(test)]
mod tests;
