//! The parties that store: what they issue, and the buffer from which it reaches the memory.
//!
//! What a party issues does not depend on when its stores arrive, so that it is a list made
//! beforehand, and a store buffer is a window on that list: behind its lower end everything has
//! arrived, and inside it some has, ahead of its turn.

use super::world::{Breach, Burst, Camera, Fault, Frame, GAP, Gap, Memory, Tells, Word, slot};

/// How far the camera is with whole frames. The update counter of the real page makes it one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Progress {
    pub epoch: u8,
    pub complete: u8,
    pub frames: u8,
}

/// One step of a party that stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Stores a word of the ring.
    Word(usize, Word),
    /// Stores a length beside whatever meta index and signature are there.
    Length(usize, u8),
    Reserved(u8),
    Written(u8),
    Publish(Progress),
    Epoch(u8),
    /// What comes behind it arrives behind what comes before it.
    Fence,
}

impl Op {
    fn is_same_place(&self, other: &Op) -> bool {
        use Op::{Length, Word};
        match (self, other) {
            (Word(a, _) | Length(a, _), Word(b, _) | Length(b, _)) => a == b,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

/// Stores that a party has issued and that are under way: at most [`Buffer::ENTRIES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Buffer {
    /// Everything in front of this has arrived.
    pub base: u16,
    /// What has arrived ahead of its turn, from `base` on.
    ahead: u8,
}

impl Buffer {
    const ENTRIES: u8 = 4;

    pub fn new(ops: &[Op]) -> Buffer {
        let mut buffer = Buffer { base: 0, ahead: 0 };
        buffer.advance(ops);
        buffer
    }

    /// Which stores may arrive next: their distances from `base`.
    pub fn ready(self, ops: &[Op], memory: Memory) -> impl Iterator<Item = u8> + '_ {
        let entries = if memory == Memory::Weak { Buffer::ENTRIES } else { 1 };
        let issued = &ops[usize::from(self.base)..];
        let issued = &issued[..issued.len().min(entries.into())];
        let unfenced = issued.iter().take_while(|op| **op != Op::Fence).count();
        (0..unfenced as u8).filter(move |&at| {
            let earlier = (0..at).filter(|&other| !self.has_arrived(other));
            let here = &issued[usize::from(at)];
            !self.has_arrived(at)
                && earlier.into_iter().all(|other| !issued[usize::from(other)].is_same_place(here))
        })
    }

    /// Where in the list the store stands that is so far behind `base`.
    pub fn at(self, behind: u8) -> usize {
        usize::from(self.base) + usize::from(behind)
    }

    fn has_arrived(self, at: u8) -> bool {
        self.ahead & 1 << at != 0
    }

    /// Takes note that the store `at` behind `base` has arrived.
    pub fn arrive(&mut self, at: u8, ops: &[Op]) {
        self.ahead |= 1 << at;
        self.advance(ops);
    }

    pub fn is_empty(self, ops: &[Op]) -> bool {
        usize::from(self.base) == ops.len()
    }

    fn advance(&mut self, ops: &[Op]) {
        let is_fence = |at: u16| ops.get(usize::from(at)) == Some(&Op::Fence);
        while self.has_arrived(0) || is_fence(self.base) {
            self.base += 1;
            self.ahead >>= 1;
        }
    }
}

/// What the FPGA and the interrupt handler do.
#[derive(Debug)]
pub struct Programs {
    pub fpga: Vec<Op>,
    /// By frame: where in `fpga` its last store is behind.
    pub frame_ends: Vec<u16>,
    /// By place in `fpga`: how many words the bus has had to move before.
    pub moved: Vec<u8>,
    /// By frame: what the interrupt handler does when it is whole.
    pub stamps: Vec<Vec<Op>>,
}

impl Programs {
    pub fn of(camera: &Camera, frames: &[Frame]) -> Programs {
        let mut programs =
            Programs { fpga: vec![], frame_ends: vec![], moved: vec![0], stamps: vec![] };
        let mut slots = 0;
        for index in 0..frames.len() {
            let writer = FrameWriter { camera, frames, index };
            let (mut moved, ops) = (slots, writer.fpga());
            for op in &ops {
                moved += u8::from(matches!(op, Op::Word(..)));
                programs.moved.push(moved);
            }
            slots += slot(writer.frame().length);
            programs.fpga.extend(ops);
            programs.frame_ends.push(programs.fpga.len() as u16);
            programs.stamps.push(writer.stamp());
        }
        programs
    }
}

struct FrameWriter<'a> {
    camera: &'a Camera,
    frames: &'a [Frame],
    index: usize,
}

