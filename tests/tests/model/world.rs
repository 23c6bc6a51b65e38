//! What stands in the model's memory, and what a camera is.

use std::hash::{Hash, Hasher};

/// Words of a header slot, which is the gap of the frame before: parameters, and signature with
/// length.
pub const GAP: u8 = 2;

/// Words of a slot besides its payload: the trailer and the gap.
const SLOT_REST: u8 = 1 + GAP;

/// The largest payload in words.
pub const LENGTH_MAX: usize = 5;

/// The largest ring in words.
pub const RING_MAX: usize = 16;

/// What is loaded and stored at once. A payload word says whose it is, so that a torn copy shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// Nothing yet, or a gap that was zeroed.
    Zero,
    /// Word `index` of a frame's payload. From index 1 on it may look like a trailer.
    Payload { frame: u8, index: u8 },
    /// A payload word with an FF FF that the stuffer missed.
    Pair { frame: u8 },
    /// Time, which is the frame's, and length.
    Trailer { frame: u8, length: u8 },
    /// The part of a header that tells how the frame was taken.
    Parameters { frame: u8 },
    /// The part of a header that has the meta index, the length and, if `signed`, FF FF.
    Mark { signed: bool, length: u8, meta: u8 },
}

/// A state is mostly words, and millions of states are hashed: each word at once.
impl Hash for Word {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let bytes = match *self {
            Word::Zero => [0, 0, 0, 0],
            Word::Payload { frame, index } => [1, frame, index, 0],
            Word::Pair { frame } => [2, frame, 0, 0],
            Word::Trailer { frame, length } => [3, frame, length, 0],
            Word::Parameters { frame } => [4, frame, 0, 0],
            Word::Mark { signed, length, meta } => [5, signed.into(), length, meta],
        };
        state.write_u32(u32::from_le_bytes(bytes));
    }
}

/// What a word says where a reader takes it for a trailer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrailerRead {
    /// In the place of the time.
    pub frame: u8,
    pub length: u8,
}

impl Word {
    pub fn is_signed(self) -> bool {
        matches!(self, Word::Mark { signed: true, .. })
    }

    /// What stuffed payload cannot contain.
    pub fn has_pair(self) -> bool {
        self.is_signed() || matches!(self, Word::Pair { .. })
    }
}

/// What happens to the gap behind a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// Zeroed as the end of the frame.
    Zero,
    /// Zeroed immediately before the next frame.
    Late,
    /// Never touched.
    Skip,
}

/// What a reader can learn besides the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tells {
    /// `reserved`, `complete`, `frames` and `epoch`.
    Counters,
    /// And `written`: the reader copies ahead.
    Written,
    /// A pointer that moves at the end of a frame and wraps.
    Pointer,
    /// Nothing: there are only bytes.
    Nothing,
}

impl Tells {
    /// Whether there are counters.
    pub fn counts(self) -> bool {
        matches!(self, Tells::Counters | Tells::Written)
    }
}

/// In which order one party's stores reach the memory, and another's loads happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// As they were issued, later.
    Fifo,
    /// In any order that no fence forbids, stores only if they are to different places.
    Weak,
}

/// Whether there is an interrupt handler, which stamps headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupts {
    /// The ring is bare.
    None,
    /// The FPGA waits while a header is due, as the emulator's does.
    Prompt,
    /// The handler works beside the FPGA. If one more frame becomes whole while an interrupt is
    /// pending, the older one never gets a header. It is done with a slot before the FPGA comes
    /// round to it.
    Late,
    /// The same, but it may still be at a slot when the FPGA comes round: it breaks the law's
    /// assumption.
    LapLate,
}

/// How much is announced by one change of `reserved`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Burst {
    Chunk,
    Frame,
}

/// What goes wrong in the camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The stuffer leaves FF FF in the payload of this frame.
    Unescaped(u8),
    /// This frame is broken off behind its first word, and ends in the trailer of the one before.
    Aborted(u8),
    /// The FPGA is reset behind the first word of this frame.
    Reset(u8),
}

