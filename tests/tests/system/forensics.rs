//! What forensics say of a ring, held against a naive map of who wrote each chunk last, at every
//! chunk step.

use std::fs::File;

use circbuf_abi::registers::{COMPLETE, EPOCH, FRAMES, RESERVED, WRITTEN};
use circbuf_driver::forensics::{
    Content, Found, Overwriter, RingImage, Stretch, Survey, Verdict, Writer,
};
use circbuf_driver::ring::{padded, slot};
use circbuf_emulator::fpga::Progress;
use circbuf_emulator::model::{FrameTime, Gap};
use circbuf_tests::{GAPS, Random, START, SteppedCamera, content};

const RING: u64 = 4096;

/// A frame as it was begun.
#[derive(Debug, Clone, Copy)]
struct Begun {
    epoch: u64,
    start: u64,
    length: u32,
    /// Once it is whole.
    number: Option<u64>,
}

/// Who wrote a chunk last: the frame with this index among those begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Body(usize),
    Header(usize),
    Zeroed,
    Never,
}

/// A camera, and the map of its ring.
struct Mapped {
    camera: SteppedCamera,
    gap: Gap,
    stamped: bool,
    begun: Vec<Begun>,
    marks: Vec<Mark>,
}

impl Mapped {
    fn new(gap: Gap, stamped: bool) -> Mapped {
        let camera = SteppedCamera::new(RING, 900, gap, stamped);
        let marks = vec![Mark::Never; (RING / 32) as usize];
        Mapped { camera, gap, stamped, begun: Vec::new(), marks }
    }

    fn mark(&mut self, cursor: u64, mark: Mark) {
        self.marks[(cursor % RING / 32) as usize] = mark;
    }

    fn at(&self, cursor: u64) -> Mark {
        self.marks[(cursor % RING / 32) as usize]
    }

    fn step(&mut self, length: u32) {
        let (epoch, start) = (self.camera.fpga().epoch(), self.camera.fpga().cursor());
        if !self.camera.is_writing() {
            self.begun.push(Begun { epoch, start, length, number: None });
            if self.gap == Gap::Late && start > 0 {
                self.mark(start - 32, Mark::Zeroed);
            }
        }
        let index = self.begun.len() - 1;
        let Begun { start: first, length, .. } = self.begun[index];
        let number = self.camera.fpga().frames();
        match self.camera.step(length as usize) {
            Progress::Whole => {
                self.begun[index].number = Some(number);
                if self.stamped {
                    self.mark(first + RING - 32, Mark::Header(index));
                }
            }
            Progress::Writing if start < first + padded(length) => {
                self.mark(start, Mark::Body(index));
            }
            Progress::Writing if self.gap == Gap::Zero => self.mark(start, Mark::Zeroed),
            Progress::Writing | Progress::Lost => {}
        }
    }

    fn image(&self, with_counters: bool) -> RingImage {
        let file = self.camera.fpga().file();
        let open = |fd: std::os::fd::BorrowedFd<'_>| File::from(fd.try_clone_to_owned().unwrap());
        let image = RingImage::new(content(&open(file.ring_fd()))).unwrap();
        if !with_counters {
            return image;
        }
        let page = content(&open(file.registers_fd()));
        let [epoch, written, reserved, complete, frames] =
            [EPOCH, WRITTEN, RESERVED, COMPLETE, FRAMES]
                .map(|at| u64::from_le_bytes(*page[at..].first_chunk().unwrap()));
        image.with_writer(Writer { epoch, written, reserved, complete, frames })
    }

    /// Which frame was begun at this time.
    fn index(&self, found: &Found) -> Option<usize> {
        let time = found.time?;
        let since = FrameTime { sec: time.sec, usec: time.usec }.as_nanos() - START.as_nanos();
        Some((since / 10_000_000) as usize)
    }

    /// Whether the writer has not come back to the slot of this frame of the present epoch.
    fn stands(&self, frame: &Begun) -> bool {
        let fpga = self.camera.fpga();
        frame.epoch == fpga.epoch() && frame.start + RING >= fpga.cursor() + 32
    }

    /// The writer is right in front of it: only a counter or a header tells what was begun.
    fn is_oldest(&self, frame: &Begun) -> bool {
        frame.start + RING < self.camera.fpga().cursor() + 96
    }

