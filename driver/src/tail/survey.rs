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

    /// The chain of trailers from `to` down, the last frame first, as far as it can be believed.
    pub(super) fn down(&self, from: Boundary, to: Boundary) -> Vec<Extent> {
        let mut extents = Vec::new();
        let mut boundary = to;
        let mut is_broken = false;
        while boundary.number > from.number && boundary.cursor > from.cursor && !is_broken {
            match self.start_of(boundary.cursor) {
                Some(start) if start < from.cursor => break,
                Some(start) => {
                    let end = boundary.cursor;
                    boundary = Boundary { cursor: start, number: boundary.number - 1 };
                    extents.push(Extent { start: boundary, end });
                }
                None => is_broken = true,
            }
        }
        if boundary != from && (is_broken || boundary.number == from.number) {
            self.drop_unproven(&mut extents);
        }
        extents
    }

    /// The last frame of a broken chain starts where its own trailer says and nothing else: a trailer
    /// with a wrong length leads anywhere. A header in front of it proves it.
    fn drop_unproven(&self, extents: &mut Vec<Extent>) {
        let is_proven =
            |extent: &Extent| self.frame_at(extent.start.cursor, extent.end) == Some(extent.end);
        while extents.pop_if(|lowest| !is_proven(lowest)).is_some() && self.stamped {}
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

    /// Where the frame that starts at `start` ends, if its header and its trailer say the same.
    fn frame_at(&self, start: u64, limit: u64) -> Option<u64> {
        let trailer = by_header(self.device, start).filter(|_| self.stamped)?;
        Some(start + slot(trailer.length)).filter(|&end| end <= limit)
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
