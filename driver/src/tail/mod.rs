//! Finds frame after frame behind the writer.
//!
//! Where the device counts what it writes, the tail follows its counters: what was missed is
//! known exactly. Where it has a pointer that stands behind the last frame, the tail counts what lies
//! between two places of that (`pointed`). Where there are only bytes, it polls the slot or the trailer
//! that has to come next, and estimates.
//!
//! A tail has neither thread nor clock: each call of [`Tail::poll`] is one bounded step.

mod counted;
mod period;
mod pointed;
mod survey;
mod watched;

#[cfg(test)]
mod tests;

use crate::device::{Device, DeviceError};
use crate::loss::Loss;
use crate::validate::Candidate;

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StartAt {
    /// With the first frame that completes after attaching.
    #[default]
    Newest,
    /// With the oldest frame that the ring still holds.
    Oldest,
}

/// What one step found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing new.
    Idle,
    /// The next frame, to be copied and checked. The tail has moved on behind it.
    Frame(Candidate),
    /// Frames that cannot be had any more. The tail has moved on behind them.
    Lost(Loss),
}

/// The reading end of a ring.
#[derive(Debug)]
pub struct Tail {
    follow: Follow,
}

#[derive(Debug)]
enum Follow {
    Counted(counted::Counted),
    Watched(watched::Watched),
}

impl Tail {
    /// Attaches to a device.
    ///
    /// # Errors
    /// If the device's counters contradict themselves.
    pub fn attach(device: &Device, start: StartAt) -> Result<Tail, DeviceError> {
        let is_counted = device.registers().is_some() || device.pointer().is_some();
        let follow = match is_counted {
            true => Follow::Counted(counted::Counted::attach(device, start)?),
            false => Follow::Watched(watched::Watched::attach(device, start)),
        };
        Ok(Tail { follow })
    }

    /// One step. `device` is the one that the tail was attached to.
    ///
    /// # Errors
    /// If the device's counters contradict themselves.
    pub fn poll(&mut self, device: &Device) -> Result<Step, DeviceError> {
        match &mut self.follow {
            Follow::Counted(counted) => counted.poll(device),
            Follow::Watched(watched) => Ok(watched.poll(device)),
        }
    }

    /// Takes note of how far the device is, without taking a frame. Whoever has to wait before the next
    /// [`Tail::poll`] does this meanwhile: the more boundaries between frames are known, the fewer whole
    /// ones are given up beside a damaged one.
    pub fn glance(&mut self, device: &Device) {
        if let Follow::Counted(counted) = &mut self.follow {
            counted.glance(device);
        }
    }

    /// Finds nothing any more but what is complete now: the device is dead, or not heard of. Where there
    /// are no counters nothing changes.
    pub(crate) fn freeze(&mut self, device: &Device) {
        if let Follow::Counted(counted) = &mut self.follow {
            counted.freeze(device);
        }
    }

    /// Whether nothing is found any more but what was complete at a last look.
    pub(crate) fn is_frozen(&self) -> bool {
        match &self.follow {
            Follow::Counted(counted) => counted.is_frozen(),
            Follow::Watched(_) => false,
        }
    }

    /// Gives up what was complete at the last look, as far as it was not found.
    pub(crate) fn give_up(&mut self) -> Step {
        match &mut self.follow {
            Follow::Counted(counted) => counted.give_up(),
            Follow::Watched(_) => Step::Idle,
        }
    }

    /// Cursor and epoch of the frame that the device is writing, if all before it were found.
    pub(crate) fn upcoming(&self) -> Option<(u64, u64)> {
        match &self.follow {
            Follow::Counted(counted) => counted.upcoming(),
            Follow::Watched(_) => None,
        }
    }

    /// Whether everything that the device has completed was found or given up. Without counters
    /// nobody knows: true.
    #[must_use]
    pub fn has_read_all(&self, device: &Device) -> bool {
        match &self.follow {
            Follow::Counted(counted) => counted.has_read_all(device),
            Follow::Watched(_) => true,
        }
    }

    /// Cursor below which nothing will be read any more.
    #[must_use]
    pub fn cursor(&self) -> u64 {
        match &self.follow {
            Follow::Counted(counted) => counted.cursor(),
            Follow::Watched(watched) => watched.cursor(),
        }
    }

    /// Whether frames are counted (true) or estimated. Behind a pointer they are counted until it was
    /// looked at too late, or a damaged frame hides how many there are; from then on numbers and losses are
    /// estimates.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        match &self.follow {
            Follow::Counted(counted) => counted.is_exact(),
            Follow::Watched(_) => false,
        }
    }

    /// Number of the frame that is read next.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        match &self.follow {
            Follow::Counted(counted) => counted.sequence(),
            Follow::Watched(watched) => watched.sequence(),
        }
    }

    /// Whether a pointer has come to the end of a frame that is not complete yet: its header will be
    /// stamped in a moment, and nobody tells when.
    pub(crate) fn is_settling(&self) -> bool {
        match &self.follow {
            Follow::Counted(counted) => counted.is_settling(),
            Follow::Watched(_) => false,
        }
    }

    /// Frames that the device has completed since the tail was attached, or since the oldest one
    /// that it began with; `None` where no counter tells it.
    #[must_use]
    pub fn expected(&self, device: &Device) -> Option<u64> {
        match &self.follow {
            Follow::Counted(counted) => counted.expected(device),
            Follow::Watched(_) => None,
        }
    }

    /// Bytes that the writer may still write before it reaches what is read next; `None` where no
    /// counter tells it.
    #[must_use]
    pub fn headroom_bytes(&self, device: &Device) -> Option<u64> {
        let reach = match device.pointer() {
            // As it was at the last look: another one is another system call.
            Some(pointer) => pointer.reach_at(pointer.seen()),
            None => device.reach()?,
        };
        let limit = self.cursor().saturating_add(device.ring().bytes() - 32);
        Some(limit.saturating_sub(reach.reserved))
    }
}
