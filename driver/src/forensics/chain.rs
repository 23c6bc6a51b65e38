//! The numbers of frames, from the counters.

use std::collections::HashMap;

use circbuf_abi::ring::GAP_BYTES;

use super::{Found, RingImage, Tear, Verdict};
use crate::ring::slot;

/// The frame that ends at `complete` has the last number, the one in front of it the number
/// before, and so on until a link is missing, the epoch begins or the lap is over.
pub(super) fn number(image: &RingImage, frames: &mut [Found]) {
    let Some(writer) = image.writer else { return };
    let ring_bytes = image.ring_bytes();
    let mut by_next = HashMap::new();
    for (index, found) in frames.iter().enumerate().filter(|(_, found)| found.time.is_some()) {
        let next = (found.start + slot(found.length)) % ring_bytes;
        let best = by_next.entry(next).or_insert(index);
        if rank(found) < rank(&frames[*best]) {
            *best = index;
        }
    }
    let (mut cursor, mut left) = (writer.complete, writer.frames);
    while writer.complete - cursor < ring_bytes {
        let Some(&index) = by_next.get(&(cursor % ring_bytes)) else { return };
        let start = cursor.checked_sub(slot(frames[index].length));
        let (Some(start), Some(number)) = (start, left.checked_sub(1)) else { return };
        // Where the writer has been since, a newer frame may end at the same place.
        let is_still_there = writer.complete - start <= ring_bytes - GAP_BYTES as u64;
        if is_still_there || !stands_alone(&frames[index]) || writer.reserved == writer.complete {
            frames[index].number = Some(number);
        }
        (cursor, left) = (start, number);
    }
}

/// Whether its bytes are those of one frame, of whichever lap.
fn stands_alone(found: &Found) -> bool {
    let is_judged = matches!(found.verdict, Verdict::Torn { tear: Tear::Counters, .. });
    found.is_sound() || is_judged
}

/// Of two that end at the same place, which one the chain means.
fn rank(found: &Found) -> u8 {
    match found.verdict {
        Verdict::Whole => 0,
        Verdict::Unstamped => 1,
        Verdict::Torn { .. } => 2,
        Verdict::Stale { .. } => 3,
    }
}
