//! Finds the frames between two boundaries of which the counters told cursor and number.
//!
//! Trailers lead from the upper boundary down. If the chain arrives at the lower one, with as many
//! frames as there have to be, all of them are found. If it does not, a frame in between is damaged,
//! and what lies beyond it has to be found from below, by headers. A bare ring has none: a payload
//! may look like a trailer, so that nothing but a chain from a true boundary is believed there, and
//! what lies beyond the damaged frame is given up. So is whatever does not add up to the counted
//! number of frames, rather than to number it by guess.

use std::sync::atomic::{Ordering, fence};

use circbuf_abi::ring::{CHUNK_BYTES, GAP_BYTES, SLOT_BYTES_MIN, TRAILER_MARKER};

use crate::device::Device;
use crate::registers::Registers;
use crate::ring::{Trailer, padded, slot};

/// A place between two frames, and the number of the frame that starts there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Boundary {
    pub(super) cursor: u64,
    pub(super) number: u64,
}

/// Where a frame lies, its gap included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) start: Boundary,
    pub(super) end: u64,
}

impl Extent {
    /// The boundary behind it.
    pub(super) fn next(&self) -> Boundary {
        Boundary { cursor: self.end, number: self.start.number + 1 }
    }
}

/// What a survey looks at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Survey<'a> {
    device: &'a Device,
    stamped: bool,
}

