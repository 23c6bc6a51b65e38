//! Makes of a pointer what counters would tell: the boundary behind the last complete frame, and its
//! number.
//!
//! The pointer says where frames end, as long as it is looked at in time ([`crate::pointer`]). Frames
//! between two places of it are counted by the chain of trailers, down from the newer one. That is exact
//! if the chain arrives at the older one, or headers tell where the frames in the rest end, if every link of
//! it is proven to be one frame, by its header or by a newer time, and if the writer had not come to the
//! last of them when it was done. Otherwise it is an estimate: by what of the chain there is and the headers
//! in the rest; and after a look that came too late, by the times of frames. A frame whose length is wrong in
//! its trailer *and* in its header, as a handler stamps it that reads a damaged trailer, is such a case:
//! whether there was one frame or, with a lost interrupt, two, nothing tells. Numbers are only good for
//! telling what is missing as long as all of it was exact, and [`Pointed::is_exact`] says so.
//!
//! A pointer may be seen before the frame's header is stamped, and on a 393 the signature before the
//! parameters. So the newest frame is complete once its header has stood there for a moment, or when the
//! pointer has moved on. One that never gets a header, because its interrupt was served together with the
//! next frame's, is complete then as well, and refused by the law.

use circbuf_abi::ring::{GAP_BYTES, SLOT_BYTES_MIN};

use super::period::Period;
use super::survey::{Chain, Survey, trailer_in_front};
use crate::device::{Device, DeviceError};
use crate::pointer::{FramePointer, Seen};
use crate::registers::Progress;
use crate::ring::{FrameHeader, Timestamp, Trailer, slot};

/// How long a header has to stand unchanged, in nanoseconds: the handler stamps all of it within
/// microseconds.
const SETTLES_NS: u64 = 50_000;

/// What is counted behind a pointer.
#[derive(Debug)]
pub(super) struct Pointed {
    told: Progress,
    /// The trailer in front of `told`, if there is one.
    last: Option<Trailer>,
    /// When `told` was known.
    told_ns: u64,
    period: Period,
    newest: Option<Newest>,
    /// Where the last hole ends.
    hole_end: Option<u64>,
    exact: bool,
}

/// A frame whose end was seen, and which is not complete yet.
#[derive(Debug, Clone, Copy)]
struct Newest {
    end: u64,
    trailer: Option<Trailer>,
    /// If it is that of this frame.
    header: Option<FrameHeader>,
    /// When it was there.
    since_ns: u64,
}

impl Pointed {
    /// Begins at the pointer. What lies in front of it is numbered from 0.
    pub(super) fn attach(device: &Device) -> Result<Pointed, DeviceError> {
        let seen = pointer(device).look()?;
        let end = seen.cursor;
        Ok(Pointed {
            told: Progress { epoch: seen.epoch, complete: end, frames: in_front(device, seen) },
            last: trailer_at(device, end),
            told_ns: seen.before_ns,
            period: Period::default(),
            newest: None,
            hole_end: None,
            exact: true,
        })
    }

    /// As it was last.
    pub(super) fn told(&self) -> Progress {
        self.told
    }

    pub(super) fn is_exact(&self) -> bool {
        self.exact
    }

    pub(super) fn is_settling(&self) -> bool {
        self.newest.is_some()
    }

    /// Where a hole ends. It begins at the boundary that was told before. In it lies a damaged frame across
    /// the beginning of the ring, or frames of the lap before if the camera was reset there: whatever
    /// looks whole in it is not to be read.
    pub(super) fn hole_end(&self) -> Option<u64> {
        self.hole_end
    }

    /// What is complete by now.
    pub(super) fn progress(&mut self, device: &Device) -> Result<Progress, DeviceError> {
        let seen = pointer(device).look()?;
        if seen.epoch != self.told.epoch {
            self.resume(device, seen);
        } else if seen.cursor != self.told.complete {
            self.advance(device, seen);
        } else {
            self.told_ns = seen.before_ns;
        }
        Ok(self.told)
    }

    /// The pointer stands behind a frame that is not complete yet.
    fn advance(&mut self, device: &Device, seen: Seen) {
        let end = seen.cursor;
        let header = header_of_last(device, end);
        if self.newest.is_some_and(|newest| trailer_at(device, newest.end) != newest.trailer) {
            return pointer(device).lose_sight();
        }
        match self.newest {
            Some(newest) if (newest.end, newest.header) == (end, header) => {
                let stood_ns = seen.before_ns.saturating_sub(newest.since_ns);
                if header.is_some() && stood_ns >= SETTLES_NS {
                    self.newest = None;
                    self.count(device, end);
                }
            }
            before => {
                let trailer = trailer_at(device, end);
                self.newest = Some(Newest { end, trailer, header, since_ns: seen.after_ns });
                if let Some(before) = before.filter(|before| before.end != end) {
                    self.pass(device, before.end, end);
                }
            }
        }
    }

    /// The pointer was at `passed` and has moved on to `end`. If no chain leads down from there, what is
    /// behind it may tell more, but is not waited for beyond a quarter of the ring.
    fn pass(&mut self, device: &Device, passed: u64, end: u64) {
        let from = self.told.complete;
        let is_whole = || Survey::new(device, self.last_time()).chain(from, passed).reached == from;
        if end - from > device.ring().bytes() / 4 || is_whole() {
            self.count(device, passed);
        }
    }

