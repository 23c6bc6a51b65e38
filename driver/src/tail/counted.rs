//! Tailing by the device's counters.

use circbuf_abi::ring::{CHUNK_BYTES, GAP_BYTES, SLOT_BYTES_MIN};

use super::{StartAt, Step};
use crate::device::{Device, DeviceError};
use crate::loss::{Loss, LossReason, Refusal};
use crate::registers::{Progress, Reach, Registers, RegistersError};
use crate::ring::{Timestamp, padded, slot};
use crate::validate::Candidate;

/// Follows `complete` and `frames`.
#[derive(Debug)]
pub(super) struct Counted {
    /// Start of the next frame.
    next: u64,
    epoch: u64,
    /// Number of the frame that starts at `next`.
    sequence: u64,
    /// Number of the first frame that this tail is answerable for.
    first: u64,
    /// `complete` and `frames` as they were last seen.
    seen: Progress,
    last_time: Option<Timestamp>,
    chain: Chain,
}

/// Boundaries between frames, as the chain of trailers tells them backwards from a `complete`.
#[derive(Debug, Default)]
struct Chain {
    /// Descending; the first is the `complete` that the walk began at. Each is the start of a frame.
    boundaries: Vec<u64>,
    /// Number of the frame that starts at the first boundary.
    frames: u64,
}

impl Chain {
    fn lowest(&self) -> Option<u64> {
        self.boundaries.last().copied()
    }

    /// Number of the frame that starts at the lowest boundary.
    fn lowest_sequence(&self) -> u64 {
        self.frames - (self.boundaries.len() as u64).saturating_sub(1)
    }

    /// Forgets the boundaries below `cursor`.
    fn forget_below(&mut self, cursor: u64) {
        while self.lowest().is_some_and(|boundary| boundary < cursor) {
            self.boundaries.pop();
        }
    }

    /// Where the frame ends, gap included, that starts at the lowest boundary; `None` if that is the
    /// first of the walk.
    fn lowest_end(&self) -> Option<u64> {
        self.boundaries.len().checked_sub(2).map(|index| self.boundaries[index])
    }

    /// Follows the trailers down from `progress.complete` as far as they are lawful, at most to
    /// `oldest`, and forgets what the writer came to meanwhile.
    fn walk(&mut self, device: &Device, registers: &Registers, progress: Progress, oldest: u64) {
        self.follow_down(device, progress, oldest);
        let reach = registers.reach();
        let untouched = reach.reserved.saturating_sub(device.ring().bytes());
        let same_epoch = reach.epoch == progress.epoch;
        self.forget_below(if same_epoch { untouched } else { progress.complete });
    }

    fn follow_down(&mut self, device: &Device, progress: Progress, oldest: u64) {
        self.frames = progress.frames;
        self.boundaries.clear();
        let mut boundary = progress.complete;
        self.boundaries.push(boundary);
        while boundary >= oldest + SLOT_BYTES_MIN {
            let trailer = device.ring().trailer(boundary - GAP_BYTES as u64);
            let slot_bytes = slot(trailer.length);
            let lawful = trailer.is_plausible() && slot_bytes <= device.max_slot_bytes();
            match boundary.checked_sub(slot_bytes) {
                Some(start) if lawful && start >= oldest => boundary = start,
                _ => return,
            }
            // A chain with more links than there were frames has left the frames behind.
            if self.boundaries.len() as u64 > progress.frames {
                return;
            }
            self.boundaries.push(boundary);
        }
    }
}

impl Counted {
    pub(super) fn attach(
        device: &Device,
        registers: &Registers,
        start: StartAt,
    ) -> Result<Counted, DeviceError> {
        let seen = settled(registers)?;
        let mut counted = Counted {
            next: seen.complete,
            epoch: seen.epoch,
            sequence: seen.frames,
            first: seen.frames,
            seen,
            last_time: None,
            chain: Chain::default(),
        };
        counted.check(device, registers, seen)?;
        if start == StartAt::Oldest {
            counted.go_back(device, registers, seen, 0);
            counted.first = counted.sequence;
        }
        Ok(counted)
    }

    pub(super) fn cursor(&self) -> u64 {
        self.next
    }

    pub(super) fn expected(&self, registers: &Registers) -> Option<u64> {
        registers.progress()?.frames.checked_sub(self.first)
    }

    /// Whether nothing is complete that was not read or given up. Of a device that died at
    /// changing its numbers nothing more can be had.
    pub(super) fn has_read_all(&self, registers: &Registers) -> bool {
        registers.progress().is_none_or(|progress| {
            let read = Progress { epoch: self.epoch, complete: self.next, frames: self.sequence };
            read == progress
        })
    }

