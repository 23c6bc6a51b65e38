//! A reader that copies a frame while it is written, as `Following` and `Ahead` of the driver do.
//!
//! It does more than they: it copies all that is written, at whatever moment, and does not look at the
//! epoch beside `written`. The driver copies a part of that.

use std::ops::Range;

use super::{HEADER, Reader, Step};
use crate::machine::{Machine, State};
use crate::world::{Tells, Word};

/// What a reader does while it waits for a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Poll {
    /// Looks whether the frame is complete.
    Take,
    /// Goes on behind what is complete, as after an overrun or a reset.
    GiveUp,
    /// Looks how far the frame is written, be it complete or not: a page that is being changed does not
    /// say.
    Follow,
}

impl Poll {
    pub fn all(tells: Tells) -> Range<u8> {
        0..if tells == Tells::Written { 3 } else { 1 }
    }

    pub fn of(load: u8) -> Poll {
        [Poll::Take, Poll::GiveUp, Poll::Follow][usize::from(load)]
    }
}

/// What was copied of a frame that was not complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ahead {
    start: u8,
    epoch: u8,
    /// Words in the copy.
    words: u8,
    /// Words that are written.
    until: u8,
}

impl Ahead {
    pub const NONE: Ahead = Ahead { start: 0, epoch: 0, words: 0, until: 0 };

    pub fn group(&self) -> Range<u8> {
        HEADER + self.words..HEADER + self.until
    }
}

impl Reader {
    /// The driver forgets what it has copied ahead only when it looks at it again: to do so at once makes
    /// fewer states of the same.
    pub(super) fn give_up(&mut self, machine: &Machine, state: &State) {
        self.go_to_complete(state);
        self.forget_another(machine);
    }

    pub(super) fn look_ahead(&mut self, machine: &Machine, state: &State) {
        let room = machine.camera.layout.length_max() + 1;
        let written = state.written.saturating_sub(self.start).min(room);
        if written > self.ahead.words {
            let (start, epoch) = (self.start, self.epoch);
            self.ahead = Ahead { start, epoch, until: written, ..self.ahead };
            self.step = Step::Ahead;
        }
    }

    pub(super) fn copy_ahead(&mut self, machine: &Machine, word: Word, load: u8) {
        self.copy[usize::from(load - HEADER)] = word;
        self.loaded |= 1 << load;
        if self.loads(machine).next().is_none() {
            self.ahead = Ahead { words: self.ahead.until, until: 0, ..self.ahead };
            (self.loaded, self.step) = (0, Step::Poll);
        }
    }

    /// The words that were copied ahead are loads that have been done.
    pub(super) fn begin_copy(&mut self, machine: &Machine) {
        self.forget_another(machine);
        self.step = Step::Copy;
        let mut ahead = HEADER..HEADER + self.ahead.words.min(self.length + 1);
        self.loaded = ahead.clone().map(|load| 1 << load).sum();
        let word = |load| self.copy[usize::from(load - HEADER)];
        if !ahead.all(|load| self.fits(machine, word(load), load)) {
            self.refuse();
        } else if self.loads(machine).next().is_none() {
            self.end_copy(machine);
        }
    }

    /// Forgets what was copied ahead of another frame.
    fn forget_another(&mut self, machine: &Machine) {
        let Ahead { start, epoch, words, .. } = self.ahead;
        let is_at = machine.law().is_none_or(|law| {
            (start == self.start || !law.ahead_start) && (epoch == self.epoch || !law.ahead_epoch)
        });
        if !is_at && words > 0 {
            (self.ahead, self.copy) = (Ahead::NONE, Reader::NEW.copy);
        }
    }
}
