//! The law itself on a bench: while a frame is held, copied and judged, the writer goes on between
//! any two chunks. The real law and its naive twin have to agree, and the twin without one of its
//! points has to be found out.

use circbuf_driver::device::Device;
use circbuf_driver::loss::Refusal;
use circbuf_driver::record::{PAYLOAD_OFFSET, frame_body_bytes, record_bytes};
use circbuf_driver::slab::SlabPool;
use circbuf_driver::tail::{StartAt, Step, Tail};
use circbuf_driver::validate::{Candidate, copy_and_check};
use circbuf_emulator::model::Gap;
use circbuf_tests::{GAPS, Random, SteppedCamera};

use crate::law::{Law, Point, Reading};
use crate::payload::{Likeness, payload_like};
use crate::pointed::Pointed;
use crate::seeds::Counts;

const RING: u64 = 4096;
const CHUNKS: u64 = RING / 32;
const PAYLOAD_MAX: u64 = 900;
const ROUNDS: u64 = 8;

/// Frames that were wrong, and delivered where one point of the law was left out.
const DECEIVED: [&str; 4] = ["without_bounds", "without_content", "without_marks", "without_reach"];

/// A ring of one kind and whoever reads it.
pub(crate) struct Bench {
    random: Random,
    camera: SteppedCamera,
    device: Device,
    tail: Tail,
    pool: SlabPool,
    stamped: bool,
    /// Where there is a pointer and no counters.
    pointed: Option<Pointed>,
    /// Length of every payload, if all are equal: the frames of a lap start where those of the last
    /// one did.
    equal: Option<usize>,
    likeness: &'static [Likeness],
    counts: Counts,
}

impl Bench {
    pub(crate) fn of(seed: u64) -> Bench {
        let mut random = Random::of(seed);
        let counted = !random.once_in(4);
        let pointed = counted && random.once_in(3);
        // Without counters, only a stamp in a gap that is zeroed is a promise.
        let gap = random.one_of(if counted { &GAPS } else { &[Gap::Zero, Gap::Late] });
        let stamped = !counted || pointed || !random.once_in(3);
        let likeness: &[Likeness] = match counted {
            true => &[Likeness::Plain, Likeness::Trailers, Likeness::Trailers, Likeness::Unescaped],
            false => &[Likeness::Plain, Likeness::Trailers],
        };
        let equal = random.once_in(2).then(|| random.one_of(&[60, 200, 440]));
        // The smaller the largest frame, the longer a pointer is believed.
        let bytes_max = equal.filter(|_| pointed).map_or(PAYLOAD_MAX as u32, |equal| equal as u32);
        let mut camera = SteppedCamera::new(RING, bytes_max, gap, stamped);
        while camera.fpga().cursor() < RING + RING / 2 {
            camera.emit(equal.unwrap_or(333));
        }
        let pointed = pointed.then(|| Pointed::of(gap != Gap::Skip && random.once_in(2)));
        let device = match &pointed {
            Some(pointed) => pointed.device(&camera, bytes_max, Random::of(random.any())),
            None => camera.device(counted),
        };
        let tail = Tail::attach(&device, StartAt::Newest).unwrap();
        let (pool, counts) = (SlabPool::new(64 << 10), DECEIVED.map(|name| (name, 0)).into());
        Bench { random, camera, device, tail, pool, stamped, pointed, equal, likeness, counts }
    }

    pub(crate) fn run(mut self) -> Counts {
        for _ in 0..ROUNDS {
            let steps = self.random.below(60);
            self.write(steps);
            let is_told = self.device.registers().is_some() || self.pointed.is_some();
            if self.random.once_in(12) && is_told {
                self.camera.reset();
                self.pointed.iter().for_each(|pointed| pointed.note(&self.camera));
            }
            self.settle();
            for _ in 0..12 {
                match self.tail.poll(&self.device).unwrap() {
                    Step::Frame(candidate) => self.judge(&candidate),
                    Step::Lost(_) => {}
                    Step::Idle => break,
                }
            }
        }
        self.counts
    }

