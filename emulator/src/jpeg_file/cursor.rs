//! Reads the pieces of a JPEG file, none of them beyond its end.
use circbuf_abi::jpeg::marker;

use super::{Component, JpegError, SLOTS};
use crate::escape::find_ff;

const RESTART_MARKERS: std::ops::RangeInclusive<u8> = 0xD0..=0xD7;

/// A place in the file, and the end of what may be read from there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], JpegError> {
        let taken = self.rest().get(..count);
        let truncated = JpegError::Truncated { at: self.bytes.len(), inside: "a segment" };
        self.at += count;
        taken.ok_or(truncated)
    }

    pub(super) fn u8(&mut self) -> Result<u8, JpegError> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, JpegError> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub(super) fn component(&mut self) -> Result<Component, JpegError> {
        let at = self.at;
        let (id, sampling, quantisation) = (self.u8()?, self.u8()?, usize::from(self.u8()?));
        let (horizontal, vertical) = (sampling >> 4, sampling & 15);
        let sampling = 1..=SLOTS as u8;
        if !sampling.contains(&horizontal) || !sampling.contains(&vertical) || quantisation >= SLOTS
        {
            return Err(JpegError::Segment { at, reason: "sampling factors that cannot be" });
        }
        Ok(Component { id, horizontal, vertical, quantisation })
    }

    /// The next marker; any number of FF may stand in front of it.
    pub(super) fn marker(&mut self) -> Result<u8, JpegError> {
        let at = self.at;
        let truncated =
            JpegError::Truncated { at: self.bytes.len(), inside: "front of the EOI marker" };
        match self.rest().first() {
            None => return Err(truncated),
            Some(0xFF) => {}
            Some(_) => {
                return Err(JpegError::Segment { at, reason: "no marker where one has to be" });
            }
        }
        let fill = self.rest().iter().take_while(|byte| **byte == 0xFF).count();
        self.at += fill;
        let marker = *self.rest().first().ok_or(truncated)?;
        self.at += 1;
        if marker == 0 || RESTART_MARKERS.contains(&marker) || marker == marker::SOI {
            return Err(JpegError::Segment { at, reason: "a marker out of place" });
        }
        Ok(marker)
    }

    /// The contents of the segment that begins with its length here.
    pub(super) fn segment(&mut self) -> Result<Self, JpegError> {
        let at = self.at;
        let bytes = usize::from(self.u16()?);
        if bytes < 2 {
            return Err(JpegError::Segment {
                at,
                reason: "a segment shorter than its length field",
            });
        }
        self.take(bytes - 2)?;
        Ok(Self { bytes: &self.bytes[..self.at], at: at + 2 })
    }

    /// Everything up to the next marker that is no restart marker.
    pub(super) fn entropy_coded(&mut self) -> Result<&'a [u8], JpegError> {
        let rest = self.rest();
        let mut end = 0;
        while let Some(at) = find_ff(&rest[end..]) {
            end += at;
            match rest.get(end + 1) {
                Some(0) => end += 2,
                Some(byte) if RESTART_MARKERS.contains(byte) => end += 2,
                Some(_) => {
                    self.at += end;
                    return Ok(&rest[..end]);
                }
                None => break,
            }
        }
        Err(JpegError::Truncated { at: self.bytes.len(), inside: "the scan" })
    }
}
