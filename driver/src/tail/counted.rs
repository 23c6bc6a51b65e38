//! Tailing by the device's counters, or by what is counted behind its pointer.

use std::collections::VecDeque;

use circbuf_abi::ring::{CHUNK_BYTES, GAP_BYTES, SLOT_BYTES_MIN};

use super::pointed::Pointed;
use super::survey::{Boundary, Extent, Survey, is_behind_gap, trailer_in_front};
use super::{StartAt, Step};
use crate::device::{Device, DeviceError};
use crate::loss::{Loss, LossReason, Refusal};
use crate::registers::{Progress, Reach, Registers, RegistersError};
use crate::ring::{Timestamp, slot};
use crate::validate::Candidate;

/// Follows `complete` and `frames`.
#[derive(Debug)]
pub(super) struct Counted {
    /// Where a pointer stands for the counters.
    pointed: Option<Pointed>,
    /// Where to begin, until the first step is done.
    begins: Option<StartAt>,
    epoch: u64,
    /// Where the next frame starts.
    next: Boundary,
    /// Number of the first frame that this tail is answerable for.
    first: u64,
    /// Boundaries above `next` that the counters told, the lowest first: whatever bytes in between
    /// look like, from there on is true again.
    anchors: VecDeque<Boundary>,
    /// Frames between `next` and the first anchor, the last first.
    extents: Vec<Extent>,
    /// The counters as they were last seen.
    seen: Progress,
    /// Whether they are not looked at any more.
    is_frozen: bool,
    last_time: Option<Timestamp>,
}

impl Counted {
    pub(super) fn attach(device: &Device, start: StartAt) -> Result<Counted, DeviceError> {
        let (pointed, seen) = match device.registers() {
            Some(registers) => (None, settled(registers)?),
            None => {
                let pointed = Pointed::attach(device)?;
                let told = pointed.told();
                (Some(pointed), told)
            }
        };
        let mut counted = Counted {
            begins: pointed.is_some().then_some(start),
            pointed,
            epoch: seen.epoch,
            next: boundary(seen),
            first: seen.frames,
            anchors: VecDeque::new(),
            extents: Vec::new(),
            seen,
            is_frozen: false,
            last_time: None,
        };
        counted.check(device, seen)?;
        if start == StartAt::Oldest {
            counted.go_back(device, seen, Boundary { cursor: 0, number: 0 });
            counted.first = counted.next.number;
        }
        Ok(counted)
    }

    pub(super) fn cursor(&self) -> u64 {
        self.next.cursor
    }

    /// Where the device writes, if nothing lies in front of that.
    pub(super) fn upcoming(&self) -> Option<(u64, u64)> {
        (self.next == boundary(self.seen)).then_some((self.next.cursor, self.epoch))
    }

    pub(super) fn expected(&self, device: &Device) -> Option<u64> {
        self.look(device).filter(|_| self.is_exact())?.frames.checked_sub(self.first)
    }

    /// Whether frames are counted and not estimated.
    pub(super) fn is_exact(&self) -> bool {
        self.pointed.as_ref().is_none_or(Pointed::is_exact)
    }

    /// Number of the frame that is read next.
    pub(super) fn sequence(&self) -> u64 {
        self.next.number
    }

    /// Whether the end of a frame was seen that is not complete yet.
    pub(super) fn is_settling(&self) -> bool {
        self.pointed.as_ref().is_some_and(Pointed::is_settling)
    }

    /// Behind a pointer: below this and down to the boundary before, nothing can be read.
    fn hole_end(&self) -> Option<u64> {
        self.pointed.as_ref()?.hole_end()
    }

    /// What is complete; of a pointer, what was at the last step.
    fn look(&self, device: &Device) -> Option<Progress> {
        match &self.pointed {
            _ if self.is_frozen => Some(self.seen),
            None => device.registers()?.progress(),
            Some(pointed) => Some(pointed.told()),
        }
    }

    fn progress(&mut self, device: &Device) -> Result<Option<Progress>, DeviceError> {
        match &mut self.pointed {
            _ if self.is_frozen => Ok(Some(self.seen)),
            None => Ok(device.registers().and_then(Registers::progress)),
            Some(pointed) => pointed.progress(device).map(Some),
        }
    }