/// Which of the things that the law assumes of a writer does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breach {
    None,
    PayloadAfterTrailer,
    /// The header slot is zeroed behind the first word of the payload.
    GapAfterPayload,
    /// The same order is only that of the program: there is no fence between the two.
    GapUnfenced,
    /// Payload and the gap in front of it go out from the highest address to the lowest.
    Descending,
    ReservedAfterBytes,
    ReservedUnfenced,
    CompleteBeforeBytes,
    WrittenBeforeBytes,
    WrittenUnfenced,
    SignatureFirst,
    /// This frame is longer than the largest that was promised, by so much that it runs over a
    /// slot and the first word of a payload.
    TooLarge(u8),
}

/// Where frames lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Size of the ring in words.
    pub ring: u8,
    /// Payload lengths in words, one after the other and again from the front.
    pub lengths: &'static [u8],
    /// How often the writer goes round.
    pub laps: u8,
    /// Whether payload may look like a trailer that leads back to the start of its frame.
    pub lookalikes: bool,
    /// Whether headers have a meta index, which differs from frame to frame. The 353's firmware 7.1
    /// has none.
    pub numbered: bool,
}

impl Layout {
    pub fn length_max(&self) -> u8 {
        self.lengths.iter().copied().max().unwrap_or(0)
    }

    pub fn slot_max(&self) -> u8 {
        slot(self.length_max())
    }

    /// The last word of a frame's header, as it is when it is stamped.
    pub fn mark(&self, frame: u8, length: u8) -> Word {
        Word::Mark { signed: true, length, meta: if self.numbered { frame + 1 } else { 0 } }
    }

    /// The word of the ring that a cursor stands for.
    pub fn at(&self, cursor: u8) -> usize {
        usize::from(cursor % self.ring)
    }

    /// The header slot in front of `start`: parameters, and the mark.
    pub fn header(&self, start: u8) -> [usize; 2] {
        let end = start % self.ring + self.ring;
        [self.at(end - 2), self.at(end - 1)]
    }

    pub fn as_trailer(&self, word: Word) -> Option<TrailerRead> {
        match word {
            Word::Trailer { frame, length } => Some(TrailerRead { frame, length }),
            Word::Payload { frame, index } if self.lookalikes && index > 0 => {
                Some(TrailerRead { frame, length: index })
            }
            _ => None,
        }
    }
}

/// Words from a frame's start to the next one's.
pub const fn slot(length: u8) -> u8 {
    length + SLOT_REST
}

/// One camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Camera {
    pub layout: Layout,
    pub gap: Gap,
    pub interrupts: Interrupts,
    pub tells: Tells,
    pub memory: Memory,
    pub burst: Burst,
    pub fault: Fault,
    pub breach: Breach,
}

impl Camera {
    pub fn stamped(&self) -> bool {
        self.interrupts != Interrupts::None
    }
}

/// A frame as it was emitted. Its place in [`Frames`] is its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    pub start: u8,
    /// Words that were emitted.
    pub length: u8,
    /// What the counters say; `None` if the frame never became whole.
    pub number: Option<u8>,
    pub epoch: u8,
    pub trailer: Word,
    /// Whether a word of the payload is not what the stuffer should have made.
    pub unescaped: bool,
}

impl Frame {
    /// Where the next frame starts.
    pub fn end(&self) -> u8 {
        self.start + slot(self.length)
    }
}

/// All frames of a camera, in the order of their times.
pub fn frames(camera: &Camera) -> Vec<Frame> {
    let layout = &camera.layout;
    let (mut start, mut epoch, mut number) = (0, 0, 0);
    let mut frames: Vec<Frame> = Vec::new();
    for (frame, &nominal) in (0u8..).zip(layout.lengths.iter().cycle()) {
        let aborted = camera.fault == Fault::Aborted(frame);
        let reset = camera.fault == Fault::Reset(frame);
        let extra = if camera.breach == Breach::TooLarge(frame) { GAP + 1 } else { 0 };
        let length = if aborted { 1 } else { nominal + extra };
        if start + slot(length) > layout.ring * layout.laps {
            return frames;
        }
        let lawful = Word::Trailer { frame, length };
        frames.push(Frame {
            start,
            length,
            number: (!reset).then_some(number),
            epoch,
            trailer: frames.last().filter(|_| aborted).map_or(lawful, |before| before.trailer),
            unescaped: camera.fault == Fault::Unescaped(frame),
        });
        if reset {
            (start, epoch) = (0, epoch + 1);
        } else {
            (start, number) = (start + slot(length), number + 1);
        }
    }
    frames
}
