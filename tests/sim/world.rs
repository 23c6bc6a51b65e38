//! A camera, a driver and its consumers in one thread, in the order that a seed says.

use std::ops::Range;
use std::sync::Arc;

use circbuf_driver::capture::{Capture, Captured, Origin};
use circbuf_driver::clock::Moment;
use circbuf_driver::slab::SlabPool;
use circbuf_driver::stats::Books;
use circbuf_driver::tail::{StartAt, Tail};
use circbuf_emulator::fault::{Fault, FaultKind, Faults, Tally, When};
use circbuf_emulator::fpga::Progress;
use circbuf_emulator::model::Gap;
use circbuf_tests::{GAPS, Random, SteppedCamera};

use crate::archivist::{Archivist, Finished};
use crate::consumer::Consumer;
use crate::payload::{Likeness, payload_like};
use crate::pointed::Pointed;
use crate::seeds::Counts;
use crate::told::Told;
use crate::truths::{Numbering, Promise, Truths};

const ACTIONS: u64 = 400;
const PAYLOAD_MAX: u64 = 900;

/// Frames that tell what is untold, at the end.
const LAST_FRAMES: u64 = 4;

/// Whoever archives.
enum Arch {
    Nobody,
    /// A consumer as any other, which can hang.
    Consumer(Consumer),
    Archivist(Box<Archivist>),
}

/// The simulation.
pub(crate) struct World {
    random: Random,
    camera: SteppedCamera,
    promise: Promise,
    pointed: Pointed,
    /// Looks at the pointer in time, always, at a camera that is never reset.
    diligent: bool,
    numbering: Numbering,
    likeness: &'static [Likeness],
    /// Of payloads, in bytes.
    lengths: Range<u64>,
    capture: Capture,
    pool: SlabPool,
    proc: Consumer,
    arch: Arch,
    now: Moment,
    /// Writes that the bus does not let through.
    stalled: u64,
    /// Follows from the books after every step.
    digest: u64,
}

impl World {
    pub(crate) fn of(seed: u64) -> World {
        let mut random = Random::of(seed);
        let ring_bytes = 4096 * (1 + random.below(3));
        let promise = random.one_of(&[
            Promise::Counted,
            Promise::Counted,
            Promise::Pointed,
            Promise::Pointed,
            Promise::Stamped,
            Promise::Books,
        ]);
        let pointed = promise == Promise::Pointed;
        let counted = promise == Promise::Counted || pointed;
        let stamped_gaps: &[Gap] = &[Gap::Zero, Gap::Late];
        let gap = random.one_of(if promise == Promise::Stamped { stamped_gaps } else { &GAPS });
        let always_stamped = promise == Promise::Stamped || pointed;
        let stamped = always_stamped || (counted && !random.once_in(3));
        let faults = (counted && random.once_in(2)).then(|| any_faults(stamped, &mut random));
        // A damaged frame beside a payload that looks like frames is told apart by nothing.
        let likeness: &[Likeness] = match faults.is_none() && counted && random.once_in(3) {
            true => &[Likeness::Plain, Likeness::Trailers, Likeness::Unescaped],
            false => &[Likeness::Plain],
        };
        let ring_bytes = ring_bytes * if faults.is_some() { 4 } else { 1 };
        let bytes_max = match &faults {
            None => PAYLOAD_MAX as u32,
            Some(faults) => faults.payload_bytes_max(PAYLOAD_MAX as u32, ring_bytes),
        };
        let mut camera = SteppedCamera::new(ring_bytes, bytes_max, gap, stamped);
        if let Some(faults) = &faults {
            camera = camera.with_faults(faults);
        }
        (0..random.below(40)).for_each(|_| camera.emit(1 + random.below(PAYLOAD_MAX) as usize));
        // What is old in a slot that is skipped cannot be told from what will be stamped.
        let ahead = faults.is_none() && gap != Gap::Skip && random.once_in(2);
        let pointer = Pointed::of(ahead);
        let diligent = pointed && random.once_in(2);
        let device = Arc::new(match pointed {
            true => pointer.device(&camera, bytes_max, Random::of(random.any())),
            false => camera.device(counted),
        });
        let start = random.one_of(&[StartAt::Newest, StartAt::Oldest]);
        let tail = Tail::attach(&device, start).unwrap();
        let pool = SlabPool::new((16 << 10) * (1 + random.below(8) as usize));
        let now = Moment::default();
        let (proc_outlet, proc) = Consumer::of(&mut random);
        // Frames that nothing is promised of would make an archive that does not verify.
        let archs = if promise == Promise::Books { 2 } else { 3 };
        let (arch_outlet, arch) = match random.below(archs) {
            0 => (None, Arch::Nobody),
            1 => {
                let (outlet, consumer) = Consumer::of(&mut random);
                (Some(outlet), Arch::Consumer(consumer))
            }
            _ => {
                let (outlet, archivist) = Archivist::of(&mut random, now);
                (Some(outlet), Arch::Archivist(Box::new(archivist)))
            }
        };
        // Equal and alike lengths, so that slots of one lap end where those of another do.
        let least = 2 + random.below(200);
        let (most, any) = (least + 60, 2..PAYLOAD_MAX + 1);
        let lengths = match random.below(4) {
            0 => least..least + 1,
            1 => least..most,
            _ => any,
        };
        let outlets = (proc_outlet, arch_outlet);
        let mut capture = Capture::new(device, tail, pool.clone(), Origin::default(), outlets);
        capture.set_follow_bytes(64 << random.below(8));
        World {
            random,
            camera,
            promise,
            pointed: pointer,
            diligent,
            numbering: Numbering::default(),
            likeness,
            lengths,
            capture,
            pool,
            proc,
            arch,
            now,
            stalled: 0,
            digest: 0,
        }
    }