    /// Looks at the counters for the last time. How far the writer may have come is still asked for: point 4
    /// of the law is worth as much as before.
    pub(super) fn freeze(&mut self, device: &Device) {
        if let Ok(Some(progress)) = self.progress(device)
            && let Err(error) = self.check(device, progress)
        {
            log::debug!("the last look: {error}");
        }
        self.is_frozen = true;
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.is_frozen
    }

    /// Gives up what was complete when the counters were last seen.
    pub(super) fn give_up(&mut self) -> Step {
        let number = self.next.number;
        self.extents.clear();
        self.go_to(boundary(self.seen));
        self.lose(number, LossReason::Overrun, None, None)
    }

    /// Whether nothing is complete that was not read or given up. Of a device that died at
    /// changing its numbers nothing more can be had.
    pub(super) fn has_read_all(&self, device: &Device) -> bool {
        self.look(device)
            .is_none_or(|progress| (progress.epoch, boundary(progress)) == (self.epoch, self.next))
    }

    pub(super) fn poll(&mut self, device: &Device) -> Result<Step, DeviceError> {
        let Some(progress) = self.progress(device)? else { return Ok(Step::Idle) };
        self.check(device, progress)?;
        let begins = self.begins.take();
        if progress.epoch != self.epoch {
            if let Some(start) = begins {
                // A pointer that nobody looked at since: nothing was to be read yet.
                *self = Counted::attach(device, start)?;
                return Ok(Step::Idle);
            }
            return Ok(self.restart(device, progress));
        }
        if self.next == boundary(progress) {
            return Ok(Step::Idle);
        }
        self.note(boundary(progress));
        if self.is_overtaken(device, progress) {
            return Ok(self.lose_overrun(device, progress));
        }
        self.survey(device);
        let lost = self.skip_damaged();
        let found = self.extents.last().map(|extent| self.candidate(device, extent));
        // What was read was true, or is corrupt, only if the writer has not come to it meanwhile.
        if self.is_overtaken(device, progress) {
            return Ok(self.lose_overrun(device, progress));
        }
        Ok(match (lost, found) {
            (Some((count, to)), _) => self.lose_corrupt(count, to),
            (None, Some(Ok(candidate))) => self.found(candidate),
            (None, Some(Err(refusal))) => self.refuse(refusal),
            (None, None) => Step::Idle,
        })
    }

    /// A page whose counters run backwards, or do not fit each other, cannot be followed.
    fn check(&mut self, device: &Device, progress: Progress) -> Result<(), DeviceError> {
        let Some(registers) = device.registers() else {
            self.seen = progress;
            return Ok(());
        };
        // Half of the range: what is followed never comes near the place where sums wrap.
        let in_range = progress.complete.max(progress.frames) <= u64::MAX / 2;
        let aligned = progress.complete.is_multiple_of(CHUNK_BYTES as u64);
        let counted = progress.frames > 0 || progress.complete == 0;
        let fits = follows(self.seen, progress) && reach_fits(device, registers, progress);
        if !fits || !in_range || !aligned || !counted {
            return Err(registers.contradiction(progress, self.seen.complete).into());
        }
        self.seen = progress;
        Ok(())
    }

    /// Takes note of how far the device is, to know more boundaries if something between them is damaged.
    /// Counters that contradict themselves or cannot be read are left to the next poll.
    pub(super) fn glance(&mut self, device: &Device) {
        let Ok(Some(progress)) = self.progress(device) else { return };
        if progress.epoch != self.epoch {
            return;
        }
        let is_true = self.check(device, progress).is_ok();
        if is_true && progress.frames > self.next.number {
            self.note(boundary(progress));
        }
    }

    fn note(&mut self, told: Boundary) {
        if self.anchors.back().is_none_or(|last| last.number < told.number) {
            self.anchors.push_back(told);
        }
    }

    /// Whether the writer may have come to the frame at `next`, or to the trailer in front of it, or
    /// counts more than a ring holds.
    fn is_overtaken(&self, device: &Device, progress: Progress) -> bool {
        let limit = self.next.cursor + (device.ring().bytes() - 2 * GAP_BYTES as u64);
        let reach = reach(device);
        reach.epoch != self.epoch || at_least_complete(reach, progress) > limit
    }

