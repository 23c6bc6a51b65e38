//! Tailing without counters: by the stamp in front of the next frame where an interrupt handler
//! stamps, otherwise by its trailer alone, best effort.
//!
//! Where only bytes are there, time has to decide what is old: a frame that is not newer than the last
//! one is a relic of an earlier lap, unless two chained successors appear behind it that agree with
//! it on a new time: then the camera's clock was set back.

use std::collections::HashSet;
use std::sync::atomic::{Ordering, fence};

use circbuf_abi::ring::TRAILER_MARKER;

use super::period::Period;
use super::survey::{by_header, leading_back};
use super::{StartAt, Step};
use crate::device::Device;
use crate::forensics::{Found, RingImage, Verdict};
use crate::loss::{Loss, LossReason};
use crate::ring::{FrameHeader, Timestamp, Trailer, padded, slot};
use crate::validate::Candidate;

/// Steps without a frame after which the whole ring is searched, in case the boundary that is watched is
/// none. At 2 ms a step that is about once a second.
const IDLE_STEPS: u32 = 512;

/// The same while no frame was found at all, so that it is not known whether the ring is stamped.
const IDLE_STEPS_UNKNOWN: u32 = 128;

/// Watches the place where the next frame has to appear.
#[derive(Debug)]
pub(super) struct Watched {
    next: u64,
    sequence: u64,
    /// Whether frames are stamped; `None` until the first one is found.
    stamped: Option<bool>,
    last: Option<Last>,
    /// The frame that a search chose, until a frame is found.
    goal: Option<Trailer>,
    /// Searches since a frame was found.
    searches: usize,
    stale: Option<Chain>,
    /// Frames from before the clock was set back: newer by their time, but old.
    relics: HashSet<Located>,
    period: Period,
    idle_steps: u32,
}

/// The frame in front of `next`.
#[derive(Debug, Clone, Copy)]
struct Last {
    start: u64,
    header: FrameHeader,
    trailer: Trailer,
}

/// Times of a frame and its two successors; `None` where there is no such frame.
type Chain = [Option<Timestamp>; 3];

impl Watched {
    pub(super) fn attach(device: &Device, start: StartAt) -> Watched {
        let mut watched = Watched {
            next: 0,
            sequence: 0,
            stamped: None,
            last: None,
            goal: None,
            searches: 0,
            stale: None,
            relics: HashSet::new(),
            period: Period::default(),
            idle_steps: 0,
        };
        let frames = locate(device);
        match (start, frames.first(), frames.last()) {
            (StartAt::Oldest, Some(oldest), _) => {
                watched.next = oldest.start;
                watched.stamped = Some(oldest.stamped);
            }
            (StartAt::Newest, _, Some(newest)) => watched.stand_behind(device, newest),
            _ => {}
        }
        watched
    }

    pub(super) fn cursor(&self) -> u64 {
        self.next
    }

    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(super) fn poll(&mut self, device: &Device) -> Step {
        if let Some(trailer) = self.frame_at_next(device) {
            return self.found(device, trailer);
        }
        self.idle_steps += 1;
        let patience = if self.stamped.is_some() { IDLE_STEPS } else { IDLE_STEPS_UNKNOWN };
        if self.is_lapped(device) || self.idle_steps.is_multiple_of(patience) {
            return self.search(device);
        }
        Step::Idle
    }

    /// The trailer of a new frame at `next`.
    fn frame_at_next(&mut self, device: &Device) -> Option<Trailer> {
        let newest = self.last.map(|last| last.trailer.time);
        let trailer = match self.stamped {
            Some(false) => by_trailer(device, self.next, newest),
            _ => by_header(device, self.next),
        }?;
        match newest {
            Some(newest) if trailer.time <= newest => {
                self.is_clock_set_back(device, trailer).then_some(trailer)
            }
            _ => Some(trailer),
        }
    }

