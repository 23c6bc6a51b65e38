//! The search for frames, each by its own bytes and by what stands around it.

use std::collections::HashMap;

use circbuf_abi::ring::{CHUNK_BYTES, GAP_BYTES};

use super::extents::Extents;
use super::scan::{End, Scan};
use super::{Found, Overwriter, RingImage, Tear, Verdict, Writer};
use crate::ring::{Timestamp, padded, slot};

/// The frames of an image and what is left of others, in no order. Who wrote over them is not told
/// yet.
pub(super) fn search(image: &RingImage) -> Vec<Found> {
    let scan = Scan::of(&image.bytes);
    let [taken, gaps] = [(); 2].map(|()| Extents::new(image.ring_bytes()));
    let mut search = Search { image, scan: &scan, nearest: scan.nearest(), taken, gaps };
    let mut found = search.whole();
    found.extend(search.chained());
    found.extend(search.unstamped(&found));
    found.extend(search.torn());
    found.extend(search.stale());
    found
}

/// The search, with the extents of what was found.
struct Search<'a> {
    image: &'a RingImage,
    scan: &'a Scan<'a>,
    /// For each start to which trailers lead, the length that the first one behind it tells.
    nearest: HashMap<u64, u32>,
    taken: Extents,
    /// Between frames, where what the writer skipped is older than both.
    gaps: Extents,
}

