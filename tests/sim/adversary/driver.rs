//! The reader: the driver, or the twin of its law.

use std::sync::{Arc, Mutex};

use circbuf_driver::capture::{Capture, Captured, Origin};
use circbuf_driver::clock::Moment;
use circbuf_driver::device::Device;
use circbuf_driver::dispatch::{Delivery, Outlet};
use circbuf_driver::pipeline::{EndedBy, Options, Pipeline, Processor};
use circbuf_driver::slab::SlabPool;
use circbuf_driver::tail::{StartAt, Step, Tail};
use circbuf_driver::validate::Candidate;
use circbuf_tests::Random;

use super::proof::Checker;
use super::{Kind, Reader, stall};
use crate::law::Law;
use crate::seeds::Counts;

/// Steps from one stall to the next, about.
const STEPS_PER_STALL: u64 = 5000;

/// Looks without a frame after which a ring without counters is read to its end.
const LOOKS_MAX: u32 = 2000;

/// A ring to be read, and the same with its counters, which tell when the camera has ended.
pub(super) struct Rings {
    pub(super) device: Device,
    pub(super) watched: Device,
}

/// Reads until the camera has ended and everything is read. `ready` is called once the driver is
/// attached.
pub(super) fn run(rings: Rings, kind: &Kind, ready: impl FnOnce()) -> Counts {
    match kind.reader {
        Reader::Capture => by_capture(rings, kind, ready),
        Reader::Pipeline => by_pipeline(rings, kind, ready),
        Reader::Twin(law) => by_twin(&rings, law, kind, ready),
    }
}

fn by_capture(Rings { device, watched }: Rings, kind: &Kind, ready: impl FnOnce()) -> Counts {
    let device = Arc::new(device);
    let tail = Tail::attach(&device, StartAt::Newest).unwrap();
    let (outlet, queue) = Outlet::new("every".parse().unwrap(), 64);
    let pool = SlabPool::new(4 << 20);
    let mut capture = Capture::new(device, tail, pool, Origin::default(), (outlet, None));
    let (mut random, mut checker) = (Random::of(!kind.seed), Checker::new(kind));
    ready();
    let mut end = End::default();
    while !end.is_reached(&watched, || capture.is_drained()) {
        let now = Moment::now();
        let captured = capture.step(now, || now).unwrap();
        for delivery in queue.try_iter() {
            look(&delivery, &mut checker);
            drop(delivery);
            capture.books().proc.deliver(1);
        }
        end.note(captured == Captured::Nothing);
        if random.once_in(STEPS_PER_STALL) {
            stall(&mut random);
        }
    }
    let expected = capture.expected();
    let books = capture.books();
    let found = books.detected + books.overrun;
    assert_eq!(expected.unwrap_or(found), found, "every frame is accounted for");
    assert!(books.proc.closes() && books.proc.in_flight == 0, "{:?}", books.proc);
    assert_eq!(books.detected, books.passed + books.torn + books.corrupt);
    checker.count("frames", found);
    checker.counts
}

fn by_pipeline(rings: Rings, kind: &Kind, ready: impl FnOnce()) -> Counts {
    let checker = Arc::new(Mutex::new(Checker::new(kind)));
    let looking = Arc::clone(&checker);
    let mut random = Random::of(!kind.seed);
    let processor: Processor = Box::new(move |delivery: &Delivery| {
        look(delivery, &mut looking.lock().unwrap());
        if random.once_in(STEPS_PER_STALL) {
            stall(&mut random);
        }
    });
    let mut options = Options::default();
    options.proc.policy = "every".parse().unwrap();
    let pipeline = Pipeline::start(rings.device, vec![processor], None, &options).unwrap();
    ready();
    let finished = pipeline.join();
    assert_eq!(finished.ended_by.unwrap(), EndedBy::Camera);
    finished.snapshot.check_balance().unwrap();
    let mut checker = checker.lock().unwrap();
    let ring = &finished.snapshot.ring;
    checker.count("frames", ring.frames_expected.unwrap());
    std::mem::take(&mut checker.counts)
}

fn look(delivery: &Delivery, checker: &mut Checker) {
    let frame = &delivery.frame;
    checker.lost(&delivery.lost);
    match frame.record_header().synthesised && !checker.is_counted() {
        true => checker.unpromised(),
        false => checker.frame(frame.sequence(), frame.time(), frame.payload()),
    }
}

fn by_twin(rings: &Rings, law: Law, kind: &Kind, ready: impl FnOnce()) -> Counts {
    let Rings { device, watched } = rings;
    let mut tail = Tail::attach(device, StartAt::Newest).unwrap();
    let (mut random, mut checker) = (Random::of(!kind.seed), Checker::new(kind));
    ready();
    let mut end = End::default();
    while !end.is_reached(watched, || tail.has_read_all(device)) {
        let step = tail.poll(device).unwrap();
        end.note(step == Step::Idle);
        match step {
            Step::Idle => std::thread::yield_now(),
            Step::Lost(loss) => checker.count(loss.reason.name(), loss.count),
            Step::Frame(candidate) => judge(device, law, &candidate, &mut checker),
        }
        if random.once_in(STEPS_PER_STALL) {
            stall(&mut random);
        }
    }
    checker.counts
}

fn judge(device: &Device, law: Law, candidate: &Candidate, checker: &mut Checker) {
    checker.count("candidates", 1);
    let from = (candidate.start, candidate.epoch);
    let Some(reading) = law.read(device, from, candidate.stamped) else { return };
    let time = reading.trailer.time;
    match reading.finish(device) {
        Ok(payload) => checker.frame(candidate.sequence, time, &payload),
        Err(refusal) => checker.count(refusal.name(), 1),
    }
}

/// When everything is read.
#[derive(Default)]
struct End {
    looks: u32,
    ended: bool,
}

impl End {
    fn note(&mut self, nothing: bool) {
        self.looks = if nothing && self.ended { self.looks + 1 } else { 0 };
    }

    fn is_reached(&mut self, watched: &Device, is_drained: impl FnOnce() -> bool) -> bool {
        // Whatever was complete when it was seen to have ended is read by looks behind that.
        self.ended = watched.has_ended();
        self.looks > LOOKS_MAX && is_drained()
    }
}
