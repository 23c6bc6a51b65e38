//! How a reader finds the next frame: by counters, by headers, by a chain of trailers.

use super::{Reader, Step, guards};
use crate::check::{Check, Clock};
use crate::machine::{Machine, State};
use crate::world::{GAP, Tells, Word, slot};
use crate::writer::Progress;

impl Reader {
    /// To behind the newest whole frame.
    pub(super) fn go_to_complete(&mut self, state: &State) {
        let Progress { epoch, complete, frames } = state.progress;
        (self.start, self.number, self.epoch) = (complete, frames, epoch);
    }

    /// One without counters has just read the newest whole frame.
    pub(super) fn attach(&mut self, machine: &Machine, state: &State) {
        self.go_to_complete(state);
        if machine.camera.tells == Tells::Pointer {
            self.polled_at = machine.bus_moved(state);
            self.complete = state.progress.complete;
        }
        self.step = match (machine.camera.tells, machine.camera.stamped()) {
            (Tells::Nothing, true) => Step::Mark,
            (Tells::Nothing, false) => Step::Search,
            _ => Step::Poll,
        };
    }

    pub(super) fn poll(&mut self, machine: &Machine, state: &State) {
        match machine.camera.tells {
            Tells::Pointer => {
                if !self.extend_pointer(machine, state) {
                    return self.refuse();
                }
            }
            _ if state.progress.epoch != self.epoch => return self.refuse(),
            _ => self.complete = state.progress.complete,
        }
        self.boundary = self.complete;
        if self.complete != self.start {
            self.step = if machine.camera.stamped() { Step::Mark } else { Step::Chain };
        }
        if machine.camera.stamped() || machine.law().is_none_or(|law| law.start_and_end) {
            return;
        }
        // The trailer in front of what is complete is that of the newest frame.
        self.number = state.progress.frames.saturating_sub(1);
    }

    /// Makes a cursor of a pointer that wraps; whether it can be believed.
    pub(super) fn extend_pointer(&mut self, machine: &Machine, state: &State) -> bool {
        let layout = &machine.camera.layout;
        let (pointer, before) = (layout.at(state.progress.complete), layout.at(self.complete));
        let ring = usize::from(layout.ring);
        let now = machine.bus_moved(state);
        let (moved, enough) = (now - self.polled_at, layout.ring - layout.slot_max());
        self.complete += ((pointer + ring - before) % ring) as u8;
        self.polled_at = now;
        match machine.law().map_or(Clock::Off, |law| law.clock) {
            Clock::Off => true,
            Clock::UpTo => moved <= enough,
            Clock::Below => moved < enough,
        }
    }

    pub(super) fn find_mark(&mut self, machine: &Machine, word: Word) {
        let counted = machine.camera.tells != Tells::Nothing;
        self.step = match word {
            Word::Mark { signed: true, length, .. }
                if !counted || self.start + slot(length) <= self.complete =>
            {
                self.length = length;
                Step::Trailer
            }
            _ if counted => Step::Chain,
            _ => Step::Mark,
        };
    }

    pub(super) fn find_trailer(&mut self, machine: &Machine, word: Word) {
        let counted = machine.camera.tells != Tells::Nothing;
        let trusts = machine.law().is_some_and(|law| !law.start_and_end);
        let read = machine.camera.layout.as_trailer(word);
        let fits = read.is_some_and(|read| {
            read.length == self.length && (counted || read.frame >= self.number)
        });
        if fits || trusts {
            return self.found(machine, word, self.length);
        }
        self.length = 0;
        self.step = if counted { Step::Chain } else { Step::Mark };
    }

    pub(super) fn follow(&mut self, machine: &Machine, word: Word) {
        let layout = &machine.camera.layout;
        let read = layout.as_trailer(word).filter(|read| read.length <= layout.length_max());
        let Some(length) = read.map(|read| read.length) else { return self.refuse() };
        let Some(start) = self.boundary.checked_sub(slot(length)) else { return self.refuse() };
        if machine.law().is_some_and(|law| !law.start_and_end) {
            self.start = start;
        }
        match start.cmp(&self.start) {
            std::cmp::Ordering::Less => self.refuse(),
            std::cmp::Ordering::Equal => self.found(machine, word, length),
            std::cmp::Ordering::Greater => self.boundary = start,
        }
    }

    pub(super) fn search(&mut self, machine: &Machine, word: Word, length: u8) {
        let read = machine.camera.layout.as_trailer(word);
        if read.is_some_and(|read| read.length == length && read.frame >= self.number) {
            self.found(machine, word, length);
        }
    }

    fn found(&mut self, machine: &Machine, trailer: Word, length: u8) {
        (self.trailer, self.length, self.boundary) = (trailer, length, 0);
        let counted = machine.camera.tells.counts();
        if counted {
            self.complete = 0;
        }
        self.step = match machine.check {
            Check::SignatureBefore => Step::Before,
            Check::Law(law) if law.start_and_end && counted => Step::Guard,
            _ if guards(machine) => Step::Guard,
            _ => return self.begin_copy(machine),
        };
    }

    pub(super) fn look_before(&mut self, machine: &Machine, word: Word) {
        let counted = machine.camera.tells.counts();
        let fits = match counted {
            true => machine.may_start(self.start, word, self.trailer),
            false => machine.is_before(word, self.number, self.trailer),
        };
        if !fits {
            return self.refuse();
        }
        self.before = if guards(machine) { word } else { Word::Zero };
        match counted {
            true => self.step = Step::GuardReach,
            false => self.begin_copy(machine),
        }
    }

    pub(super) fn is_guard_untouched(&self, machine: &Machine, state: &State) -> bool {
        state.reserved < self.start + machine.camera.layout.ring - GAP
    }
}