impl Search<'_> {
    /// Stamped frames of which everything fits. They cannot overlap: there is no FF FF between a
    /// start and the end of its trailer, and each has one in front.
    fn whole(&mut self) -> Vec<Found> {
        let stamps = self.scan.stamps.iter();
        let whole: Vec<Found> = stamps
            .filter_map(|&start| {
                let header = self.image.header(start);
                let (length, verdict) = (header.length(), Verdict::Whole);
                let time = Some(self.judge(start, length).ok()?);
                Some(Found { start, length, time, header: Some(header), number: None, verdict })
            })
            .collect();
        whole.iter().for_each(|found| self.take(found.start, found.length));
        whole
    }

    /// Frames without a stamp to which the counters lead, from the last whole one back until the
    /// writer may have come by.
    fn chained(&mut self) -> Vec<Found> {
        let Some(writer) = self.image.writer.filter(Writer::is_in_order) else { return Vec::new() };
        let (mut found, mut cursor, mut is_linked) = (Vec::new(), writer.complete, true);
        while self.image.headroom(cursor).is_some() {
            let link = self.link(cursor, is_linked);
            if let Some(end) = link {
                found.extend(self.take_link(&end));
            }
            let bytes = link.map_or(CHUNK_BYTES as u64, |end| slot(end.length));
            is_linked = link.is_some();
            let Some(before) = cursor.checked_sub(bytes) else { break };
            cursor = before;
        }
        found
    }

    /// The end of the frame behind which the next one starts at this cursor. Behind a frame that is
    /// damaged no place is told, and time has to agree as well.
    fn link(&self, cursor: u64, is_linked: bool) -> Option<End> {
        let end = *self.before(cursor % self.image.ring_bytes())?;
        let start = cursor.checked_sub(slot(end.length))?;
        let headroom = self.image.headroom(start)?;
        // The writer has taken the trailer in front, or there never was one.
        let is_oldest = headroom < CHUNK_BYTES as u64 || start == 0;
        let is_first = is_linked && (is_oldest || self.before(end.start).is_some());
        let is_whole = self.taken.overlapping(end.start, padded(end.length)) == Some(end.start);
        let is_anchored = is_first || self.is_anchored(&end);
        ((is_whole || self.is_free(&end)) && self.is_frame(&end) && is_anchored).then_some(end)
    }

    /// Takes the frame to which a link leads, and tells of it unless it is stamped.
    fn take_link(&mut self, end: &End) -> Option<Found> {
        let is_new = self.taken.overlapping(end.start, padded(end.length)).is_none();
        is_new.then(|| {
            self.take(end.start, end.length);
            end.found(Verdict::Unstamped)
        })
    }

    /// Takes the bytes of a frame and the gap behind it, unless a frame may have been begun there
    /// since, where the pointer goes back to.
    fn take(&mut self, start: u64, length: u32) {
        self.taken.insert(start, padded(length));
        let gap = (start + padded(length)) % self.image.ring_bytes();
        if gap > 0 {
            self.gaps.insert(gap, GAP_BYTES as u64);
        }
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
            if self.is_free(end) && !self.has_lost_front(end) {
                self.take(end.start, end.length);
                found.push(end.found(Verdict::Unstamped));
            }
        }
        found
    }

    /// Whether another frame has the header slot in front, which is written before the payload, or
    /// the trailer before that stands in a gap.
    fn has_lost_front(&self, end: &End) -> bool {
        let slot =
            (end.start + self.image.ring_bytes() - GAP_BYTES as u64) % self.image.ring_bytes();
        let before = self.before(end.start);
        let is_in_gap = |e: &End| self.gaps.overlapping(e.offset, CHUNK_BYTES as u64).is_some();
        self.taken.overlapping(slot, GAP_BYTES as u64).is_some() || before.is_some_and(is_in_gap)
    }

    /// Whether nobody else has any of its bytes.
    fn is_free(&self, end: &End) -> bool {
        let bytes = padded(end.length);
        [&self.taken, &self.gaps].iter().all(|e| e.overlapping(end.start, bytes).is_none())
    }

    /// Ends of frames that can be believed without a stamp, by offset.
    fn candidates(&self) -> Vec<End> {
        let ends = self.scan.ends.iter();
        ends.filter(|end| self.is_frame(end) && self.is_anchored(end)).copied().collect()
    }

    /// Whether the bytes up to this end are those of a frame, if it is known to start there. Where
    /// another trailer stands among them, this one is older and stands in a gap that was skipped.
    fn is_frame(&self, end: &End) -> bool {
        let is_lawful = end.is_padded && self.scan.signature(end.start, end.length).is_none();
        let trailer = self.scan.trailer(end.start, end.length);
        let is_repeated = trailer.is_some_and(|trailer| self.scan.is_repeated(end.start, trailer));
        is_lawful && !is_repeated && !self.scan.holds_another(end) && !self.is_contradicted(end)
    }

    /// Whether in front of the start stands the trailer of an earlier frame or, if none is there, a
    /// gap that nobody touched or the header of a frame that began there before. Where there is a
    /// handler, the slot tells more than the gap alone.
    fn is_anchored(&self, end: &End) -> bool {
        let (header, is_bare) = (self.image.header(end.start), self.scan.stamps.is_empty());
        let is_gap = header.0 == [0; GAP_BYTES];
        match self.before(end.start) {
            Some(before) if before.time >= end.time => false,
            Some(_) => is_gap || header.is_stamped() || is_bare,
            None if end.start == 0 && self.is_behind_a_restart(end) => true,
            None => is_gap && is_bare || header.is_stamped(),
        }
    }

    /// Where the pointer went back to 0, the end of the ring is older than its beginning, or the
    /// counters know of nothing in front of it.
    fn is_behind_a_restart(&self, end: &End) -> bool {
        self.image.is_first_of_epoch(end.length)
            || self.scan.ends.last().is_some_and(|last| last.time < end.time)
    }

    /// The trailer that stands where that of the frame before would.
    fn before(&self, start: u64) -> Option<&End> {
        let slots = (GAP_BYTES + CHUNK_BYTES) as u64;
        self.scan.end_at(start + self.image.ring_bytes() - slots)
    }

    /// Whether the header in front tells another length for which the trailer would stand in the
    /// same chunk, so that one of both was damaged.
    fn is_contradicted(&self, end: &End) -> bool {
        let header = self.image.header(end.start);
        let length = header.length();
        header.is_stamped() && length != end.length && padded(length) == padded(end.length)
    }

    fn judge(&self, start: u64, length: u32) -> Result<Timestamp, Tear> {
        match self.nearest.get(&start) {
            Some(&trailer) if trailer < length => Err(Tear::Length { trailer }),
            _ => self.scan.judge(start, length),
        }
    }

    fn torn(&self) -> Vec<Found> {
        let judge = |&start: &u64| {
            let header = self.image.header(start);
            let length = header.length();
            let tear = self.judge(start, length).err()?;
            let verdict = Verdict::Torn { tear, by: Overwriter::Unknown };
            let trailer = self.scan.trailer(start, length);
            let time = trailer.filter(|trailer| trailer.length == length).map(|t| t.time);
            Some(Found { start, length, time, header: Some(header), number: None, verdict })
        };
        self.scan.stamps.iter().filter_map(judge).collect()
    }

    fn stale(&self) -> Vec<Found> {
        let is_left = |end: &&End| {
            let in_a_frame = self.taken.overlapping(end.offset, CHUNK_BYTES as u64).is_some();
            // With a header of its own it was judged by that.
            !in_a_frame && !self.is_stamped_with(end.start, end.length)
        };
        let left = self.scan.ends.iter().filter(is_left);
        left.map(|end| end.found(self.stale_or_torn(end))).collect()
    }

    /// A trailer whose frame is no frame has mostly lost its start. If the frame before stands up
    /// to there, nobody wrote over the start, and FF FF in the payload has no such excuse.
    fn stale_or_torn(&self, end: &End) -> Verdict {
        let by = Overwriter::Unknown;
        let is_behind_another = self.before(end.start).is_some_and(|before| before.time < end.time);
        match self.scan.judge(end.start, end.length) {
            Err(Tear::Repeated) => Verdict::Torn { tear: Tear::Repeated, by },
            Err(tear) if is_behind_another && tear.is_amid_a_chunk() => Verdict::Torn { tear, by },
            _ => Verdict::Stale { by },
        }
    }

    fn is_stamped_with(&self, start: u64, length: u32) -> bool {
        let header = self.image.header(start);
        header.is_stamped() && header.length() == length
    }
}
