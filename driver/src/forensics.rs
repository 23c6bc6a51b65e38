//! Finds the frames in an image of a ring, without being told where they are.
//!
//! An image is a private copy: nobody writes it any more, and the bytes are all there is to go by,
//! with the counters of the register page if they were saved. Two marks lead to frames: the
//! signature of a stamped header in front, and the trailer behind. Both are looked for everywhere,
//! since either may be missing: a bare ring has no headers, and a torn frame has lost one of both.
//!
//! Trailers alone are believed with care. The ring is full of older frames of which the writer has
//! left the end standing, and their trailers are right in every field. So the first trailer behind
//! a start wins, frames do not overlap, time increases strictly along a chain of frames, and in
//! front of a frame stands a gap or the trailer of the one before. A frame that is found by its
//! trailer only and comes first after a clock was set back therefore passes for stale.
//!
//! The work is linear in the size of the image, times the logarithm of the number of frames,
//! whatever the bytes are.

mod extents;
mod scan;

use std::collections::HashMap;

use circbuf_abi::header::HEADER_BYTES;
use circbuf_abi::ring::{CHUNK_BYTES, GAP_BYTES, SLOT_BYTES_MIN};

use crate::ring::{FrameHeader, Timestamp, padded};
use extents::Extents;
use scan::{End, Scan};

/// A copy of a whole ring.
#[derive(Debug, Clone)]
pub struct RingImage {
    bytes: Vec<u8>,
    writer: Option<Writer>,
}

/// How far the writer was when the image was taken, as cursors of the present epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writer {
    /// Everything below this was visible before the copy began.
    pub written: u64,
    /// Nothing at or above this had been touched when the copy was finished.
    pub reserved: u64,
}

/// Why bytes are no image of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{bytes} bytes are no ring; its size is a multiple of {CHUNK_BYTES}, at least {SLOT_BYTES_MIN}"
)]
pub struct NoRing {
    /// Size of what was to be a ring.
    pub bytes: usize,
}

/// A frame, or what is left of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Offset of the payload's first byte in the ring, a multiple of 32.
    pub start: u64,
    /// Bytes of stuffed payload, as the header tells or else the trailer.
    pub length: u32,
    /// Exposure time, unless the trailer is lost.
    pub time: Option<Timestamp>,
    /// The header in front, if it is stamped.
    pub header: Option<FrameHeader>,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Stamped header, trailer where it belongs, zeros between, no FF FF in the payload.
    Whole,
    /// The same without a stamped header: the ring is bare, or the handler had not come yet.
    Unstamped,
    /// A stamped header whose frame is not there, or not any more.
    Torn {
        /// The first contradiction.
        tear: Tear,
        /// Who wrote over it.
        by: Overwriter,
    },
    /// A trailer that outlived the start of its frame.
    Stale {
        /// Who wrote over the start.
        by: Overwriter,
    },
}

/// What contradicts a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tear {
    /// No trailer stands where the header's length puts it.
    NoTrailer,
    /// The trailer, or another one that leads to the same start and is nearer, tells another
    /// length.
    Length {
        /// Length in the trailer.
        trailer: u32,
    },
    /// FF FF in the payload.
    Signature {
        /// Where, as an offset in the ring.
        offset: u64,
    },
    /// A byte between payload and trailer is not zero.
    Padding {
        /// Where, as an offset in the ring.
        offset: u64,
    },
    /// The bytes fit, but the counters say that the writer had come by.
    Counters,
}

/// Who wrote over a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwriter {
    /// The frame that starts at this offset in the ring.
    Frame(u64),
    /// The frame that was being written.
    Unfinished,
    /// Nobody that can be told.
    Unknown,
}

impl Found {
    /// Whether all of the frame is there.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        matches!(self.verdict, Verdict::Whole | Verdict::Unstamped)
    }

    /// Whether header and trailer contradict each other and no other frame accounts for it. In a
    /// ring that was only written by a camera this does not happen.
    #[must_use]
    pub const fn is_corrupt(&self) -> bool {
        matches!(self.verdict, Verdict::Torn { by: Overwriter::Unknown, .. })
    }
}

impl RingImage {
    /// Takes the bytes of a whole ring.
    ///
    /// # Errors
    /// If their number is not a multiple of 32, or less than the smallest slot.
    pub fn new(bytes: Vec<u8>) -> Result<RingImage, NoRing> {
        if !bytes.len().is_multiple_of(CHUNK_BYTES) || (bytes.len() as u64) < SLOT_BYTES_MIN {
            return Err(NoRing { bytes: bytes.len() });
        }
        Ok(RingImage { bytes, writer: None })
    }