    pub(super) fn poll(
        &mut self,
        device: &Device,
        registers: &Registers,
    ) -> Result<Step, DeviceError> {
        let Some(progress) = registers.progress() else { return Ok(Step::Idle) };
        self.check(device, registers, progress)?;
        if progress.epoch != self.epoch {
            return Ok(self.restart(device, registers, progress));
        }
        if self.next == progress.complete {
            return Ok(self.settle_count(progress));
        }
        if self.sequence >= progress.frames {
            // All are accounted for, whatever these bytes look like: the counter has the last word.
            self.next = progress.complete;
            return Ok(Step::Idle);
        }
        if self.is_overtaken(device, registers, progress) {
            return Ok(self.lose_overrun(device, registers, progress));
        }
        let candidate = self.next_frame(device, registers, progress);
        // What was read was true, or is corrupt, only if the writer has not come to it meanwhile.
        if self.is_overtaken(device, registers, progress) {
            return Ok(self.lose_overrun(device, registers, progress));
        }
        Ok(match candidate {
            Some(candidate) => self.found(candidate),
            None => self.lose_corrupt(device, progress),
        })
    }

    /// A page whose counters run backwards, or do not fit each other, cannot be followed.
    fn check(
        &mut self,
        device: &Device,
        registers: &Registers,
        progress: Progress,
    ) -> Result<(), DeviceError> {
        // Half of the range: what is followed never comes near the place where sums wrap.
        let in_range = progress.complete.max(progress.frames) <= u64::MAX / 2;
        let aligned = progress.complete.is_multiple_of(CHUNK_BYTES as u64);
        let fits = follows(self.seen, progress) && reach_fits(device, registers, progress);
        if !fits || !in_range || !aligned {
            return Err(registers.contradiction(progress, self.seen.complete).into());
        }
        self.seen = progress;
        Ok(())
    }

    /// Whether the writer may have come to the frame at `next`, or counts more than a ring holds.
    fn is_overtaken(&self, device: &Device, registers: &Registers, progress: Progress) -> bool {
        let limit = self.next + (device.ring().bytes() - GAP_BYTES as u64);
        let reach = registers.reach();
        reach.epoch != self.epoch || at_least_complete(reach, progress) > limit
    }

    /// All frames up to here are accounted for; the counter has the last word on how many they were.
    fn settle_count(&mut self, progress: Progress) -> Step {
        let missing = progress.frames.saturating_sub(self.sequence);
        self.lose(missing, LossReason::Corrupt, None)
    }

    /// The device was reset: what was not read of the old epoch is gone.
    fn restart(&mut self, device: &Device, registers: &Registers, progress: Progress) -> Step {
        let expected = self.sequence;
        self.epoch = progress.epoch;
        self.go_back(device, registers, progress, 0);
        let found = std::mem::replace(&mut self.sequence, expected);
        self.lose(found.saturating_sub(expected), LossReason::Overrun, None)
    }

    fn lose_overrun(&mut self, device: &Device, registers: &Registers, progress: Progress) -> Step {
        let (expected, read) = (self.sequence, self.next);
        self.go_back(device, registers, progress, read);
        let found = std::mem::replace(&mut self.sequence, expected);
        let last = self.time_before(device);
        self.lose(found.saturating_sub(expected), LossReason::Overrun, last)
    }

    /// Exposure time of the frame in front of `next`, if its trailer still looks like one.
    fn time_before(&self, device: &Device) -> Option<Timestamp> {
        let end = self.next.checked_sub(GAP_BYTES as u64)?;
        let trailer = (end >= CHUNK_BYTES as u64).then(|| device.ring().trailer(end))?;
        trailer.is_plausible().then_some(trailer.time)
    }

    /// Puts `next` and `sequence` at the oldest frame that is safe to read: a quarter of the ring
    /// ahead of the writer, so that the reader is not overtaken again at once; never below `read`.
    fn go_back(&mut self, device: &Device, registers: &Registers, progress: Progress, read: u64) {
        let ring_bytes = device.ring().bytes();
        let margin = if registers.has_ended() { 0 } else { ring_bytes / 4 };
        // A page that lies must not make the walk longer than the ring.
        let reserved = at_least_complete(registers.reach(), progress);
        let oldest = (reserved + margin + GAP_BYTES as u64).saturating_sub(ring_bytes);
        self.chain.walk(device, registers, progress, oldest.max(read));
        self.next = self.chain.lowest().unwrap_or(progress.complete);
        self.sequence = self.chain.lowest_sequence();
    }

