//! The reader: finds a frame, copies it word by word, checks, and delivers or refuses it.
//!
//! It does one load at a time and may sleep between any two. Loads between two fences form a group;
//! where the memory is weak, those of a group happen in any order.

use super::check::{Check, Guard, Law};
use super::machine::{Machine, State};
use super::world::{GAP, LENGTH_MAX, Memory, Tells, Word};
use ahead::Ahead;
pub use ahead::Poll;

mod ahead;
mod find;

/// What a reader does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Learns where the next frame starts.
    Attach,
    /// Looks whether a frame is complete.
    Poll,
    /// Copies what is written of one that is not.
    Ahead,
    /// Looks for a signature at the start.
    Mark,
    /// Looks for the trailer to which the length in the header leads.
    Trailer,
    /// Follows trailers down from what is complete.
    Chain,
    /// Looks for any trailer that leads back to the start.
    Search,
    /// Looks at what stands in front of the slot.
    Guard,
    /// And whether the writer has not come there: then it is what it seems.
    GuardReach,
    /// The check before the copy.
    Before,
    Copy,
    /// The check after the copy.
    After,
    /// And behind that, whether the same stands in front of the slot.
    AfterGuard,
    /// The first half of point 4.
    Reach,
    /// The second half.
    Epoch,
    Done(Verdict),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    Refused,
    Delivered(Copied),
}

/// What a copy is, as only the model can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Copied {
    /// The frame whose trailer and number it has.
    Whole,
    /// That frame with the header of another one.
    OtherHeader,
    /// No frame that was ever emitted, or not the one that it is said to be.
    Damaged,
}

/// What the reader remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reader {
    pub step: Step,
    /// Which loads of the group have been done.
    loaded: u8,
    pub start: u8,
    pub number: u8,
    epoch: u8,
    /// The boundary behind a whole frame at which the search for the candidate is.
    boundary: u8,
    /// `complete` or the extended pointer, as last seen.
    complete: u8,
    /// By the clock: what the bus can have moved until the pointer was looked at.
    polled_at: u8,
    pub length: u8,
    trailer: Word,
    /// What stands in front of the slot.
    before: Word,
    header: [Word; 2],
    /// Payload and trailer.
    copy: [Word; LENGTH_MAX + 2],
    ahead: Ahead,
    copied: Copied,
}

/// Words of a header in the groups of loads that begin with it.
const HEADER: u8 = GAP;

/// The loads of the check after the copy, in the order of the program: trailer, header.
const AGAIN_TRAILER: u8 = 0;
const AGAIN_MARK: u8 = 2;

impl Reader {
    pub const NEW: Reader = Reader {
        step: Step::Attach,
        loaded: 0,
        start: 0,
        number: 0,
        epoch: 0,
        boundary: 0,
        complete: 0,
        polled_at: 0,
        length: 0,
        trailer: Word::Zero,
        before: Word::Zero,
        header: [Word::Zero; 2],
        copy: [Word::Zero; LENGTH_MAX + 2],
        ahead: Ahead::NONE,
        copied: Copied::Damaged,
    };

    /// How many loads the present group has, and from which on.
    fn group(&self, machine: &Machine) -> std::ops::Range<u8> {
        let from = if machine.camera.stamped() { 0 } else { HEADER };
        match (self.step, machine.check) {
            (Step::Poll, _) => Poll::all(machine.camera.tells),
            (Step::Ahead, _) => self.ahead.group(),
            (Step::Search, _) => 1..machine.camera.layout.length_max() + 1,
            (Step::Copy, _) => from..HEADER + self.length + 1,
            (Step::After, Check::Law(_)) => 0..AGAIN_MARK + 1,
            (Step::Done(_), _) => 0..0,
            _ => 0..1,
        }
    }

    /// Which loads may be next. Those of a search are alternatives, and ways to poll.
    pub fn loads(&self, machine: &Machine) -> impl Iterator<Item = u8> {
        let alternatives = matches!(self.step, Step::Search | Step::Poll);
        let any_order = machine.camera.memory != Memory::Fifo || alternatives;
        let loaded = self.loaded;
        let bare_check = self.step == Step::After && !machine.camera.stamped();
        let waiting = self.group(machine).filter(move |&load| {
            let is_header = bare_check && (AGAIN_TRAILER + 1..=AGAIN_MARK).contains(&load);
            loaded & 1 << load == 0 && !is_header
        });
        waiting.take(if any_order { usize::MAX } else { 1 })
    }

    /// The word of the ring that a load reads, if it reads one.
    pub fn place(&self, machine: &Machine, load: u8) -> Option<usize> {
        let layout = &machine.camera.layout;
        let header = layout.header(self.start);
        let in_frame = |index: u8| layout.at(self.start + index);
        let guard = || layout.at(self.start % layout.ring + layout.ring - GAP - 1);
        match self.step {
            Step::Mark | Step::Before => Some(header[1]),
            Step::After if matches!(machine.check, Check::SignatureAfter) => Some(header[1]),
            Step::Trailer => Some(in_frame(self.length)),
            Step::Chain => Some(layout.at(self.boundary + layout.ring - GAP - 1)),
            Step::Search => Some(in_frame(load)),
            Step::Copy if load < HEADER => Some(header[usize::from(load)]),
            Step::Ahead | Step::Copy => Some(in_frame(load - HEADER)),
            Step::After if load == AGAIN_TRAILER => Some(in_frame(self.length)),
            Step::Guard | Step::AfterGuard => Some(guard()),
            Step::After => Some(header[usize::from(load - 1)]),
            _ => None,
        }
    }