    /// Adds what is known of the writer, so that frames are also judged by the counters.
    #[must_use]
    pub fn with_writer(self, writer: Writer) -> RingImage {
        RingImage { writer: Some(writer), ..self }
    }

    /// Bytes of the ring.
    #[must_use]
    pub fn ring_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// All of the ring.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The chunk at a multiple of 32, which may lie behind the ring's end and is then found at its
    /// beginning.
    ///
    /// # Panics
    /// If fewer than 32 bytes of the ring follow, which happens at no multiple of 32.
    #[must_use]
    pub fn chunk(&self, offset: u64) -> &[u8; CHUNK_BYTES] {
        chunk(&self.bytes, offset)
    }

    /// The frames and what is left of others, by their start; at the same start the sound one
    /// comes first.
    #[must_use]
    pub fn frames(&self) -> Vec<Found> {
        let scan = Scan::of(&self.bytes);
        let taken = Extents::new(self.ring_bytes());
        let mut survey = Survey { image: self, scan: &scan, nearest: scan.nearest(), taken };
        let mut found = survey.whole();
        found.extend(survey.unstamped(&found));
        let newest = found.iter().max_by_key(|found| found.time).map(|found| self.end(found));
        found.extend(survey.torn(newest));
        found.extend(survey.stale(newest));
        found.iter_mut().for_each(|found| self.heed_counters(found));
        found.sort_by_key(|found| (found.start, !found.is_sound(), found.length));
        found
    }

    /// Where the gap behind a frame begins.
    fn end(&self, found: &Found) -> u64 {
        (found.start + padded(found.length)) % self.ring_bytes()
    }

    /// Point 4 of the law of validity: bytes that fit may still be a mixture, if the writer was
    /// there while the image was taken.
    fn heed_counters(&self, found: &mut Found) {
        let (true, Some(writer)) = (found.is_sound(), self.writer) else { return };
        found.verdict = match writer.cursor_of(found, self.ring_bytes()) {
            // Not written in this epoch: it stands from before a reset.
            None => Verdict::Stale { by: Overwriter::Unknown },
            Some(cursor) if writer.has_reached(cursor, self.ring_bytes()) => {
                Verdict::Torn { tear: Tear::Counters, by: Overwriter::Unfinished }
            }
            Some(_) => found.verdict,
        };
    }
}

impl Writer {
    /// The cursor of a frame that is all written: the last lap on which it was.
    fn cursor_of(&self, found: &Found, ring_bytes: u64) -> Option<u64> {
        let behind = self.written.checked_sub(found.start + padded(found.length))?;
        Some(found.start + behind / ring_bytes * ring_bytes)
    }

    /// Whether the slot of the frame at this cursor may have been written again.
    const fn has_reached(&self, cursor: u64, ring_bytes: u64) -> bool {
        self.reserved.saturating_add(GAP_BYTES as u64) > cursor.saturating_add(ring_bytes)
    }
}

fn chunk(bytes: &[u8], offset: u64) -> &[u8; CHUNK_BYTES] {
    let at = (offset % bytes.len() as u64) as usize;
    bytes[at..].first_chunk().expect("a ring is a whole number of chunks")
}

/// The search for frames, with the extents of those that were found.
struct Survey<'a> {
    image: &'a RingImage,
    scan: &'a Scan<'a>,
    /// For each start to which trailers lead, the length that the first one behind it tells.
    nearest: HashMap<u64, u32>,
    taken: Extents,
}