    /// Lets the writer do so many steps.
    fn write(&mut self, steps: u64) {
        for _ in 0..steps {
            if !self.camera.is_writing() {
                let likeness = self.random.one_of(self.likeness);
                let length = self.equal.unwrap_or(2 + self.random.below(PAYLOAD_MAX - 1) as usize);
                let number = self.camera.begun();
                let payload = payload_like(likeness, number, length, &mut self.random);
                self.camera.begin_with(payload, likeness == Likeness::Unescaped);
            }
            self.camera.advance();
            if let Some(pointed) = &self.pointed {
                pointed.chunk(&self.camera);
            }
        }
    }

    /// Looks at a pointer, and waits until the last header has stood for long enough.
    fn settle(&mut self) {
        if let Some(pointed) = &self.pointed {
            self.tail.glance(&self.device);
            pointed.pass(60_000);
        }
    }

    /// Steps that the writer does while a frame is held: mostly few, or about a lap; of a pointer, about
    /// as many as it is believed for.
    fn haste(&mut self) -> u64 {
        match (self.random.below(4), &self.pointed) {
            (0, _) => 0,
            (1, _) => self.random.below(40),
            (_, Some(_)) => 40 + self.random.below(CHUNKS - 40),
            (_, None) => CHUNKS - 40 + self.random.below(60),
        }
    }

    fn judge(&mut self, candidate: &Candidate) {
        let from = (candidate.start, candidate.epoch);
        let Some(whole) = Law::WHOLE.read(&self.device, from, self.stamped) else {
            // A reset that nobody told of leaves old frames, the first of them without a header.
            assert!(self.pointed.is_some() && self.verdict(candidate).is_err(), "{candidate:?}");
            return self.count("refused");
        };
        assert_eq!(whole.trailer, candidate.trailer, "both find the same frame");
        let at_once = whole.clone();
        let lacking = Point::ALL
            .map(|point| Law { without: Some(point) }.read(&self.device, from, self.stamped));
        let mut readings = [Some(whole)].into_iter().chain(lacking).collect::<Vec<_>>();
        self.copy_while_written(&mut readings);

        let real = self.verdict(candidate);
        assert_eq!(at_once.finish(&self.device), real, "the twin and the law: {candidate:?}");
        let good = real.as_ref().is_ok_and(|payload| self.is_true(candidate, payload));
        assert_eq!(good, real.is_ok(), "what the law delivers is true: {candidate:?}");
        self.count(if good { "accepted" } else { "refused" });
        for (place, reading) in readings.into_iter().enumerate() {
            let Some(reading) = reading else { continue };
            let Ok(payload) = reading.finish(&self.device) else { continue };
            if self.is_true(candidate, &payload) {
                continue;
            }
            let point = place.checked_sub(1).expect("the twin with all its points was deceived");
            self.count(DECEIVED[point]);
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Copies a few chunks at a time, and the writer goes on between.
    fn copy_while_written(&mut self, readings: &mut [Option<Reading>]) {
        let mut steps = self.haste();
        while steps > 0 {
            let now = 1 + self.random.below(steps);
            let chunks = self.random.below(8);
            self.write(now);
            steps -= now;
            for reading in readings.iter_mut().flatten() {
                reading.copy(&self.device, chunks);
            }
        }
    }

    /// What the real law says, by the driver's own copy.
    fn verdict(&self, candidate: &Candidate) -> Result<Vec<u8>, Refusal> {
        let length = candidate.trailer.length;
        let mut slab = self.pool.take(record_bytes(frame_body_bytes(length))).unwrap();
        copy_and_check(&self.device, candidate, &mut slab).map_err(|refused| refused.refusal)?;
        Ok(slab[PAYLOAD_OFFSET..][..length as usize].to_vec())
    }

    fn is_true(&self, candidate: &Candidate, payload: &[u8]) -> bool {
        let truth = self.camera.truth_at(candidate.trailer.time).unwrap();
        let is_there = truth.entry.offset == candidate.start % RING;
        truth.is_lawful() && truth.payload == payload && is_there
    }
}