    /// Looks where the frames lie, if that is not known yet.
    fn survey(&mut self, device: &Device) {
        if self.extents.is_empty() {
            let is_to_read = |anchor: &&Boundary| self.hole_end() != Some(anchor.cursor);
            let Some(&anchor) = self.anchors.front().filter(is_to_read) else { return };
            Survey::new(device, self.last_time).between(self.next, anchor, &mut self.extents);
        }
    }

    /// Moves on where no frame is lost by it. Otherwise how many are, and where to go on.
    fn skip_damaged(&mut self) -> Option<(u64, Boundary)> {
        let known = self.extents.last().map(|extent| extent.start);
        let to = known.or(self.anchors.front().copied()).filter(|&to| to != self.next)?;
        match to.number.saturating_sub(self.next.number) {
            0 => {
                self.next = to;
                None
            }
            count => Some((count, to)),
        }
    }

    /// The frame that lies there.
    fn candidate(&self, device: &Device, extent: &Extent) -> Result<Candidate, Refusal> {
        let Boundary { cursor: start, number: sequence } = extent.start;
        let trailer = device.ring().trailer(extent.end - GAP_BYTES as u64);
        if !trailer.is_plausible() || start + slot(trailer.length) != extent.end {
            return Err(Refusal::NoFrame);
        }
        let stamped = device.is_stamped();
        if start > 0 {
            let before = trailer_in_front(device, start).ok_or(Refusal::NoFrame)?;
            // An aborted compression leaves the latches of the trailer as they were.
            if before == trailer {
                return Err(Refusal::Stale);
            }
            // Without a header in front, a gap proves the start, or a trailer: a pointer may be wrong.
            if !stamped && !before.is_plausible() && !is_behind_gap(device, start) {
                return Err(Refusal::NoFrame);
            }
        }
        Ok(Candidate { start, epoch: self.epoch, sequence, trailer, stamped, before: None })
    }

    fn found(&mut self, candidate: Candidate) -> Step {
        self.last_time = Some(candidate.trailer.time);
        self.pass();
        Step::Frame(candidate)
    }

    fn refuse(&mut self, refusal: Refusal) -> Step {
        let number = self.next.number;
        self.pass();
        self.lose(number, LossReason::Corrupt, Some(refusal), None)
    }

    /// Leaves the first of the known frames behind.
    fn pass(&mut self) {
        if let Some(extent) = self.extents.pop() {
            self.go_to(extent.next());
        }
    }

    fn go_to(&mut self, boundary: Boundary) {
        self.next = boundary;
        while self.anchors.front().is_some_and(|anchor| anchor.number <= boundary.number) {
            self.anchors.pop_front();
        }
    }

    /// No frame can be made of the bytes in front of `to`.
    fn lose_corrupt(&mut self, count: u64, to: Boundary) -> Step {
        let number = self.next.number;
        debug_assert_eq!(number + count, to.number);
        self.go_to(to);
        self.lose(number, LossReason::Corrupt, Some(Refusal::NoFrame), None)
    }

    /// The device was reset: what was not read of the old epoch is gone.
    fn restart(&mut self, device: &Device, progress: Progress) -> Step {
        let number = self.next.number;
        self.epoch = progress.epoch;
        self.anchors.clear();
        // A page tells where the epoch begins; whoever lost sight of a pointer knows nothing below it.
        let from = if self.pointed.is_some() { progress.complete } else { 0 };
        self.go_back(device, progress, Boundary { cursor: from, number });
        self.lose(number, LossReason::Overrun, None, None)
    }

    fn lose_overrun(&mut self, device: &Device, progress: Progress) -> Step {
        let number = self.next.number;
        self.go_back(device, progress, self.next);
        let last = self.time_before(device);
        self.lose(number, LossReason::Overrun, None, last)
    }

    /// Exposure time of the frame in front of `next`, if its trailer still looks like one.
    fn time_before(&self, device: &Device) -> Option<Timestamp> {
        let before = trailer_in_front(device, self.next.cursor)?;
        before.is_plausible().then_some(before.time)
    }

