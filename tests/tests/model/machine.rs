//! The three parties together: a state, the moves that are possible in it, and what they do.

use super::check::{Check, Guard, Law};
use super::reader::{Copied, Reader, Step, Verdict};
use super::world::{Camera, Frame, Interrupts, RING_MAX, Tells, Word, frames};
use super::writer::{Buffer, Op, Programs, Progress};

/// A camera and one kind of reader.
#[derive(Debug)]
pub struct Machine {
    pub camera: Camera,
    pub check: Check,
    pub frames: Vec<Frame>,
    pub programs: Programs,
}

/// So many frames at most become whole while one waits for its interrupt.
const COALESCED_MAX: u8 = 1;

/// Everything that changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    pub ring: [Word; RING_MAX],
    pub reserved: u8,
    pub written: u8,
    pub progress: Progress,
    pub epoch: u8,
    pub fpga: Buffer,
    /// The frame that is being stamped, and how far.
    pub stamping: Option<(u8, Buffer)>,
    /// Whole frames whose interrupt was served, or lost because a newer one came first.
    served: u8,
    pub reader: Reader,
}

/// Who does something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// One of the stores that the FPGA has under way arrives.
    Fpga(u8),
    /// The interrupt handler begins with the newest whole frame.
    Interrupt,
    /// One of the handler's stores arrives.
    Stamp(u8),
    /// One of the loads that the reader may do next.
    Reader(u8),
}

impl Machine {
    pub fn new(camera: Camera, check: Check) -> Machine {
        assert!(usize::from(camera.layout.ring) <= RING_MAX);
        let frames = frames(&camera);
        let programs = Programs::of(&camera, &frames);
        Machine { camera, check, frames, programs }
    }

    pub fn law(&self) -> Option<&Law> {
        match &self.check {
            Check::Law(law) => Some(law),
            _ => None,
        }
    }

    pub fn initial(&self) -> State {
        State {
            ring: [Word::Zero; RING_MAX],
            reserved: 0,
            written: 0,
            progress: Progress::default(),
            epoch: 0,
            fpga: Buffer::new(&self.programs.fpga),
            stamping: None,
            served: 0,
            reader: Reader::NEW,
        }
    }

    /// What can happen next. Behind a verdict nothing matters any more.
    pub fn moves(&self, state: &State, moves: &mut Vec<Move>) {
        moves.clear();
        if matches!(state.reader.step, Step::Done(_)) {
            return;
        }
        let memory = self.camera.memory;
        let fpga = state.fpga.ready(&self.programs.fpga, memory);
        moves.extend(fpga.filter(|&at| !self.is_held_up(state, at)).map(Move::Fpga));
        match state.stamping {
            Some((frame, buffer)) => {
                let ops = &self.programs.stamps[usize::from(frame)];
                moves.extend(buffer.ready(ops, memory).map(Move::Stamp));
            }
            None if self.camera.stamped() && self.whole(state) > state.served => {
                moves.push(Move::Interrupt);
            }
            None => {}
        }
        moves.extend(state.reader.loads(self).map(Move::Reader));
    }

    pub fn apply(&self, state: &mut State, happens: Move) {
        match happens {
            Move::Fpga(at) => {
                let ops = &self.programs.fpga;
                store(state, ops[state.fpga.at(at)]);
                state.fpga.arrive(at, ops);
            }
            Move::Interrupt => {
                state.served = self.whole(state);
                let frame = state.served - 1;
                let buffer = Buffer::new(&self.programs.stamps[usize::from(frame)]);
                // A frame that was broken off by a reset gets none.
                let ops = &self.programs.stamps[usize::from(frame)];
                state.stamping = Some((frame, buffer)).filter(|_| !buffer.is_empty(ops));
            }
            Move::Stamp(at) => {
                let (frame, mut buffer) = state.stamping.expect("a header is being stamped");
                let ops = &self.programs.stamps[usize::from(frame)];
                store(state, ops[buffer.at(at)]);
                buffer.arrive(at, ops);
                state.stamping = Some((frame, buffer)).filter(|_| !buffer.is_empty(ops));
            }
            Move::Reader(load) => {
                let mut reader = state.reader;
                reader.load(self, state, load);
                state.reader = reader;
            }
        }
    }

    pub fn verdict(&self, state: &State) -> Option<Verdict> {
        match state.reader.step {
            Step::Done(verdict) => Some(verdict),
            _ => None,
        }
    }