    /// The frame at `next`, of which the counters say that it is complete.
    fn next_frame(
        &mut self,
        device: &Device,
        registers: &Registers,
        progress: Progress,
    ) -> Option<Candidate> {
        self.by_header(device, progress).or_else(|| self.by_trailer(device, registers, progress))
    }

    /// The candidate that the slot in front of it tells of.
    fn by_header(&self, device: &Device, progress: Progress) -> Option<Candidate> {
        let header = device.ring().header(self.next);
        let length = header.length();
        let lawful = header.is_stamped()
            && length >= 1
            && slot(length) <= device.max_slot_bytes()
            && self.next + slot(length) <= progress.complete;
        let stamped = device.registers().is_some_and(Registers::is_stamped);
        if !stamped || !lawful {
            return None;
        }
        let trailer = device.ring().trailer(self.next + padded(length));
        let fits = trailer.is_plausible() && trailer.length == length;
        fits.then(|| self.candidate(trailer, true))
    }

    /// The candidate that the chain of trailers tells of: from `next` to the boundary behind it.
    fn by_trailer(
        &mut self,
        device: &Device,
        registers: &Registers,
        progress: Progress,
    ) -> Option<Candidate> {
        if self.chain.lowest_end().is_none() || self.chain.lowest() < Some(self.next) {
            self.chain.walk(device, registers, progress, self.next);
        }
        let end = self.chain.lowest_end().filter(|_| self.chain.lowest() == Some(self.next))?;
        let trailer = device.ring().trailer(end - GAP_BYTES as u64);
        if !trailer.is_plausible() || self.next + slot(trailer.length) != end {
            // It read otherwise when the chain was walked: nothing of it is believed any more.
            self.chain = Chain { boundaries: vec![progress.complete], frames: progress.frames };
            return None;
        }
        Some(self.candidate(trailer, registers.is_stamped()))
    }

    fn candidate(&self, trailer: crate::ring::Trailer, stamped: bool) -> Candidate {
        Candidate { start: self.next, epoch: self.epoch, sequence: self.sequence, trailer, stamped }
    }

    fn found(&mut self, candidate: Candidate) -> Step {
        self.next = candidate.next();
        self.sequence += 1;
        self.last_time = Some(candidate.trailer.time);
        self.chain.forget_below(self.next);
        Step::Frame(candidate)
    }

    /// No frame can be made of the bytes at `next`: go on where one is known to start.
    fn lose_corrupt(&mut self, device: &Device, progress: Progress) -> Step {
        let known = self.chain.lowest().unwrap_or(progress.complete);
        let header = device.ring().header(self.next);
        let by_header = self.next + slot(header.length().clamp(1, 0x00FF_FFFF));
        let one_only = header.is_stamped() && by_header < known;
        self.next = if one_only { by_header } else { known };
        let missing = match one_only {
            true => 1,
            false => self.chain.lowest_sequence().saturating_sub(self.sequence),
        };
        self.lose(missing, LossReason::Corrupt, None)
    }

    fn lose(&mut self, count: u64, reason: LossReason, last: Option<Timestamp>) -> Step {
        if count == 0 {
            return Step::Idle;
        }
        let sequence = self.sequence;
        self.sequence += count;
        let refusal = (reason == LossReason::Corrupt).then_some(Refusal::NoFrame);
        let first = self.last_time;
        Step::Lost(Loss { reason, refusal, sequence, count, exact: true, first, last })
    }
}

/// How far the writer may have come; at least as far as it has completed, the last gap apart.
fn at_least_complete(reach: Reach, progress: Progress) -> u64 {
    let complete = progress.complete.saturating_sub(GAP_BYTES as u64);
    reach.reserved.clamp(complete, u64::MAX / 2)
}

/// Whether counters that were `before` can be `now`.
fn follows(before: Progress, now: Progress) -> bool {
    let Some(frames) = now.frames.checked_sub(before.frames) else { return false };
    if now.epoch != before.epoch {
        return now.epoch > before.epoch;
    }
    now.complete
        .checked_sub(before.complete)
        .is_some_and(|bytes| bytes / SLOT_BYTES_MIN >= frames && (bytes > 0) == (frames > 0))
}

/// Whether `reserved` can be: not behind what is complete, the last gap apart, and, if nothing was
/// completed meanwhile, not more than one slot ahead of it.
fn reach_fits(device: &Device, registers: &Registers, progress: Progress) -> bool {
    let gap = GAP_BYTES as u64;
    let reach = registers.reach();
    if reach.epoch != progress.epoch {
        return true;
    }
    let farthest = progress.complete.saturating_add(device.max_slot_bytes() + gap);
    let is_far = reach.reserved > farthest && registers.progress() == Some(progress);
    reach.reserved.saturating_add(gap) >= progress.complete && !is_far
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