    /// Does one load. Where it only looks again, nothing changes.
    pub fn load(&mut self, machine: &Machine, state: &State, load: u8) {
        let word = self.place(machine, load).map_or(Word::Zero, |place| state.ring[place]);
        match self.step {
            Step::Attach => self.attach(machine, state),
            Step::Poll => match Poll::of(load) {
                Poll::Take => self.poll(machine, state),
                Poll::GiveUp => self.give_up(machine, state),
                Poll::Follow => self.look_ahead(machine, state),
            },
            Step::Ahead => self.copy_ahead(machine, word, load),
            Step::Mark => self.find_mark(machine, word),
            Step::Trailer => self.find_trailer(machine, word),
            Step::Chain => self.follow(machine, word),
            Step::Search => self.search(machine, word, load),
            Step::Guard => self.look_before(machine, word),
            Step::GuardReach if self.is_guard_untouched(machine, state) => self.begin_copy(machine),
            Step::GuardReach => self.refuse(),
            Step::Before if self.is_lawful(word) => self.begin_copy(machine),
            Step::Before => self.refuse(),
            Step::Copy => self.copy(machine, word, load),
            Step::After => self.look_again(machine, word, load),
            Step::AfterGuard if word == self.before => self.ask_reach(machine),
            Step::AfterGuard => self.refuse(),
            Step::Reach => self.check_reach(machine, state),
            Step::Epoch if state.epoch == self.epoch => self.deliver(),
            Step::Epoch => self.refuse(),
            Step::Done(_) => {}
        }
    }

    fn refuse(&mut self) {
        *self = Reader { step: Step::Done(Verdict::Refused), ..Reader::NEW };
    }

    fn deliver(&mut self) {
        self.step = Step::Done(Verdict::Delivered(self.copied));
    }

    /// Whether a header's last word says FF FF and the length of the candidate.
    fn is_lawful(&self, word: Word) -> bool {
        matches!(word, Word::Mark { signed: true, length, .. } if length == self.length)
    }

    fn copy(&mut self, machine: &Machine, word: Word, load: u8) {
        if !self.fits(machine, word, load) {
            return self.refuse();
        }
        match load.checked_sub(HEADER) {
            Some(index) => self.copy[usize::from(index)] = word,
            None => self.header[usize::from(load)] = word,
        }
        self.loaded |= 1 << load;
        if self.loads(machine).next().is_none() {
            self.end_copy(machine);
        }
    }

    /// Whether a word can be that part of the frame.
    fn fits(&self, machine: &Machine, word: Word, load: u8) -> bool {
        let is_trailer = load == HEADER + self.length;
        let bad_content = (HEADER..HEADER + self.length).contains(&load) && word.has_pair();
        let bad_trailer = is_trailer && word != self.trailer;
        let refuses = |law: &Law| law.content && bad_content || law.kept && bad_trailer;
        !machine.law().is_some_and(refuses)
    }

    fn end_copy(&mut self, machine: &Machine) {
        self.copied = machine.judge(self);
        (self.copy, self.loaded) = (Reader::NEW.copy, 0);
        match machine.check {
            Check::SignatureBefore => self.deliver(),
            Check::SignatureAfter => self.step = Step::After,
            Check::Law(law) if law.kept => self.step = Step::After,
            Check::Law(_) => self.ask_reach(machine),
        }
    }

    fn look_again(&mut self, machine: &Machine, word: Word, load: u8) {
        if matches!(machine.check, Check::SignatureAfter) {
            return if self.is_lawful(word) { self.deliver() } else { self.refuse() };
        }
        let holds = match load {
            AGAIN_TRAILER => word == self.trailer,
            AGAIN_MARK => word == self.header[1] && self.is_lawful(word),
            _ => word == self.header[0],
        };
        if !holds {
            return self.refuse();
        }
        self.loaded |= 1 << load;
        let is_done = self.loads(machine).next().is_none();
        match guards(machine) {
            _ if !is_done => {}
            true => (self.loaded, self.step) = (0, Step::AfterGuard),
            false => self.ask_reach(machine),
        }
    }

    fn ask_reach(&mut self, machine: &Machine) {
        self.loaded = 0;
        (self.header, self.trailer, self.before) = (Reader::NEW.header, Word::Zero, Word::Zero);
        let is_ahead = std::mem::replace(&mut self.ahead, Ahead::NONE) != Ahead::NONE;
        let reach = machine.law().is_some_and(|law| law.reach && (law.reach_ahead || !is_ahead));
        match machine.camera.tells != Tells::Nothing && reach {
            true => self.step = Step::Reach,
            false => self.deliver(),
        }
    }

    fn check_reach(&mut self, machine: &Machine, state: &State) {
        let limit = self.start + machine.camera.layout.ring - GAP;
        let law = machine.law().expect("only the law comes here");
        let (reserved, next) = match machine.camera.tells {
            tells if tells.counts() => (state.reserved, law.epoch.then_some(Step::Epoch)),
            _ if !self.extend_pointer(machine, state) => return self.refuse(),
            _ if law.margin => (self.complete + machine.camera.layout.slot_max(), None),
            _ => (self.complete, None),
        };
        if reserved > limit {
            return self.refuse();
        }
        match next {
            Some(next) => self.step = next,
            None => self.deliver(),
        }
    }

    /// Header, payload and trailer as they were copied.
    pub fn copied_words(&self) -> ([Word; 2], &[Word], Word) {
        let length = usize::from(self.length);
        (self.header, &self.copy[..length], self.copy[length])
    }
}

/// Whether what stands in front of the slot is looked at, for want of counters.
fn guards(machine: &Machine) -> bool {
    machine.camera.tells == Tells::Nothing
        && machine.law().is_some_and(|law| law.guard != Guard::Off)
}