    /// Frames of which every store has arrived: the interrupt comes behind them.
    fn whole(&self, state: &State) -> u8 {
        self.programs.frame_ends.iter().take_while(|&&end| end <= state.fpga.base).count() as u8
    }

    /// Whether the FPGA's next store comes later than the handler's next: a lap is long against an
    /// interrupt.
    fn is_held_up(&self, state: &State, at: u8) -> bool {
        let pending = self.whole(state) - state.served;
        match (self.camera.interrupts, state.stamping) {
            (Interrupts::None, _) => false,
            (Interrupts::Prompt, stamping) => pending > 0 || stamping.is_some(),
            _ if pending > COALESCED_MAX => true,
            (Interrupts::Late, Some((frame, _))) => self.comes_to_slot_of(frame, state, at),
            _ => false,
        }
    }

    fn comes_to_slot_of(&self, frame: u8, state: &State, at: u8) -> bool {
        let slot = self.camera.layout.header(self.frames[usize::from(frame)].start);
        let op = self.programs.fpga[state.fpga.at(at)];
        matches!(op, Op::Word(place, _) if slot.contains(&place))
    }

    /// Whether a frame with this trailer can start behind this word. One that counters tell of may have
    /// the trailer of the frame before only if its compression was aborted; and without a header, what
    /// is in front has to be a trailer.
    pub fn may_start(&self, start: u8, before: Word, trailer: Word) -> bool {
        let is_trailer = self.camera.layout.as_trailer(before).is_some();
        before != trailer && (self.camera.stamped() || is_trailer || start == 0)
    }

    /// Whether the writer left this word in front of a slot before the frame behind it: it is the
    /// trailer of the frame that whoever has no counters has just read, or an older one.
    pub fn is_before(&self, word: Word, number: u8, trailer: Word) -> bool {
        let layout = &self.camera.layout;
        let time = |word| layout.as_trailer(word).map(|read| read.frame);
        let last = number.checked_sub(1).and_then(|last| self.frames.get(usize::from(last)));
        let is_last = last.is_some_and(|last| last.trailer == word);
        let is_older = time(word).is_some_and(|before| Some(before) < time(trailer));
        let may_be_nothing = self.law().is_some_and(|law| law.guard == Guard::TrailerOrNothing);
        is_last || is_older || word == Word::Zero && may_be_nothing
    }

    /// How many words the bus has moved: a clock that is read tells at least that.
    pub fn bus_moved(&self, state: &State) -> u8 {
        self.programs.moved[usize::from(state.fpga.base)]
    }

    /// What a copy is.
    pub fn judge(&self, reader: &Reader) -> Copied {
        let (header, payload, trailer) = reader.copied_words();
        let Word::Trailer { frame, .. } = trailer else { return Copied::Damaged };
        let truth = &self.frames[usize::from(frame)];
        let words = (0..truth.length).map(|index| Word::Payload { frame, index });
        let is_true = truth.trailer == trailer
            && self.is_claimed(frame, reader)
            && !truth.unescaped
            && payload.iter().copied().eq(words);
        let own_header = [Word::Parameters { frame }, self.camera.layout.mark(frame, truth.length)];
        match (is_true, !self.camera.stamped() || header == own_header) {
            (false, _) => Copied::Damaged,
            (true, false) => Copied::OtherHeader,
            (true, true) => Copied::Whole,
        }
    }

    /// Without counters no number is claimed, but that the frame was not delivered before.
    fn is_claimed(&self, frame: u8, reader: &Reader) -> bool {
        let number = self.frames[usize::from(frame)].number;
        match self.camera.tells {
            Tells::Nothing => number >= Some(reader.number),
            _ => number == Some(reader.number),
        }
    }
}

fn store(state: &mut State, op: Op) {
    match op {
        Op::Word(place, word) => state.ring[place] = word,
        Op::Length(place, length) => {
            let (signed, meta) = match state.ring[place] {
                Word::Mark { signed, meta, .. } => (signed, meta),
                _ => (false, 0),
            };
            state.ring[place] = Word::Mark { signed, length, meta };
        }
        Op::Reserved(cursor) => state.reserved = cursor,
        Op::Written(cursor) => state.written = cursor,
        Op::Publish(progress) => state.progress = progress,
        Op::Epoch(epoch) => state.epoch = epoch,
        Op::Fence => {}
    }
}