    pub(crate) fn run(mut self) -> Counts {
        for _ in 0..ACTIONS {
            self.act();
            self.check();
        }
        self.finish();
        self.check();
        self.close()
    }

    fn act(&mut self) {
        match self.random.below(10) {
            0..4 => {
                self.write();
                if self.diligent {
                    self.capture();
                }
            }
            4..7 => drop(self.capture()),
            7 => {
                let truths = Truths::of(&self.camera, self.promise, &self.numbering);
                self.proc.take(&truths);
            }
            8 => self.proc.finish(&mut self.capture.books().proc),
            _ if self.may_be_reset() && self.random.once_in(20) => {
                self.camera.reset();
                self.pointed.note(&self.camera);
            }
            _ => self.archive(),
        }
    }

    fn archive(&mut self) {
        let truths = Truths::of(&self.camera, self.promise, &self.numbering);
        let mut books = self.capture.books();
        match &mut self.arch {
            Arch::Nobody => {}
            Arch::Consumer(consumer) => {
                consumer.take(&truths);
                if self.random.once_in(2) {
                    consumer.finish(&mut books.arch);
                }
            }
            Arch::Archivist(archivist) => {
                archivist.act(&mut self.random, self.now, &truths);
                archivist.enter(&mut books.arch);
            }
        }
    }

    fn write(&mut self) {
        if self.stalled > 0 {
            self.stalled -= 1;
            return;
        }
        // Now and then a lap or more without a look.
        let most = if !self.diligent && self.random.once_in(25) { 600 } else { 30 };
        let mut left = self.random.below(most);
        while (left > 0 || self.camera.is_sprinting()) && self.stalled == 0 {
            left = left.saturating_sub(1);
            if !self.camera.is_writing() {
                self.begin();
                self.stalled = self.camera.take_stall_ns() / 20_000_000;
            }
            self.camera.advance();
            self.pointed.chunk(&self.camera);
        }
    }

    fn begin(&mut self) {
        let likeness = self.random.one_of(self.likeness);
        let Range { start, end } = self.lengths;
        let length = (start + self.random.below(end - start)) as usize;
        let payload = payload_like(likeness, self.camera.begun(), length, &mut self.random);
        self.camera.begin_with(payload, likeness == Likeness::Unescaped);
    }

    fn capture(&mut self) -> Captured {
        let ns = 1 + self.random.below(40_000_000);
        self.now.monotonic_ns += ns;
        self.now.realtime_ns += ns;
        let now = self.now;
        // A bus and a ring so small are looked at in time by whoever comes soon.
        let is_late = !self.diligent && self.random.once_in(60);
        self.pointed.pass(if is_late { ns } else { ns / 1000 });
        let captured = self.capture.step(now, || now).unwrap();
        // A tail that comes too late for its first step begins anew, with lower numbers.
        let (next, until) = (self.capture.tail().sequence(), &self.numbering.until);
        until.set(if self.is_numbered() { next } else { next.min(until.get()) });
        captured
    }