impl Survey<'_> {
    /// Stamped frames of which everything fits. They cannot overlap: there is no FF FF between a
    /// start and the end of its trailer, and each has one in front.
    fn whole(&mut self) -> Vec<Found> {
        let stamps = self.scan.stamps.iter();
        let whole: Vec<Found> = stamps
            .filter_map(|&start| {
                let header = self.header(start);
                let time = self.judge(start, header.length()).ok()?;
                let (length, verdict) = (header.length(), Verdict::Whole);
                Some(Found { start, length, time: Some(time), header: Some(header), verdict })
            })
            .collect();
        whole.iter().for_each(|found| self.taken.insert(found.start, padded(found.length)));
        whole
    }

    /// Frames that are told by their trailers only.
    fn unstamped(&mut self, whole: &[Found]) -> Vec<Found> {
        let candidates = self.candidates();
        let newest_whole = whole.iter().max_by_key(|found| found.time);
        let newest = candidates.iter().max_by_key(|end| end.time);
        let newest = newest.filter(|end| newest_whole.is_none_or(|w| w.time < Some(end.time)));
        // Going around the ring from the end of the newest frame, ends come in the order in which
        // they were written, except for what the newest one has left of others, which overlap it.
        let cut = newest.map(|end| end.start + padded(end.length));
        let cut = cut.or(newest_whole.map(|found| found.start + padded(found.length)));
        let cut = cut.map_or(0, |cut| cut % self.image.ring_bytes());
        let around = candidates.partition_point(|end| end.offset < cut);
        let (before, behind) = candidates.split_at(around);
        let mut found = Vec::new();
        for end in newest.into_iter().chain(behind).chain(before) {
            let bytes = padded(end.length);
            if self.taken.overlapping(end.start, bytes).is_none() {
                self.taken.insert(end.start, bytes);
                found.push(end.found(Verdict::Unstamped));
            }
        }
        found
    }

    /// Ends of frames that can be believed without a stamp, by offset.
    fn candidates(&self) -> Vec<End> {
        let ends = self.scan.ends.iter();
        ends.filter(|end| self.nearest.get(&end.start) == Some(&end.length))
            .filter(|end| self.is_anchored(end) && !self.is_contradicted(end))
            .copied()
            .collect()
    }

    /// Whether in front of the start stands the trailer of an earlier frame or, if none is there,
    /// a gap that nobody touched or the header of a frame that began there before.
    fn is_anchored(&self, end: &End) -> bool {
        let header = self.header(end.start);
        let slots = (GAP_BYTES + CHUNK_BYTES) as u64;
        match self.scan.end_at(end.start + self.image.ring_bytes() - slots) {
            Some(before) => before.time < end.time,
            None => header.0 == [0; GAP_BYTES] || header.is_stamped(),
        }
    }

    /// Whether the header in front tells another length for which the trailer would stand in the
    /// same chunk, so that one of both was damaged.
    fn is_contradicted(&self, end: &End) -> bool {
        let header = self.header(end.start);
        let length = header.length();
        header.is_stamped() && length != end.length && padded(length) == padded(end.length)
    }

    fn judge(&self, start: u64, length: u32) -> Result<Timestamp, Tear> {
        match self.nearest.get(&start) {
            Some(&trailer) if trailer < length => Err(Tear::Length { trailer }),
            _ => self.scan.judge(start, length),
        }
    }

    fn torn(&self, newest: Option<u64>) -> Vec<Found> {
        let judge = |&start: &u64| {
            let header = self.header(start);
            let length = header.length();
            let tear = self.judge(start, length).err()?;
            let verdict = Verdict::Torn { tear, by: self.overwriter(start, length, newest) };
            let time = self.scan.trailer(start, length).map(|trailer| trailer.time);
            Some(Found { start, length, time, header: Some(header), verdict })
        };
        self.scan.stamps.iter().filter_map(judge).collect()
    }

    fn stale(&self, newest: Option<u64>) -> Vec<Found> {
        let is_left = |end: &&End| {
            let in_a_frame = self.taken.overlapping(end.offset, CHUNK_BYTES as u64).is_some();
            // With a header of its own it was judged by that.
            !in_a_frame && !self.is_stamped_with(end.start, end.length)
        };
        let left = self.scan.ends.iter().filter(is_left);
        left.map(|end| {
            let by = self.overwriter(end.start, end.length, newest);
            end.found(Verdict::Stale { by })
        })
        .collect()
    }

    fn overwriter(&self, start: u64, length: u32, newest: Option<u64>) -> Overwriter {
        if let Some(owner) = self.taken.overlapping(start, padded(length)) {
            return Overwriter::Frame(owner);
        }
        let slot = (start + self.image.ring_bytes() - GAP_BYTES as u64) % self.image.ring_bytes();
        let is_next = newest == Some(slot);
        if is_next || self.is_under_the_writer(start, length) {
            return Overwriter::Unfinished;
        }
        Overwriter::Unknown
    }

    fn is_under_the_writer(&self, start: u64, length: u32) -> bool {
        let Some(writer) = self.image.writer else { return false };
        let ring_bytes = self.image.ring_bytes();
        let ahead = (start + ring_bytes - writer.written % ring_bytes) % ring_bytes;
        let reach = writer.reserved.saturating_sub(writer.written);
        ahead < reach || ahead + padded(length) > ring_bytes
    }

    fn header(&self, start: u64) -> FrameHeader {
        let slot = start + self.image.ring_bytes() - HEADER_BYTES as u64;
        FrameHeader(*self.image.chunk(slot))
    }

    fn is_stamped_with(&self, start: u64, length: u32) -> bool {
        let header = self.header(start);
        header.is_stamped() && header.length() == length
    }
}

#[cfg(test)]
mod tests;
