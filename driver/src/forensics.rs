//! Finds the frames in an image of a ring, without being told where they are, and says of every
//! stretch of the ring what it is.
//!
//! An image is a private copy: nobody writes it any more, and the bytes are all there is to go by,
//! with the counters of the register page if they were saved. Two marks lead to frames: the
//! signature of a stamped header in front, and the trailer behind. Both are looked for everywhere,
//! since either may be missing: a bare ring has no headers, and a torn frame has lost one of both.
//!
//! With counters, frames are followed from the last whole one back to where the writer may have come
//! by: in front of each ends the one before. Nothing older is believed among these. Where one is
//! damaged, the next one behind which everything fits is taken up.
//!
//! Trailers alone are believed with care. The ring is full of older frames of which the writer has
//! left the end standing, and their trailers are right in every field. So a frame holds no other's
//! trailer, frames do not overlap each other or the gaps between them, time increases strictly along
//! a chain of frames, and in front of a frame stands a gap or the trailer of the one before. A frame
//! that is found by its trailer only and comes first after a clock was set back therefore passes for
//! stale, and so may the oldest of a bare ring.
//!
//! Without counters the bytes of a frame that was begun and those of the older frame under it look
//! alike: they are all said to be left of the older one. Where a frame was begun exactly where an
//! older one starts, and its gap was skipped or nobody stamps, the older one even passes for whole
//! until the writer comes to its end: only the counters tell.
//!
//! The work is linear in the size of the image, times the logarithm of the number of frames,
//! whatever the bytes are.

mod chain;
mod extents;
mod paint;
mod scan;
mod search;
mod stretches;

use circbuf_abi::ring::{CHUNK_BYTES, GAP_BYTES, RING_BYTES_ALIGN, SLOT_BYTES_MIN};

use crate::ring::{FrameHeader, Timestamp, padded};
pub use stretches::{Content, Stretch};

/// A copy of a ring, or of its beginning.
#[derive(Debug, Clone)]
pub struct RingImage {
    /// As many as the ring has; zeros where the image ends before the ring does.
    bytes: Vec<u8>,
    present_bytes: u64,
    /// Whether somebody told how large the ring is.
    is_size_told: bool,
    writer: Option<Writer>,
}

/// How far the writer was when the image was taken, as cursors of the present epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writer {
    /// How often the pointer had gone back to 0.
    pub epoch: u64,
    /// Everything below this was visible before the copy began.
    pub written: u64,
    /// Nothing at or above this had been touched when the copy was finished.
    pub reserved: u64,
    /// Behind the gap of the last frame that was whole before the copy began.
    pub complete: u64,
    /// How many frames were whole then; the one that ends at `complete` is the last of them.
    pub frames: u64,
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

/// What an image holds.
#[derive(Debug, Clone)]
pub struct Survey {
    /// The frames and what is left of others, by their start; at the same start the sound one
    /// comes first.
    pub frames: Vec<Found>,
    /// All of the ring, each byte in one stretch, by their first offset. If one reaches over the
    /// ring's end, it is the last.
    pub stretches: Vec<Stretch>,
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
    /// Number of the frame, where the counters lead to it from frame to frame.
    pub number: Option<u64>,
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
    /// A frame that is contradicted: most of all a stamped header whose frame is not there, or not
    /// any more.
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

/// What contradicts a frame.
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
    /// The trailer is that of the frame before: the camera gave the frame up.
    Repeated,
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
    /// A trailer that leads to no frame, amid frames that leave no room for an older one.
    Misplaced,
    /// The image has not all of its bytes.
    Cut,
}

/// Who wrote over a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwriter {
    /// The frame that starts at this offset in the ring.
    Frame(u64),
    /// The frame that was being written.
    Unfinished,
    /// Nobody: the image is cut, or that of a larger ring.
    Cut,
    /// Nobody: the frame stands from before the pointer went back to 0.
    Restart,
    /// Nobody that can be told.
    Unknown,
}