    fn may_be_reset(&self) -> bool {
        self.promise != Promise::Stamped && !self.diligent
    }

    /// Whether the driver says how the camera numbers its frames. A pointer does not tell of a reset: if
    /// nobody looked between the last frames before it and it, nothing is known of them.
    fn is_numbered(&self) -> bool {
        let is_told = self.promise != Promise::Pointed || self.camera.fpga().epoch() == 0;
        is_told && self.capture.tail().is_exact()
    }

    /// What holds after every step.
    fn check(&mut self) {
        let books = self.capture.books();
        assert_eq!(books.detected, books.passed + books.torn + books.corrupt);
        assert_eq!(books.proc.expected, books.passed);
        assert!(books.proc.closes(), "{:?}", books.proc);
        assert!(books.arch.closes(), "{:?}", books.arch);
        assert_eq!(books.proc.in_flight, self.proc.holds(), "in the queue and in its hands");
        let (arch_expected, arch_holds) = match &self.arch {
            Arch::Nobody => (0, 0),
            Arch::Consumer(consumer) => (books.passed, consumer.holds()),
            Arch::Archivist(archivist) => (books.passed, archivist.holds()),
        };
        assert_eq!((books.arch.expected, books.arch.in_flight), (arch_expected, arch_holds));
        // A frame is in one slab, whoever holds it; the archive's is free once it is written.
        let arch_slabs = match &self.arch {
            Arch::Archivist(archivist) => archivist.queue.len() as u64,
            _ => arch_holds,
        };
        let slabs = self.pool.taken() as u64 - u64::from(self.capture.is_following());
        let (least, most) = (self.proc.holds().max(arch_slabs), self.proc.holds() + arch_slabs);
        assert!((least..=most).contains(&slabs), "{slabs} slabs for {least} to {most} frames");
        let seen =
            [books.detected, books.overrun, books.corrupt, books.proc.in_flight, books.arch.io];
        self.digest = seen.iter().fold(self.digest, |digest, &number| {
            (digest.rotate_left(5) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15)
        });
    }

    /// The camera ends, everything is read, and some frames more tell what is untold.
    fn finish(&mut self) {
        if self.camera.is_writing() {
            self.emit();
        }
        self.read_all();
        // Faults may strike the last frames, too; where they always do, losses may stay untold.
        for _ in 0..LAST_FRAMES {
            self.emit();
            self.read_all();
        }
    }

    fn emit(&mut self) {
        while self.camera.step(100) == Progress::Writing {
            self.pointed.chunk(&self.camera);
        }
        self.camera.end();
        self.pointed.note(&self.camera);
    }

    fn read_all(&mut self) {
        let ended = (0..2000).any(|_| {
            let captured = self.capture();
            // Nothing is overwritten any more, so that the stage waits for the consumers.
            self.consume();
            captured == Captured::Nothing && self.capture.is_drained()
        });
        assert!(ended, "it comes to an end: {:?}", self.capture.tail());
    }

    /// The consumers finish everything that waits for them.
    fn consume(&mut self) {
        let truths = Truths::of(&self.camera, self.promise, &self.numbering);
        let mut books = self.capture.books();
        while !self.proc.queue.is_empty() {
            self.proc.take(&truths);
        }
        self.proc.finish(&mut books.proc);
        match &mut self.arch {
            Arch::Nobody => {}
            Arch::Consumer(consumer) => {
                while !consumer.queue.is_empty() {
                    consumer.take(&truths);
                }
                consumer.finish(&mut books.arch);
            }
            Arch::Archivist(archivist) => {
                while !archivist.queue.is_empty() {
                    archivist.append(self.now, &truths);
                }
                archivist.enter(&mut books.arch);
            }
        }
    }

    fn close(mut self) -> Counts {
        assert_eq!(self.pool.taken(), 0, "all slabs are free");
        let truths = Truths::of(&self.camera, self.promise, &self.numbering);
        let expected = self.capture.expected();
        let books = self.capture.books();
        let arch = std::mem::replace(&mut self.arch, Arch::Nobody);
        let (arch_told, archived) = match arch {
            Arch::Nobody => (None, 0),
            Arch::Consumer(consumer) => (Some(consumer.told), 0),
            Arch::Archivist(archivist) => {
                let dies = self.random.once_in(3);
                let Finished { told, counters } = archivist.finish(dies, self.now, &truths);
                (Some(told), counters.frames_written)
            }
        };
        let mut counts = counts(&books, archived, self.digest);
        drop(books);
        if self.promise == Promise::Pointed {
            let how = if expected.is_some() { "pointed_exact" } else { "pointed_estimated" };
            counts.insert(how, 1);
        }
        if let Some(expected) = expected {
            counts.insert("refused_good", self.account(expected, arch_told.as_ref()));
        }
        let faults = self.camera.faults().into_iter().flat_map(Tally::by_kind);
        counts.extend(faults.map(|(kind, count)| (kind.name(), count)));
        counts
    }

