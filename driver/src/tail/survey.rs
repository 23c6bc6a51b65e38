//! Finds the frames between two boundaries of which the counters told cursor and number.
//!
//! Trailers lead from the upper boundary down. If the chain arrives at the lower one, with as many
//! frames as there have to be, all of them are found. If it does not, a frame in between is damaged,
//! and what lies beyond it has to be found from below, by headers or, on a bare ring, by trailers
//! that lead back. Whatever does not add up to the counted number of frames is given up rather than
//! numbered by guess.

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
            match self.start_of(boundary) {
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
        while let Some(lowest) = extents.last() {
            let is_proven =
                self.stamped && self.frame_at(lowest.start.cursor, lowest.end) == Some(lowest.end);
            if is_proven {
                return;
            }
            extents.pop();
            if !self.stamped {
                return;
            }
        }
    }

    /// Where the frame starts that ends at this boundary.
    fn start_of(&self, boundary: Boundary) -> Option<u64> {
        if boundary.cursor < SLOT_BYTES_MIN {
            return None;
        }
        let trailer = self.device.ring().trailer(boundary.cursor - GAP_BYTES as u64);
        let slot_bytes = slot(trailer.length);
        let lawful = trailer.is_plausible() && slot_bytes <= self.device.max_slot_bytes();
        boundary.cursor.checked_sub(slot_bytes).filter(|_| lawful)
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

    /// Whole frames behind a damaged one that starts at `from`. Their numbers are known only if each
    /// stretch between them hides one damaged frame and no more.
    fn search(&self, from: Boundary, to: Boundary) -> Vec<Extent> {
        let mut extents: Vec<Extent> = Vec::new();
        let mut at = from;
        let mut start = from.cursor + SLOT_BYTES_MIN;
        while self.stamped && start < to.cursor {
            let Some(end) = self.frame_at(start, to.cursor) else {
                start += CHUNK_BYTES as u64;
                continue;
            };
            let number = at.number + u64::from(start > at.cursor);
            let extent = Extent { start: Boundary { cursor: start, number }, end };
            at = extent.next();
            start = end;
            extents.push(extent);
        }
        if at.number + u64::from(at.cursor < to.cursor) != to.number {
            extents.clear();
        }
        extents
    }

    /// Where the frame that starts at `start` ends, if it is whole by its header, or on a bare ring by
    /// the first trailer that leads back to it.
    fn frame_at(&self, start: u64, limit: u64) -> Option<u64> {
        let length = if self.stamped {
            by_header(self.device, start)?.length
        } else {
            let most = limit.saturating_sub(start).min(self.device.max_slot_bytes());
            leading_back(self.device, start, most).next()?.length
        };
        Some(start + slot(length)).filter(|&end| end <= limit)
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