    /// What lies in front of `end` is complete.
    fn count(&mut self, device: &Device, end: u64) {
        let from = self.told.complete;
        let survey = Survey::new(device, self.last_time());
        let chain = survey.chain(from, end);
        let beginning = end / device.ring().bytes() * device.ring().bytes();
        let has_hole = from < beginning && beginning < chain.reached;
        if self.may_be_reset(device, chain, beginning) {
            return pointer(device).lose_sight();
        }
        let (hidden, is_proven) = match has_hole {
            true => (survey.least(beginning, chain.reached), false),
            false => hidden(survey, from, chain.reached),
        };
        let reach = pointer(device).reach();
        if reach.epoch != self.told.epoch {
            return;
        }
        // Down to the trailer in front of where the chain arrived.
        let is_untouched = reach.reserved + 2 * GAP_BYTES as u64 <= from + device.ring().bytes();
        self.exact &= is_proven && is_untouched;
        if has_hole {
            // What is behind it is told next.
            self.hole_end = Some(chain.reached);
            return self.tell(device, chain.reached, hidden);
        }
        self.tell(device, end, chain.links + hidden);
    }

    /// Whether the camera may have begun at the beginning of the ring again, and the pointer has come to
    /// where it can come without that. Then a chain begins there; or the trailer in front of a place where
    /// the pointer was is another one. Where a chain ends behind the beginning, a damaged frame lies across
    /// it, or a reset was followed by one: that is a hole. All that is behind it was written since.
    fn may_be_reset(&self, device: &Device, chain: Chain, beginning: u64) -> bool {
        let began = self.told.complete < beginning && chain.reached == beginning;
        began || trailer_at(device, self.told.complete) != self.last
    }

    /// The pointer was lost sight of. How many frames came meanwhile is told by times at best.
    fn resume(&mut self, device: &Device, seen: Seen) {
        let frames = match (self.last_time(), time_of(trailer_at(device, seen.cursor))) {
            (Some(before), Some(after)) if before == after => 0,
            (Some(before), Some(after)) => self.period.between(before, after) + 1,
            _ => 1,
        };
        // A clock that was set tells more than can have come.
        let elapsed_ns = seen.after_ns.saturating_sub(self.told_ns);
        let most = pointer(device).movable_bytes(elapsed_ns) / SLOT_BYTES_MIN + 1;
        (self.exact, self.newest, self.hole_end) = (false, None, None);
        (self.told.epoch, self.told_ns) = (seen.epoch, seen.before_ns);
        self.tell(device, seen.cursor, frames.min(most));
    }

    /// Exposure time of the last frame, if it could be read.
    fn last_time(&self) -> Option<Timestamp> {
        time_of(self.last)
    }

    fn tell(&mut self, device: &Device, complete: u64, frames: u64) {
        let last = trailer_at(device, complete);
        if let (Some(before), Some(after)) = (self.last_time(), time_of(last)) {
            self.period.learn(before, after, frames);
        }
        self.last = last;
        self.told = Progress { complete, frames: self.told.frames + frames, ..self.told };
    }
}

fn pointer(device: &Device) -> &FramePointer {
    device.pointer().expect("the device that the tail was attached to has one")
}

/// How many frames lie where no chain of trailers leads, and whether that is proven.
fn hidden(survey: Survey<'_>, from: u64, to: u64) -> (u64, bool) {
    match survey.by_headers(from, to) {
        Some(frames) => (frames, true),
        None => (survey.least(from, to), false),
    }
}

/// How many frames lie in front of the pointer, one behind the other, and will not be overwritten at once.
/// Where one starts at the beginning of the ring, a reset may have put it there.
fn in_front(device: &Device, seen: Seen) -> u64 {
    let (end, ring_bytes) = (seen.cursor, device.ring().bytes());
    let reserved = pointer(device).reach_at(seen).reserved;
    let lowest = (reserved + 2 * GAP_BYTES as u64).saturating_sub(ring_bytes);
    let lap = end / ring_bytes * ring_bytes;
    let survey = Survey::new(device, None);
    let of_lap = survey.chain(lowest.max(lap), end);
    match of_lap.reached == lap {
        true => of_lap.links,
        false => survey.chain(lowest, end).links,
    }
}

/// The header of the frame that ends at this boundary, if it is stamped.
fn header_of_last(device: &Device, end: u64) -> Option<FrameHeader> {
    let start = Survey::new(device, None).start_of(end)?;
    let header = device.ring().header(start);
    let is_its_own = header.is_stamped() && start + slot(header.length()) == end;
    is_its_own.then_some(header)
}

fn time_of(trailer: Option<Trailer>) -> Option<Timestamp> {
    trailer.map(|trailer| trailer.time)
}

/// The trailer in front of a boundary, if there is one.
fn trailer_at(device: &Device, boundary: u64) -> Option<Trailer> {
    trailer_in_front(device, boundary).filter(Trailer::is_plausible)
}