    /// Puts `next` at the oldest frame that is known and safe to read: a quarter of the ring ahead of
    /// the writer, so that the reader is not overtaken again at once; never below `read`.
    fn go_back(&mut self, device: &Device, progress: Progress, read: Boundary) {
        let ring_bytes = device.ring().bytes();
        let margin = if device.has_ended() { 0 } else { ring_bytes / 4 };
        // A page that lies must not make the walk longer than the ring.
        let reserved = at_least_complete(reach(device), progress);
        let safe = (reserved + margin + 2 * GAP_BYTES as u64).saturating_sub(ring_bytes);
        let lowest = safe.max(self.hole_end().unwrap_or(0));
        let from = Boundary { cursor: lowest.max(read.cursor), ..read };
        Survey::new(device, self.last_time).down(from, boundary(progress), &mut self.extents);
        self.forget_touched(device, progress);
        let known = self.extents.last().map_or(boundary(progress), |extent| extent.start);
        self.anchors.retain(|anchor| anchor.cursor >= from.cursor);
        match self.anchors.front() {
            Some(&anchor) if anchor.cursor < known.cursor => {
                self.next = anchor;
                self.extents.clear();
            }
            _ => self.next = known,
        }
        self.go_to(self.next);
    }

    /// Forgets the extents that the writer came to while they were looked for.
    fn forget_touched(&mut self, device: &Device, progress: Progress) {
        let reach = reach(device);
        let untouched = match reach.epoch == progress.epoch {
            true => reach.reserved.saturating_sub(device.ring().bytes() - GAP_BYTES as u64),
            false => u64::MAX,
        };
        while self.extents.last().is_some_and(|extent| extent.start.cursor < untouched) {
            self.extents.pop();
        }
    }

    /// The frames from `first` up to `next` are lost.
    fn lose(
        &mut self,
        first: u64,
        reason: LossReason,
        refusal: Option<Refusal>,
        last: Option<Timestamp>,
    ) -> Step {
        let count = self.next.number - first;
        let loss = Loss {
            reason,
            refusal,
            sequence: first,
            count,
            exact: self.is_exact(),
            first: self.last_time,
            last,
        };
        if count == 0 { Step::Idle } else { Step::Lost(loss) }
    }
}

/// Where the device will write its next frame.
fn boundary(progress: Progress) -> Boundary {
    Boundary { cursor: progress.complete, number: progress.frames }
}

/// How far the writer may have come; at least as far as it has completed, the last gap apart.
fn at_least_complete(reach: Reach, progress: Progress) -> u64 {
    let complete = progress.complete.saturating_sub(GAP_BYTES as u64);
    reach.reserved.clamp(complete, u64::MAX / 2)
}

/// Whether counters that were `before` can be `now`. A pointer may be one chunk low for a frame, as a
/// 393's was in 2016 (linux-elphel 4cad3ef).
fn follows(before: Progress, now: Progress) -> bool {
    let Some(frames) = now.frames.checked_sub(before.frames) else { return false };
    if now.epoch != before.epoch {
        return now.epoch > before.epoch;
    }
    now.complete.checked_sub(before.complete).is_some_and(|bytes| {
        bytes.saturating_add(CHUNK_BYTES as u64) / SLOT_BYTES_MIN >= frames
            && (bytes > 0) == (frames > 0)
    })
}

/// Whether `reserved` can be: not behind what is complete, the last gap apart, and, if nothing was
/// completed meanwhile, not more than a ring ahead of it.
fn reach_fits(device: &Device, registers: &Registers, progress: Progress) -> bool {
    let reach = registers.reach();
    if reach.epoch != progress.epoch {
        return true;
    }
    let farthest = progress.complete.saturating_add(device.ring().bytes());
    let is_far = reach.reserved > farthest && registers.progress() == Some(progress);
    reach.reserved.saturating_add(GAP_BYTES as u64) >= progress.complete && !is_far
}

/// How far the writer may have come.
fn reach(device: &Device) -> Reach {
    device.reach().expect("a device with counters or a pointer tells it")
}

/// Waits out a moment in which the device changes its numbers.
fn settled(registers: &Registers) -> Result<Progress, RegistersError> {
    const TRIES: u32 = 1_000_000;
    let settled = (0..TRIES).find_map(|_| {
        std::hint::spin_loop();
        registers.progress()
    });
    settled.ok_or(RegistersError::Unsettled)
}
