//! Finds the frames between two boundaries of which the counters told cursor and number.
//!
//! Trailers lead from the upper boundary down. If the chain arrives at the lower one, with as many
//! frames as there have to be, all of them are found. If it does not, a frame in between is damaged,
//! and what lies beyond it has to be found from below: by headers, or on a bare ring behind gaps of
//! zeros. What does not add up to the counted number of frames is given up rather than numbered by guess.

use std::sync::atomic::{Ordering, fence};

use circbuf_abi::ring::{
    CHUNK_BYTES, GAP_BYTES, SLOT_BYTES_MIN, TRAILER_BYTES, TRAILER_MARKER, ZEROS_MIN,
};

use crate::device::Device;
use crate::ring::{Timestamp, Trailer, padded, slot};

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

/// A chain of trailers, from a boundary down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chain {
    /// How many frames it leads over.
    pub(super) links: u64,
    /// Where the lowest of them starts.
    pub(super) reached: u64,
}

/// What a survey looks at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Survey<'a> {
    device: &'a Device,
    stamped: bool,
    since: Option<Timestamp>,
}

impl<'a> Survey<'a> {
    /// What is looked for is newer than a frame that was exposed at `since`.
    pub(super) fn new(device: &'a Device, since: Option<Timestamp>) -> Survey<'a> {
        Survey { device, stamped: device.is_stamped(), since }
    }

    /// Fills `extents` with the frames between the boundaries, the last first. Between them damaged ones
    /// may be left out.
    pub(super) fn between(&self, from: Boundary, to: Boundary, extents: &mut Vec<Extent>) {
        self.down(from, to, extents);
        let mut reached = extents.last().map_or(to, |extent| extent.start);
        if reached.cursor == from.cursor && reached.number != from.number {
            // Some link leads over more than one frame, and nobody knows which.
            extents.clear();
            reached = to;
        }
        if reached == from || reached.number <= from.number + 1 {
            return;
        }
        let ahead = self.up(from, reached);
        let behind = ahead.last().map_or(from, Extent::next);
        extents.extend(self.search(behind, reached).into_iter().flatten().rev());
        extents.extend(ahead.into_iter().rev());
    }

    /// Fills `extents` with the chain of trailers from `to` down, the last frame first. If it does not
    /// arrive at `from`, a trailer may have led it astray, and it is believed as far as its links are
    /// proven.
    pub(super) fn down(&self, from: Boundary, to: Boundary, extents: &mut Vec<Extent>) {
        extents.clear();
        let mut boundary = to;
        while boundary.number > from.number && boundary.cursor > from.cursor {
            let end = boundary.cursor;
            let Some(start) = self.start_of(end).filter(|&start| start >= from.cursor) else {
                break;
            };
            if self.has_nearer_end(start, end) {
                break;
            }
            boundary = Boundary { cursor: start, number: boundary.number - 1 };
            extents.push(Extent { start: boundary, end });
        }
        if boundary != from {
            // The first frame starts at `from`, unless the pointer was wrong and a header says so.
            extents.pop_if(|extent| !self.stamped && extent.start.number == from.number);
            extents.truncate(self.proven(extents));
        }
    }

    /// How many links of a chain are proven. On a bare ring it takes the link below to prove where a frame
    /// starts, or a gap.
    fn proven(&self, extents: &[Extent]) -> usize {
        let links = extents.iter().take_while(|extent| self.is_link(extent)).count();
        let lowest = extents[..links].last();
        let is_start =
            lowest.is_none_or(|extent| self.stamped || self.has_gap(extent.start.cursor));
        links - usize::from(!is_start)
    }

    /// Whether one frame and no more lies there.
    fn is_link(&self, &Extent { start: Boundary { cursor: start, .. }, end }: &Extent) -> bool {
        if self.stamped {
            let is_single = || self.is_new(start, end) || self.signatures(start, end) == 0;
            return self.frame_at(start, end) == Some(end) && is_single();
        }
        let is_start = self.has_gap(start) || (self.is_alone(start) && self.is_new(start, end));
        is_start && !self.is_stale(start, end) && self.first_end(start, end) == Some(end)
    }

    /// From boundary to boundary along the chain of trailers, from `to` down to `from` at the lowest, as
    /// far as nobody can doubt that each link is one frame: nothing counts them. At the beginning of the
    /// ring a reset may have put the writer, so that what is at the ring's end has to be newer.
    pub(super) fn chain(&self, from: u64, to: u64) -> Chain {
        let mut chain = Chain { links: 0, reached: to };
        while chain.reached > from {
            let end = chain.reached;
            let is_link = |start: &u64| {
                let may_be_old = !end.is_multiple_of(self.device.ring().bytes());
                *start >= from
                    && (*start == from || self.may_start(*start))
                    && self.is_one(*start, end)
                    && (may_be_old || self.is_new(*start, end))
            };
            let Some(start) = self.start_of(end).filter(is_link) else { break };
            chain = Chain { links: chain.links + 1, reached: start };
        }
        chain
    }

    /// Whether anything says that a frame may start there: a header, an empty slot, or the trailer in
    /// front. A trailer whose length is wrong leads into a payload, where none of them is.
    fn may_start(&self, start: u64) -> bool {
        let header = self.device.ring().header(start);
        let is_behind = || trailer_in_front(self.device, start).is_some_and(|it| it.is_plausible());
        header.is_stamped() || header.is_empty() || is_behind()
    }

    /// Whether one frame and no more lies there, be it with a damaged header, or without one because its
    /// interrupt was lost.
    fn is_one(&self, start: u64, end: u64) -> bool {
        let header = self.device.ring().header(start);
        let is_alone = || self.signatures(start, end) == 0;
        let is_proven = match header.is_stamped() && start + slot(header.length()) == end {
            true => self.is_new(start, end) || is_alone(),
            false => self.is_new(start, end) && is_alone(),
        };
        is_proven && !self.has_nearer_end(start, end)
    }

    /// How many frames lie between two boundaries, if their headers tell of each where it ends, whatever
    /// stands in its trailer.
    pub(super) fn by_headers(&self, from: u64, to: u64) -> Option<u64> {
        let (mut links, mut at) = (0, from);
        while at < to {
            let header = self.device.ring().header(at);
            let end = at + slot(header.length());
            let is_link = header.is_stamped() && end <= to && self.signatures(at, end) == 0;
            (links, at) = is_link.then_some((links + 1, end))?;
        }
        Some(links)
    }

    /// How many frames there are at least between two boundaries, by their headers.
    pub(super) fn least(&self, from: u64, to: u64) -> u64 {
        1 + self.signatures(from, to) as u64
    }

    /// Whether an aborted compression left the trailer as it was.
    fn is_stale(&self, start: u64, end: u64) -> bool {
        let trailer = self.device.ring().trailer(end - GAP_BYTES as u64);
        trailer_in_front(self.device, start) == Some(trailer)
    }

    /// Whether the trailer of a frame is newer than the one in front. An aborted frame has no newer one, nor
    /// has an old trailer in a gap that is skipped.
    fn is_new(&self, start: u64, end: u64) -> bool {
        let time = self.device.ring().trailer(end - GAP_BYTES as u64).time;
        let before = trailer_in_front(self.device, start).filter(Trailer::is_plausible);
        self.since < Some(time) && before.is_none_or(|before| before.time < time)
    }

    /// Whether another trailer stands one chunk nearer, which is then the true end: behind it, in a gap
    /// that is skipped, an old one may lead back to the same start. On a stamped ring that matters if the
    /// header, which tells what the true trailer tells, fits both.
    fn has_nearer_end(&self, start: u64, end: u64) -> bool {
        let nearer_end = end - 2 * GAP_BYTES as u64;
        if nearer_end <= start {
            return false;
        }
        let nearer = self.device.ring().trailer(nearer_end);
        let trailer = self.device.ring().trailer(end - GAP_BYTES as u64);
        let fits = match self.stamped {
            true => nearer.length == trailer.length,
            false => start + padded(nearer.length) == nearer_end,
        };
        nearer.is_plausible() && fits
    }

    /// Whether a gap proves that a frame starts there, or the beginning of the epoch.
    fn has_gap(&self, start: u64) -> bool {
        start == 0 || is_behind_gap(self.device, start)
    }

    /// Whether no other trailer stands beside the one in front: where a gap is skipped one of them is old.
    fn is_alone(&self, start: u64) -> bool {
        let is_end = |end| self.device.ring().trailer(end).is_plausible();
        start < 2 * SLOT_BYTES_MIN || !(is_end(start - 2 * GAP_BYTES as u64) || is_end(start))
    }

    /// Where the frame starts that ends at this boundary, by its trailer.
    pub(super) fn start_of(&self, end: u64) -> Option<u64> {
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
    fn search(&self, from: Boundary, to: Boundary) -> Option<Vec<Extent>> {
        let mut extents: Vec<Extent> = Vec::new();
        let mut at = from;
        let mut start = from.cursor + SLOT_BYTES_MIN;
        while start < to.cursor {
            let Some(end) = self.frame_at(start, to.cursor) else {
                start += CHUNK_BYTES as u64;
                continue;
            };
            let number = at.number + self.damaged(at.cursor, start)?;
            let extent = Extent { start: Boundary { cursor: start, number }, end };
            at = extent.next();
            start = end;
            extents.push(extent);
        }
        let is_all = at.number + self.damaged(at.cursor, to.cursor)? == to.number;
        is_all.then_some(extents)
    }

    /// How many frames, none of them whole, lie between two boundaries: as many as a chain of trailers has
    /// that leads all the way, or else as there are headers. On a bare ring it is the gaps that tell, if
    /// none is missing.
    fn damaged(&self, from: u64, to: u64) -> Option<u64> {
        if !self.stamped {
            let gaps = self.gaps(from, to)?;
            return Some(gaps + u64::from(from < to));
        }
        let mut cursor = to;
        let mut links = 0;
        while let Some(start) = self.start_of(cursor).filter(|&start| start >= from) {
            cursor = start;
            links += 1;
        }
        Some(if cursor == from { links } else { 1 + self.signatures(from, to) as u64 })
    }

    /// How many gaps lie between the boundaries, unless some trailer has none behind it.
    fn gaps(&self, from: u64, to: u64) -> Option<u64> {
        let last = to.saturating_sub(SLOT_BYTES_MIN);
        let mut starts = (from + SLOT_BYTES_MIN..=last).step_by(CHUNK_BYTES);
        starts.try_fold(0, |gaps, start| match (self.has_gap(start), self.is_end(start)) {
            (true, _) => Some(gaps + 1),
            (false, true) => None,
            (false, false) => Some(gaps),
        })
    }

    /// Whether a trailer stands in front of `start`, and none right in front of it.
    fn is_end(&self, start: u64) -> bool {
        self.start_of(start).is_some() && self.start_of(start - GAP_BYTES as u64).is_none()
    }

    /// How many headers are stamped between the boundaries, those in front of them apart.
    fn signatures(&self, from: u64, to: u64) -> usize {
        let chunk = CHUNK_BYTES as u64;
        let starts = (from / chunk + 2..to / chunk).map(|index| index * chunk);
        starts.filter(|&start| self.device.ring().header(start).is_stamped()).count()
    }

    /// Where the frame that starts at `start` ends: on a stamped ring if its header and its trailer say the
    /// same, on a bare one if it lies between gaps. Frames that were aborted one after the other have the
    /// trailer of the one before them all, which may lead over several of them.
    fn frame_at(&self, start: u64, limit: u64) -> Option<u64> {
        let end = match self.stamped {
            true => start + slot(by_header(self.device, start)?.length),
            false => {
                let end = self.first_end(start, limit).filter(|_| self.has_gap(start))?;
                let is_end = end == limit || self.device.ring().header(end).is_empty();
                is_end.then_some(end)?
            }
        };
        let is_single = || !self.is_stale(start, end) && !self.has_nearer_end(start, end);
        (end <= limit && is_single()).then_some(end)
    }

    /// Where the frame that starts at `start` ends, if the first trailer behind it leads back: in a payload
    /// a trailer is no proof.
    fn first_end(&self, start: u64, limit: u64) -> Option<u64> {
        let slot_bytes = limit.saturating_sub(start).min(self.device.max_slot_bytes());
        let (end, trailer) = trailers_behind(self.device, start, slot_bytes).next()?;
        (padded(trailer.length) == end).then(|| start + slot(trailer.length))
    }
}

/// The trailer of the frame in front of the one at `start`; `None` in front of the first of an epoch.
pub(super) fn trailer_in_front(device: &Device, start: u64) -> Option<Trailer> {
    let end = start.checked_sub(GAP_BYTES as u64).filter(|&end| end > 0)?;
    Some(device.ring().trailer(end))
}

/// Whether a gap ends at `start` and nowhere else: of zeros in front of zeros it would be no proof. Nor is
/// it where none of the zeros that every frame ends with stand in front of it: those are the last chunk of
/// a frame whose trailer never came.
pub(super) fn is_behind_gap(device: &Device, start: u64) -> bool {
    let is_zero = |start| device.ring().header(start).is_empty();
    let trailer_chunk = || device.ring().header(start - GAP_BYTES as u64).0;
    let padding = CHUNK_BYTES - TRAILER_BYTES - ZEROS_MIN..CHUNK_BYTES - TRAILER_BYTES;
    is_zero(start)
        && !is_zero(start + CHUNK_BYTES as u64)
        && (start < SLOT_BYTES_MIN || trailer_chunk()[padding] == [0; ZEROS_MIN])
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
    trailers_behind(device, start, slot_bytes)
        .filter(|(end, trailer)| padded(trailer.length) == *end)
        .map(|(_, trailer)| trailer)
}

/// What looks like a trailer in a slot of at most `slot_bytes` that starts at `start`, and how far
/// behind that it ends; the nearest first.
fn trailers_behind(
    device: &Device,
    start: u64,
    slot_bytes: u64,
) -> impl Iterator<Item = (u64, Trailer)> {
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
    .filter(|(_, trailer)| trailer.is_plausible())
}