    /// Only counters tell of a frame that was begun at 0 when another or its header lies there, or at
    /// the very start of another whose header, or the trailer in front of it, was skipped or is not there.
    fn is_hidden(&self, frame: &Begun) -> bool {
        let start = frame.start % RING;
        let is_over_end = start <= 32 || start + padded(frame.length) > RING;
        let is_of_before = frame.epoch < self.camera.fpga().epoch();
        let mut unfinished = self.begun.iter().filter(|begun| begun.number.is_none());
        let is_at_start = |other: &Begun| match (start + RING - other.start % RING) % RING {
            0 => !self.stamped || self.gap == Gap::Skip,
            behind => behind == 32 && self.gap == Gap::Skip,
        };
        is_over_end && is_of_before || unfinished.any(is_at_start)
    }

    fn is_body_there(&self, index: usize) -> bool {
        let Begun { start, length, .. } = self.begun[index];
        let mut chunks = (start..start + padded(length)).step_by(32);
        chunks.all(|at| self.at(at) == Mark::Body(index))
    }
}

fn offsets(stretch: &Stretch) -> impl Iterator<Item = u64> {
    (stretch.start..stretch.start + stretch.bytes).step_by(32)
}

/// The stretches cover all bytes, and none twice; one that wraps is the last.
fn assert_partition(survey: &Survey, ring_bytes: u64) {
    let mut at = survey.stretches[0].start;
    for stretch in &survey.stretches {
        assert!(stretch.start == at && stretch.bytes > 0, "{survey:#?}");
        at += stretch.bytes;
    }
    assert_eq!(at - survey.stretches[0].start, ring_bytes, "{survey:#?}");
    assert!(survey.stretches[0].start < ring_bytes);
}

/// What is said to be sound is, with all that is said of it, and what stands is said to be sound.
fn hold_sound(ring: &Mapped, survey: &Survey, with_counters: bool) {
    let mut sound = Vec::new();
    for found in survey.frames.iter().filter(|found| found.is_sound()) {
        let index = ring.index(found).unwrap();
        let truth = ring.begun[index];
        assert_eq!((found.start, found.length), (truth.start % RING, truth.length));
        let may_be_mixed = !with_counters && ring.is_hidden(&truth);
        assert!(ring.is_body_there(index) || may_be_mixed, "{found:?}");
        // A header of the same length may have been there before.
        let is_stamped = match ring.at(truth.start + RING - 32) {
            Mark::Header(owner) => ring.begun[owner].length == truth.length,
            _ => false,
        };
        assert_eq!(found.verdict == Verdict::Whole, is_stamped, "{found:?}");
        assert!(!with_counters || ring.stands(&truth), "{found:?}");
        assert!(!with_counters || truth.number == found.number, "{found:?} {truth:?}");
        sound.push(index);
    }
    for (index, frame) in ring.begun.iter().enumerate() {
        let is_behind_others = frame.start == 0 && frame.epoch > 0;
        let is_unsure = ring.is_oldest(frame) || is_behind_others;
        let is_told = with_counters || ring.stamped || !is_unsure;
        let must = frame.number.is_some() && ring.stands(frame) && is_told;
        assert!(!must || sound.contains(&index), "{frame:?} is not sound");
    }
}

/// What is said to be left of a frame is, and whoever is said to have written over it has.
fn hold_remains(ring: &Mapped, survey: &Survey, stretch: &Stretch, with_counters: bool) {
    let Content::Frame(at) = stretch.content else { return };
    let found = &survey.frames[at];
    let of_header = match ring.at(found.start + RING - 32) {
        Mark::Header(index) => Some(index),
        _ => None,
    };
    let Some(index) = ring.index(found).or(of_header) else { panic!("{found:?}") };
    let truth = ring.begun[index];
    let is_its = |at: u64| {
        let is_slot = at % RING == (found.start + RING - 32) % RING;
        match ring.at(at) {
            Mark::Body(owner) | Mark::Header(owner) if owner == index => true,
            // A slot that was never stamped.
            Mark::Zeroed | Mark::Never if is_slot => true,
            // In front of a bare frame may stand what the writer skips.
            _ if is_slot && ring.gap != Gap::Zero => true,
            // Nothing tells where a frame ends that was begun, if no counter does.
            Mark::Body(owner) => !with_counters && ring.begun[owner].number.is_none(),
            _ => false,
        }
    };
    // What was begun in an epoch before, and never ended, no counter tells.
    let knows = with_counters && !ring.begun.iter().any(|b| b.epoch > 0);
    if knows {
        assert!(offsets(stretch).all(is_its), "{found:?} {stretch:?} {:?}", ring.marks);
    }
    let Some(by) = found.overwriter() else { return };
    assert!(by != Overwriter::Cut && !found.is_corrupt(), "{found:?}");
    let is_behind_others = truth.start == 0 && truth.epoch > 0;
    // Behind an old header it stands like a damaged one until the handler has come.
    let is_unsure = ring.is_oldest(&truth) || is_behind_others || truth.number.is_none();
    let is_unsure = !with_counters && is_unsure;
    let is_excused = by == Overwriter::Restart || is_unsure;
    assert!(is_excused || !ring.stands(&truth), "{found:?} {truth:?}");
    if let Overwriter::Frame(start) = by {
        let covers = |other: &Begun| {
            let reach = other.start % RING + slot(other.length);
            // A header slot each: that of a frame at 0 lies at the ring's end.
            let own = (found.start + RING - 32)..(found.start + RING + padded(found.length));
            [0, RING, 2 * RING]
                .iter()
                .any(|lap| other.start % RING + lap < own.end + 32 && own.start < reach + lap)
        };
        let later = ring.begun[index + 1..].iter();
        let mut overwriters = later.filter(|other| other.start % RING == start);
        assert!(is_unsure || overwriters.any(covers), "{found:?} {truth:?} {:?}", ring.begun);
    }
}