impl Tear {
    /// Whether it cannot come from one payload being written over another, which is done by chunks.
    const fn is_amid_a_chunk(self) -> bool {
        matches!(self, Tear::Signature { offset } if !(offset + 1).is_multiple_of(CHUNK_BYTES as u64))
    }
}

impl Found {
    /// Whether all of the frame is there.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        matches!(self.verdict, Verdict::Whole | Verdict::Unstamped)
    }

    /// Nobody can have left it there.
    fn misplace(&mut self) {
        self.verdict = Verdict::Torn { tear: Tear::Misplaced, by: Overwriter::Unknown };
    }

    /// Whether its bytes are all there, be it of this epoch or of one before.
    pub(crate) const fn is_left_whole(&self) -> bool {
        self.is_sound() || matches!(self.verdict, Verdict::Stale { by: Overwriter::Restart })
    }

    /// Whether header and trailer contradict each other and no other frame accounts for it. In a
    /// ring that was only written by a camera this does not happen.
    #[must_use]
    pub const fn is_corrupt(&self) -> bool {
        matches!(self.verdict, Verdict::Torn { by: Overwriter::Unknown, .. })
    }

    /// Who wrote over it, if it is not sound.
    #[must_use]
    pub const fn overwriter(&self) -> Option<Overwriter> {
        match self.verdict {
            Verdict::Torn { by, .. } | Verdict::Stale { by } => Some(by),
            Verdict::Whole | Verdict::Unstamped => None,
        }
    }
}

impl RingImage {
    /// Takes the bytes of a whole ring.
    ///
    /// # Errors
    /// If their number is not a multiple of 32, or less than the smallest slot.
    pub fn new(bytes: Vec<u8>) -> Result<RingImage, NoRing> {
        let ring_bytes = bytes.len() as u64;
        RingImage::beginning(bytes, Some(ring_bytes))
    }