impl<'a> Survey<'a> {
    pub(super) fn new(device: &'a Device, registers: &Registers) -> Survey<'a> {
        Survey { device, stamped: registers.is_stamped() }
    }

    /// Frames between the boundaries, the last first. Between them damaged ones may be left out.
    pub(super) fn between(&self, from: Boundary, to: Boundary) -> Vec<Extent> {
        let mut extents = self.down(from, to);
        let reached = extents.last().map_or(to, |extent| extent.start);
        if reached == from || reached.number <= from.number + 1 {
            return extents;
        }
        let ahead = self.up(from, reached);
        let behind = ahead.last().map_or(from, Extent::next);
        extents.extend(self.search(behind, reached).into_iter().rev());
        extents.extend(ahead.into_iter().rev());
        extents
    }

    /// The chain of trailers from `to` down, the last frame first. If it does not arrive at `from`, a
    /// trailer may have led it astray, and it is believed as far as its links are proven.
    pub(super) fn down(&self, from: Boundary, to: Boundary) -> Vec<Extent> {
        let mut extents = Vec::new();
        let mut boundary = to;
        while boundary.number > from.number && boundary.cursor > from.cursor {
            let end = boundary.cursor;
            let Some(start) = self.start_of(end).filter(|&start| start >= from.cursor) else {
                break;
            };
            boundary = Boundary { cursor: start, number: boundary.number - 1 };
            extents.push(Extent { start: boundary, end });
        }
        if boundary != from {
            let proven = extents.iter().take_while(|extent| self.is_proven(extent)).count();
            extents.truncate(proven);
        }
        extents
    }

    /// Whether one frame and no more lies there: by its header, or on a bare ring by the trailer in
    /// front of it, and that no other one stands inside.
    fn is_proven(&self, Extent { start, end }: &Extent) -> bool {
        if self.stamped {
            return self.frame_at(start.cursor, *end) == Some(*end);
        }
        let chunks = start.cursor / CHUNK_BYTES as u64 + 1..*end / CHUNK_BYTES as u64 - 1;
        let mut inside = chunks.map(|chunk| self.device.ring().trailer(chunk * CHUNK_BYTES as u64));
        self.is_clear(start.cursor) && !inside.any(|trailer| trailer.is_plausible())
    }

    /// Whether a frame can start there. On a bare ring a trailer has to stand in front, and no second
    /// one in front of that: in a gap that is skipped an old trailer may stand.
    fn is_clear(&self, start: u64) -> bool {
        let is_trailer = |end| end > 0 && self.device.ring().trailer(end).is_plausible();
        let gap = GAP_BYTES as u64;
        let is_alone = || start < 2 * SLOT_BYTES_MIN || !is_trailer(start - 2 * gap);
        self.stamped || start == 0 || (start >= 2 * gap && is_trailer(start - gap) && is_alone())
    }

    /// The trailer of the frame before.
    fn trailer_in_front(&self, start: u64) -> Option<Trailer> {
        let end = start.checked_sub(GAP_BYTES as u64).filter(|&end| end > 0)?;
        Some(self.device.ring().trailer(end))
    }

    /// Where the frame starts that ends at this boundary, by its trailer.
    fn start_of(&self, end: u64) -> Option<u64> {
        if end < SLOT_BYTES_MIN {
            return None;
        }
        let trailer = self.device.ring().trailer(end - GAP_BYTES as u64);
        let slot_bytes = slot(trailer.length);
        let lawful = trailer.is_plausible() && slot_bytes <= self.device.max_slot_bytes();
        end.checked_sub(slot_bytes).filter(|_| lawful)
    }

    /// Frame after frame from `from` up.
    fn up(&self, from: Boundary, to: Boundary) -> Vec<Extent> {
        let mut extents = Vec::new();
        let mut boundary = from;
        while boundary.number < to.number {
            let Some(end) = self.frame_at(boundary.cursor, to.cursor) else { break };
            let extent = Extent { start: boundary, end };
            boundary = extent.next();
            extents.push(extent);
        }
        // Frames that fill the stretch, but are not as many as were counted, are not what they seem.
        if (boundary.cursor == to.cursor) != (boundary.number == to.number) {
            extents.clear();
        }
        extents
    }

    /// Whole frames behind a damaged one that starts at `from`. Their numbers are known only if the
    /// damaged ones that can be told apart between them are all that are missing.
    fn search(&self, from: Boundary, to: Boundary) -> Vec<Extent> {
        let mut extents: Vec<Extent> = Vec::new();
        let mut at = from;
        let mut start = from.cursor + SLOT_BYTES_MIN;
        while self.stamped && start < to.cursor {
            let Some(end) = self.frame_at(start, to.cursor) else {
                start += CHUNK_BYTES as u64;
                continue;
            };
            let number = at.number + self.damaged(at.cursor, start);
            let extent = Extent { start: Boundary { cursor: start, number }, end };
            at = extent.next();
            start = end;
            extents.push(extent);
        }
        if at.number + self.damaged(at.cursor, to.cursor) != to.number {
            extents.clear();
        }
        extents
    }

    /// At least so many frames, none of them whole, lie between two boundaries: as many as a chain of
    /// trailers has that leads all the way, or else as there are signatures.
    fn damaged(&self, from: u64, to: u64) -> u64 {
        let mut cursor = to;
        let mut links = 0;
        while let Some(start) = self.start_of(cursor).filter(|&start| start >= from) {
            cursor = start;
            links += 1;
        }
        if cursor == from {
            return links;
        }
        let starts = (from / CHUNK_BYTES as u64 + 2..to / CHUNK_BYTES as u64)
            .map(|chunk| chunk * CHUNK_BYTES as u64)
            .filter(|&start| self.device.ring().header(start).is_stamped());
        1 + starts.count() as u64
    }

    /// Where the frame that starts at `start` ends, if its header and its trailer say the same. Frames
    /// that were aborted one after the other have the trailer of the one before them all, which may
    /// lead over several of them.
    fn frame_at(&self, start: u64, limit: u64) -> Option<u64> {
        let trailer = by_header(self.device, start).filter(|_| self.stamped)?;
        let is_stale = self.trailer_in_front(start) == Some(trailer);
        Some(start + slot(trailer.length)).filter(|&end| end <= limit && !is_stale)
    }
}

/// The trailer of the frame that the slot in front of `start` tells of.
pub(super) fn by_header(device: &Device, start: u64) -> Option<Trailer> {
    let header = device.ring().header(start);
    let length = header.length();
    if !header.is_stamped() || length == 0 || slot(length) > device.max_slot_bytes() {
        return None;
    }
    // SYNC POINT: signature last. The trailer below is not older than the signature above.
    fence(Ordering::Acquire);
    let trailer = device.ring().trailer(start + padded(length));
    (trailer.is_plausible() && trailer.length == length).then_some(trailer)
}

/// Trailers that lead back to `start`, in slots of at most `slot_bytes`, the nearest first.
pub(super) fn leading_back(
    device: &Device,
    start: u64,
    slot_bytes: u64,
) -> impl Iterator<Item = Trailer> {
    let chunk = CHUNK_BYTES as u64;
    let ends = (1..=slot_bytes.saturating_sub(GAP_BYTES as u64) / chunk).map(move |n| n * chunk);
    ends.filter(move |&end| {
        device.ring().length_word(start + end).to_be_bytes()[0] == TRAILER_MARKER
    })
    .map(move |end| {
        // The FPGA's last word: what is read behind it is not older.
        fence(Ordering::Acquire);
        (end, device.ring().trailer(start + end))
    })
    .filter(|(end, trailer)| trailer.is_plausible() && padded(trailer.length) == *end)
    .map(|(_, trailer)| trailer)
}