/// The other stretches are what they are said to be.
fn hold_rest(ring: &Mapped, stretch: &Stretch, with_counters: bool) {
    let marks: Vec<Mark> = offsets(stretch).map(|at| ring.at(at)).collect();
    let fpga = ring.camera.fpga();
    match stretch.content {
        Content::Frame(_) => {}
        Content::Gap(_) => {
            let is_zero = matches!(marks[..], [Mark::Zeroed | Mark::Never]);
            // Before a reset the last frame may have been left without.
            let may_be_older = ring.gap != Gap::Zero || fpga.epoch() > 0;
            assert!(is_zero || marks.len() == 1 && may_be_older, "{stretch:?} {marks:?}");
        }
        Content::Unused => {
            assert!(marks.iter().all(|mark| matches!(mark, Mark::Zeroed | Mark::Never)));
        }
        Content::Unfinished => {
            let last = ring.begun.len() - 1;
            let gap = (ring.begun[last].start + padded(ring.begun[last].length)) % RING;
            let is_current = |at: u64| ring.at(at) == Mark::Body(last) || at % RING == gap;
            let knows = with_counters && fpga.epoch() == 0;
            assert!(!knows || offsets(stretch).all(is_current), "{stretch:?} {marks:?}");
        }
        Content::Head { by } => {
            let is_at_0 = matches!(by, Overwriter::Frame(0) | Overwriter::Unfinished);
            assert!(is_at_0 && fpga.epoch() > 0, "{by:?}");
        }
        Content::Garbage | Content::Missing => panic!("{stretch:?} {marks:?}"),
    }
}

#[expect(clippy::print_stdout, reason = "shown only if what follows fails")]
fn hold(ring: &Mapped, with_counters: bool) {
    let survey = ring.image(with_counters).survey();
    println!("{:?} {:?}", ring.begun, survey.stretches);
    survey
        .frames
        .iter()
        .for_each(|found| println!("{:?}", (found.start, found.length, found.verdict)));
    assert_partition(&survey, RING);
    hold_sound(ring, &survey, with_counters);
    // After the pointer went back, bytes alone have more than one explanation.
    if !with_counters && ring.camera.fpga().epoch() > 0 {
        return;
    }
    for stretch in &survey.stretches {
        hold_remains(ring, &survey, stretch, with_counters);
        hold_rest(ring, stretch, with_counters);
    }
}

#[expect(clippy::print_stdout, reason = "shown only if what follows fails")]
fn run(seed: u64, resets: bool) {
    for (gap, stamped) in GAPS.iter().flat_map(|&gap| [(gap, true), (gap, false)]) {
        let mut random = Random::of(seed);
        let mut ring = Mapped::new(gap, stamped);
        for step in 0..400 {
            ring.step(1 + random.below(900) as u32);
            for with_counters in [true, false] {
                println!("seed {seed}, {gap:?}, stamped {stamped}, step {step}, {with_counters}");
                hold(&ring, with_counters);
            }
            if resets && random.once_in(150) {
                ring.camera.reset();
            }
        }
    }
}

#[test]
fn every_stretch_is_what_the_map_says_at_every_step() {
    (std::env::var("FSEED").map_or(0, |s| s.parse().unwrap())..)
        .take(12)
        .for_each(|seed| run(seed, false));
}

#[test]
fn every_stretch_is_what_the_map_says_although_the_pointer_goes_back_to_0() {
    (std::env::var("FSEED").map_or(0, |s| s.parse().unwrap())..)
        .take(12)
        .for_each(|seed| run(seed, true));
}