    /// Takes the beginning of a ring: all of it, or what is left where a file was cut. If nobody
    /// tells the ring's size, it is taken to be the next multiple of 4096.
    ///
    /// # Errors
    /// If there are fewer bytes than the smallest slot has, or if the ring's size is not a multiple
    /// of 32 or less than what is there.
    pub fn beginning(mut bytes: Vec<u8>, ring_bytes: Option<u64>) -> Result<RingImage, NoRing> {
        let present_bytes = bytes.len() as u64;
        let size = ring_bytes.unwrap_or(present_bytes.next_multiple_of(RING_BYTES_ALIGN));
        let is_size = size.is_multiple_of(CHUNK_BYTES as u64) && size >= present_bytes;
        if !is_size || present_bytes < SLOT_BYTES_MIN {
            return Err(NoRing { bytes: bytes.len() });
        }
        bytes.resize(size as usize, 0);
        Ok(RingImage { bytes, present_bytes, is_size_told: ring_bytes.is_some(), writer: None })
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

    /// How many of them the image has not; all of these are at the ring's end.
    #[must_use]
    pub fn missing_bytes(&self) -> u64 {
        self.ring_bytes() - self.present_bytes
    }

    /// Whether the ring's size was told. If not, a cut cannot be told from a small ring.
    #[must_use]
    pub fn is_size_told(&self) -> bool {
        self.is_size_told
    }

    /// All of the ring, with zeros for what is missing.
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

    /// The frames and what is left of others, as in [`Survey::frames`].
    #[must_use]
    pub fn frames(&self) -> Vec<Found> {
        self.survey().frames
    }

    /// What is in the ring, from its first byte to its last.
    #[must_use]
    pub fn survey(&self) -> Survey {
        let mut frames = search::search(self);
        frames.iter_mut().for_each(|found| self.heed_cut(found));
        frames.iter_mut().for_each(|found| self.heed_counters(found));
        frames.sort_by_key(|found| (found.start, !found.is_sound(), found.length));
        let stretches = stretches::partition(self, &mut frames);
        chain::number(self, &mut frames);
        Survey { frames, stretches }
    }

    /// The header slot in front of a start.
    fn header(&self, start: u64) -> FrameHeader {
        FrameHeader(*self.chunk(start + self.ring_bytes() - GAP_BYTES as u64))
    }

    /// Whether the counters say that nobody came by the slot of a frame since it was written.
    fn is_out_of_reach(&self, start: u64, length: u32) -> bool {
        let cursor = self
            .writer
            .and_then(|writer| writer.cursor_of(start, start + padded(length), self.ring_bytes()));
        cursor.is_some_and(|cursor| self.headroom(cursor).is_some())
    }

    /// Whether the frame at 0 is that of the epoch's first lap, and nobody came by its slot since.
    fn is_first_of_epoch(&self, length: u32) -> bool {
        let cursor = |writer: Writer| writer.cursor_of(0, padded(length), self.ring_bytes());
        self.writer.and_then(cursor) == Some(0) && self.is_out_of_reach(0, length)
    }

    /// Whether the present epoch has come by this stretch, as far as the counters tell: what stands
    /// elsewhere may have been abandoned at a reset.
    fn is_of_this_epoch(&self, start: u64, bytes: u64) -> bool {
        self.writer.is_none_or(|writer| {
            let is_behind = writer.complete >= self.ring_bytes().max(start + bytes);
            let is_first_lap = start + bytes <= writer.complete.min(self.ring_bytes());
            writer.epoch == 0 || is_behind || is_first_lap
        })
    }

    /// How far in front of the header slot of a frame with this cursor the writer is, by the
    /// counters.
    fn headroom(&self, start: u64) -> Option<u64> {
        let limit = start.saturating_add(self.ring_bytes() - GAP_BYTES as u64);
        limit.checked_sub(self.writer?.reserved)
    }

    /// Zeros in place of what is missing make a lawful payload.
    fn heed_cut(&self, found: &mut Found) {
        let wrapped = (found.start + padded(found.length)).saturating_sub(self.ring_bytes());
        let is_cut = found.start + padded(found.length) > self.present_bytes;
        if self.missing_bytes() > 0 && found.is_sound() && (is_cut || wrapped > 0) {
            found.verdict = Verdict::Torn { tear: Tear::Cut, by: Overwriter::Cut };
        }
    }

    /// Point 4 of the law of validity: bytes that fit may still be a mixture, if the writer was
    /// there while the image was taken.
    fn heed_counters(&self, found: &mut Found) {
        let (true, Some(writer)) = (found.is_sound(), self.writer) else { return };
        let end = found.start + padded(found.length);
        if writer.cursor_of(found.start, end, self.ring_bytes()).is_none() {
            // Not written in this epoch: it stands from before a reset.
            found.verdict = Verdict::Stale { by: Overwriter::Restart };
        } else if !self.is_out_of_reach(found.start, found.length) {
            found.verdict = Verdict::Torn { tear: Tear::Counters, by: Overwriter::Unfinished };
        }
    }
}

impl Writer {
    /// Whether the counters can be those of one writer.
    fn is_in_order(&self) -> bool {
        self.complete <= self.written && self.written <= self.reserved
    }

    /// The cursor of a frame that is all written: the last lap on which it was.
    fn cursor_of(&self, start: u64, end: u64, ring_bytes: u64) -> Option<u64> {
        let behind = self.written.checked_sub(end)?;
        Some(start + behind / ring_bytes * ring_bytes)
    }
}

fn chunk(bytes: &[u8], offset: u64) -> &[u8; CHUNK_BYTES] {
    let at = (offset % bytes.len() as u64) as usize;
    bytes[at..].first_chunk().expect("a ring is a whole number of chunks")
}

#[cfg(test)]
mod tests;