    /// What became of each of the expected frames; how many were refused though they were good.
    fn account(&self, expected: u64, arch_told: Option<&Told>) -> u64 {
        let books = self.capture.books();
        assert_eq!(expected, books.detected + books.overrun, "exactly");
        let faults = self.camera.faults().into_iter().flat_map(Tally::by_kind);
        let stamped = self.camera.fpga().is_stamped();
        let of_faults: u64 = faults.map(|(kind, count)| count * price(kind, stamped)).sum();
        // A payload that imitates its own trailer, one chunk early and on a stamped ring with its own
        // length, cannot be told from a damaged frame: on a bare ring that costs what lies around it.
        let price = match (self.likeness.len() > 1, stamped) {
            (false, _) => of_faults,
            (true, true) => of_faults + 3,
            (true, false) => expected,
        };
        // The camera stands still while a frame is copied.
        assert!(books.torn == 0 || of_faults > 0, "{books:?}");
        let next = self.capture.tail().sequence();
        let numbers = next - expected..next;
        let ahead = self.numbering.ahead.get().unwrap_or(0);
        let is_good = |number: u64| {
            let truth = self.camera.truth(number.wrapping_add(ahead));
            truth.is_some_and(|truth| !truth.entry.damaged) && self.is_numbered()
        };
        let check =
            |told: &Told, account| told.check(numbers.clone(), &books, account, price > 0, is_good);
        let by_proc = check(&self.proc.told, &books.proc);
        let by_arch = arch_told.map_or(0, |told| check(told, &books.arch));
        let refused_good = by_proc.max(by_arch);
        assert!(
            refused_good <= price,
            "{refused_good} good frames, {:?}, {:?} of {:?}, stamped {stamped}, {} of {} corrupt",
            self.camera.faults(),
            self.likeness,
            self.lengths,
            books.corrupt,
            books.detected
        );
        refused_good
    }
}

/// Good frames that a fault may cost. On a bare ring, where a trailer or the pointer does not lead to
/// where a frame begins, frames are lost up to the next place that the counters told: at worst all that
/// lay in the ring when somebody looked. Headers tell the others, unless damaged frames lie side by
/// side.
fn price(kind: FaultKind, stamped: bool) -> u64 {
    match kind {
        FaultKind::Aborted
        | FaultKind::NoTrailer
        | FaultKind::BadTrailer
        | FaultKind::BitFlip
        | FaultKind::PointerOff => {
            if stamped {
                20
            } else {
                1000
            }
        }
        // A frame above `max_slot` leads nowhere.
        FaultKind::Sizes if !stamped => 1000,
        _ => 2,
    }
}

/// One or more kinds of faults, rare or frequent.
fn any_faults(stamped: bool, random: &mut Random) -> Faults {
    let can_be = |kind: &FaultKind| {
        let fault = Fault { kind: *kind, when: When::Every(1) };
        Faults { seed: 0, faults: vec![fault] }.check(stamped).is_ok()
    };
    let kinds: Vec<FaultKind> = FaultKind::ALL.into_iter().filter(can_be).collect();
    let kinds = match random.below(3) {
        0 => kinds,
        _ => vec![random.one_of(&kinds)],
    };
    let rate = random.one_of(&[0.01, 0.03, 0.1]) / kinds.len() as f64;
    let faults = kinds.into_iter().map(|kind| Fault { kind, when: When::Rate(rate) }).collect();
    Faults { seed: random.any(), faults }
}

fn counts(books: &Books, archived: u64, digest: u64) -> Counts {
    Counts::from([
        ("passed", books.passed),
        ("overrun", books.overrun),
        ("corrupt", books.corrupt),
        ("no_slab", books.proc.no_slab),
        ("queue_full", books.proc.queue_full),
        ("io", books.arch.io),
        ("archived", archived),
        ("digest", digest),
    ])
}