    /// Whether two successors agree on the older time that are new: they have appeared since it was
    /// first seen, or are not what the last lap left, which leads on to the last frame.
    fn is_clock_set_back(&mut self, device: &Device, trailer: Trailer) -> bool {
        let second_start = self.next + slot(trailer.length);
        let second = self.frame_at(device, second_start);
        let third =
            second.and_then(|second| self.frame_at(device, second_start + slot(second.length)));
        let chain = [Some(trailer.time), second.map(|t| t.time), third.map(|t| t.time)];
        let rises = matches!(chain, [Some(a), Some(b), Some(c)] if a < b && b < c);
        let before = *self.stale.get_or_insert(chain);
        let is_new = || before != chain || !self.leads_to_last(device, second_start);
        let set_back = rises && is_new();
        if set_back {
            self.relics = locate(device).into_iter().collect();
        }
        set_back
    }

    /// Whether frame after frame from `start` on leads around the ring to the last one.
    fn leads_to_last(&self, device: &Device, start: u64) -> bool {
        let Some(last) = self.last.filter(|_| !self.is_lapped(device)) else { return false };
        let mut start = start;
        while start < self.next + device.ring().bytes() {
            if device.ring().offset(start) == device.ring().offset(last.start) {
                return true;
            }
            let Some(trailer) = self.frame_at(device, start) else { return false };
            start += slot(trailer.length);
        }
        false
    }

    /// The trailer of whatever frame starts there.
    fn frame_at(&self, device: &Device, start: u64) -> Option<Trailer> {
        match self.stamped {
            Some(false) => by_trailer(device, start, None),
            _ => by_header(device, start),
        }
    }

    fn found(&mut self, device: &Device, trailer: Trailer) -> Step {
        let lapped = self.is_lapped(device);
        let missed = match self.last {
            Some(last) if lapped => self.period.between(last.trailer.time, trailer.time),
            _ => 0,
        };
        if missed > 0 {
            let last = self.last.take();
            let first = last.map(|last| last.trailer.time);
            return self.lose(missed, LossReason::Overrun, first, Some(trailer.time));
        }
        let stamped = self.stamped.unwrap_or(true);
        let start = self.next;
        let before = self.trailer_before(device, trailer);
        if let Some(last) = self.last {
            self.period.learn(last.trailer.time, trailer.time, 1);
        }
        self.move_behind(device, start, trailer);
        if before.is_none() {
            return self.lose(1, LossReason::Overrun, Some(trailer.time), Some(trailer.time));
        }
        let sequence = self.sequence;
        self.sequence += 1;
        Step::Frame(Candidate { start, epoch: 0, sequence, trailer, stamped, before })
    }

    /// What stands in front of this frame's slot, if the writer left it there before the frame. What is
    /// newer, or no trailer, it may have left on its way to the slot.
    fn trailer_before(&self, device: &Device, frame: Trailer) -> Option<Trailer> {
        let before = device.ring().trailer_before(self.next);
        let is_last = self.last.is_some_and(|last| last.trailer == before);
        let is_older = before.is_plausible() && before.time < frame.time;
        (is_last || is_older || before == Trailer::NONE).then_some(before)
    }

    fn move_behind(&mut self, device: &Device, start: u64, trailer: Trailer) {
        // SYNC POINT: header before signature, which was seen.
        fence(Ordering::Acquire);
        let header = device.ring().header(start);
        // Nobody stamps a bare ring.
        self.stamped = self.stamped.map(|stamped| stamped || header.is_stamped());
        self.last = Some(Last { start, header, trailer });
        self.next = start + slot(trailer.length);
        (self.goal, self.searches) = (None, 0);
        self.stale = None;
        self.idle_steps = 0;
    }

    fn stand_behind(&mut self, device: &Device, found: &Located) {
        self.stamped = Some(found.stamped);
        self.move_behind(device, found.start, found.trailer);
    }

    /// Whether the frame in front of `next`, or behind a search the one at it, is not there any more:
    /// the writer has been round.
    fn is_lapped(&self, device: &Device) -> bool {
        let Some(last) = self.last else {
            return self.goal.is_some_and(|goal| {
                device.ring().trailer(self.next + padded(goal.length)) != goal
            });
        };
        let stamped = self.stamped.unwrap_or(true);
        let end = last.start + padded(last.trailer.length);
        device.ring().trailer(end) != last.trailer
            || (stamped && device.ring().header(last.start) != last.header)
    }