impl FrameWriter<'_> {
    fn frame(&self) -> &Frame {
        &self.frames[self.index]
    }

    fn at(&self, cursor: u8) -> usize {
        self.camera.layout.at(cursor)
    }

    /// The pieces that an FPGA emits one after the other, each with the cursor behind it.
    fn pieces(&self) -> Vec<(u8, Vec<Op>)> {
        let (frame, breach) = (self.frame(), self.camera.breach);
        let mut pieces: Vec<_> = (0..frame.length).map(|index| self.payload(index)).collect();
        if let Some(zeros) = self.late_gap() {
            let place = usize::from(breach == Breach::GapAfterPayload);
            pieces.insert(place, (frame.start + 1, zeros));
        }
        if breach == Breach::Descending {
            pieces.reverse();
        }
        if self.is_reset() {
            pieces.truncate(1 + usize::from(self.late_gap().is_some()));
            return pieces;
        }
        let end = frame.start + frame.length;
        let trailer = vec![Op::Fence, Op::Word(self.at(end), frame.trailer), Op::Fence];
        let place = match breach {
            Breach::PayloadAfterTrailer => usize::from(self.late_gap().is_some()),
            _ => pieces.len(),
        };
        pieces.insert(place, self.piece(end + 1, trailer));
        let zeros = match self.camera.gap {
            Gap::Zero => self.zeros(end + 1),
            Gap::Late | Gap::Skip => vec![],
        };
        pieces.push(self.piece(frame.end(), zeros));
        pieces
    }

    fn payload(&self, index: u8) -> (u8, Vec<Op>) {
        let (frame, cursor) = (self.index as u8, self.frame().start + index);
        let word = match self.frame().unescaped && index == 0 {
            true => Word::Pair { frame },
            false => Word::Payload { frame, index },
        };
        self.piece(cursor + 1, vec![Op::Word(self.at(cursor), word)])
    }

    /// With `written` behind it, where there is one.
    fn piece(&self, cursor: u8, mut bytes: Vec<Op>) -> (u8, Vec<Op>) {
        let written = Op::Written(cursor);
        match self.camera.breach {
            _ if self.camera.tells != Tells::Written => {}
            Breach::WrittenBeforeBytes => bytes.splice(0..0, [written, Op::Fence]).for_each(drop),
            Breach::WrittenUnfenced => bytes.push(written),
            _ => bytes.extend([Op::Fence, written]),
        }
        (cursor, bytes)
    }

    fn zeros(&self, cursor: u8) -> Vec<Op> {
        let places = (cursor..cursor + GAP).map(|cursor| self.at(cursor));
        let fence = (self.camera.breach != Breach::GapUnfenced).then_some(Op::Fence);
        places.map(|place| Op::Word(place, Word::Zero)).chain(fence).collect()
    }

    /// As on a camera, what lies in front of the first frame of an epoch stays.
    fn late_gap(&self) -> Option<Vec<Op>> {
        let start = self.frame().start;
        (self.camera.gap == Gap::Late && start > 0).then(|| self.zeros(start - GAP))
    }

    fn is_reset(&self) -> bool {
        self.camera.fault == Fault::Reset(self.index as u8)
    }

    /// All that the FPGA issues for the frame.
    fn fpga(&self) -> Vec<Op> {
        let announces = self.camera.tells.counts();
        let mut ops = vec![];
        let mut pieces = self.pieces();
        if self.camera.burst == Burst::Frame {
            let bytes = pieces.into_iter().flat_map(|(_, bytes)| bytes).collect();
            pieces = vec![(self.frame().end(), bytes)];
        }
        for (cursor, bytes) in pieces {
            match self.camera.breach {
                // Then the order of the bytes is all there is.
                _ if !announces && self.camera.burst == Burst::Chunk => {
                    ops.extend(bytes.into_iter().chain([Op::Fence]));
                }
                _ if !announces => ops.extend(bytes),
                Breach::ReservedAfterBytes => {
                    ops.extend(bytes.into_iter().chain([Op::Fence, Op::Reserved(cursor)]));
                }
                Breach::ReservedUnfenced => {
                    ops.extend([Op::Reserved(cursor)].into_iter().chain(bytes));
                }
                _ => ops.extend([Op::Reserved(cursor), Op::Fence].into_iter().chain(bytes)),
            }
        }
        if self.is_reset() {
            ops.extend(self.reset());
        } else if !self.handler_publishes() {
            let publish = [Op::Fence, Op::Publish(self.progress()), Op::Fence];
            let place = match self.camera.breach {
                Breach::CompleteBeforeBytes => 0,
                _ => ops.len(),
            };
            ops.splice(place..place, publish);
        }
        ops
    }

    fn reset(&self) -> Vec<Op> {
        let (epoch, frames) = (self.frame().epoch + 1, self.index as u8);
        let publish = Op::Publish(Progress { epoch, complete: 0, frames });
        let written = (self.camera.tells == Tells::Written).then_some(Op::Written(0));
        let counters = [Op::Epoch(epoch), Op::Reserved(0)].into_iter().chain(written);
        let ops = counters.chain([publish]).flat_map(|op| [Op::Fence, op]);
        ops.chain([Op::Fence]).collect()
    }

    /// A pointer is the FPGA's own, and moves whether the header is stamped or not.
    fn handler_publishes(&self) -> bool {
        self.camera.stamped() && self.camera.tells != Tells::Pointer
    }

    fn progress(&self) -> Progress {
        let frame = self.frame();
        let frames = frame.number.map_or(0, |number| number + 1);
        Progress { epoch: frame.epoch, complete: frame.end(), frames }
    }

    fn stamp(&self) -> Vec<Op> {
        if self.is_reset() || !self.camera.stamped() {
            return vec![];
        }
        let (frame, length) = (self.index as u8, self.frame().length);
        let [parameters, mark] = self.camera.layout.header(self.frame().start);
        let signature = Op::Word(mark, self.camera.layout.mark(frame, length));
        let parameters = Op::Word(parameters, Word::Parameters { frame });
        let mut ops = match self.camera.breach {
            Breach::SignatureFirst => vec![signature, Op::Fence, parameters],
            _ => vec![Op::Length(mark, length), parameters, Op::Fence, signature],
        };
        if self.handler_publishes() {
            ops.extend([Op::Fence, Op::Publish(self.progress())]);
        }
        ops
    }
}