    /// Looks for newer frames in the whole ring and goes on with them.
    fn search(&mut self, device: &Device) -> Step {
        let is_lapped = self.is_lapped(device);
        let missed_goal = self.goal.map(|goal| (self.next, goal.time));
        let before = self.last.map(|last| (last.start, last.trailer.time)).or(missed_goal);
        let newest = before.map(|(_, time)| time);
        let mut frames = locate(device);
        // Where one frame was stamped, a frame that is not is none.
        frames.retain(|frame| frame.stamped || self.stamped != Some(true));
        let there: HashSet<&Located> = frames.iter().collect();
        self.relics.retain(|relic| there.contains(relic));
        let is_newer = |frame: &&Located| Some(frame.trailer.time) > newest;
        let unread: Vec<&Located> =
            frames.iter().filter(|frame| !self.relics.contains(*frame)).collect();
        let mut newer: Vec<&Located> = unread.iter().copied().filter(is_newer).collect();
        let is_dark = newer.is_empty() && is_lapped;
        if is_dark {
            // The writer has been round, but nothing is newer: the clock was set back meanwhile.
            newer = unread;
        }
        // After a lap not the very oldest: the writer is about to come to it. The more often it was
        // there first, the newer.
        let index = if is_lapped { newer.len() * (1 + self.searches) / 4 } else { 0 };
        let Some(&goal) = newer.get(index).or(newer.last()) else { return Step::Idle };
        let after = goal.trailer.time;
        let missed = newest.map_or(0, |newest| self.period.between(newest, after))
            + u64::from(missed_goal.is_some() || is_dark);
        let lap = device.ring().bytes();
        self.next = self.next / lap * lap + goal.start;
        if before.is_some_and(|(start, _)| self.next <= start) {
            self.next += lap;
        }
        self.stamped = Some(goal.stamped);
        self.last = None;
        (self.goal, self.searches) = (Some(goal.trailer), self.searches + 1);
        self.stale = None;
        self.idle_steps = 0;
        self.lose(missed, LossReason::Overrun, newest, Some(after))
    }

    fn lose(
        &mut self,
        count: u64,
        reason: LossReason,
        first: Option<Timestamp>,
        last: Option<Timestamp>,
    ) -> Step {
        if count == 0 {
            return Step::Idle;
        }
        let sequence = self.sequence;
        self.sequence += count;
        Step::Lost(Loss { reason, refusal: None, sequence, count, exact: false, first, last })
    }
}

/// The first trailer behind `start` that leads back to it and is newer than `newest`; if none is, the
/// first that leads back to it.
fn by_trailer(device: &Device, start: u64, newest: Option<Timestamp>) -> Option<Trailer> {
    let mut leading_back = leading_back(device, start, device.max_slot_bytes());
    let first = leading_back.next()?;
    let is_newer = |trailer: &Trailer| newest.is_none_or(|newest| trailer.time > newest);
    Some(first).filter(is_newer).or_else(|| leading_back.find(is_newer)).or(Some(first))
}

/// A frame that the search of the whole ring found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Located {
    start: u64,
    trailer: Trailer,
    stamped: bool,
}

/// Whole frames in the ring, the oldest first. Where some are stamped, one that is not is none yet.
fn locate(device: &Device) -> Vec<Located> {
    let image = RingImage::new(device.ring().image()).expect("a device's ring has a lawful size");
    let sound = image.frames().into_iter().filter(Found::is_sound);
    let mut located: Vec<Located> = sound
        .filter(|found| slot(found.length) <= device.max_slot_bytes())
        .filter_map(|found| {
            let trailer =
                Trailer { time: found.time?, length: found.length, marker: TRAILER_MARKER };
            let stamped = found.verdict == Verdict::Whole;
            Some(Located { start: found.start, trailer, stamped })
        })
        .collect();
    if located.iter().any(|frame| frame.stamped) {
        located.retain(|frame| frame.stamped);
    }
    located.sort_by_key(|frame| frame.trailer.time);
    located
}
