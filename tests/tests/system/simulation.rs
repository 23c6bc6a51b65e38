//! Random schedules of writer, capture and consumers in one thread: the books close after every
//! step, and at the end every frame is accounted for.

use std::sync::Arc;

use circbuf_driver::capture::{Capture, Captured, Origin};
use circbuf_driver::clock::Moment;
use circbuf_driver::dispatch::{Delivery, Inlet, Outlet};
use circbuf_driver::policy::{Policy, Take, WhenFull};
use circbuf_driver::slab::SlabPool;
use circbuf_driver::stats::{Account, Books};
use circbuf_driver::tail::{StartAt, Tail};
use circbuf_emulator::fpga::Progress;
use circbuf_tests::{GAPS, Random, SteppedCamera};

const SEEDS: u64 = 400;
const ACTIONS: u64 = 500;
const PAYLOAD_MAX: u64 = 900;

/// A consumer that takes what it is given when it is asked to, and keeps it for a while.
struct Consumer {
    queue: Inlet,
    policy: Policy,
    in_hands: Vec<Delivery>,
    next_sequence: u64,
    delivered: u64,
    told_lost: u64,
}

impl Consumer {
    fn of(random: &mut Random) -> (Outlet, Consumer) {
        let takes = [Take::Every, Take::Nth(3.try_into().unwrap()), Take::Fps(30.0)];
        let gives_way = [WhenFull::DropNewest, WhenFull::DropOldest, WhenFull::LatestOnly];
        let policy = Policy { take: random.one_of(&takes), when_full: random.one_of(&gives_way) };
        let (outlet, queue) = Outlet::new(policy, 1 + random.below(6) as usize);
        let in_hands = Vec::new();
        let (next_sequence, delivered, told_lost) = (0, 0, 0);
        (outlet, Consumer { queue, policy, in_hands, next_sequence, delivered, told_lost })
    }

    fn take(&mut self, camera: &SteppedCamera) {
        let Ok(delivery) = self.queue.try_recv() else { return };
        let frame = &delivery.frame;
        assert!(frame.sequence() >= self.next_sequence, "order: {}", frame.sequence());
        self.next_sequence = frame.sequence() + 1;
        self.told_lost += delivery.lost.frames();
        let truth = camera.truth(frame.sequence()).expect("a frame that was written");
        assert_eq!(frame.payload(), truth.payload, "frame {}", frame.sequence());
        let (time, header) = (frame.time(), frame.record_header());
        assert_eq!((time.sec, time.usec), (truth.time.sec, truth.time.usec));
        assert_eq!((header.epoch, header.cursor), (truth.epoch, truth.start));
        assert_eq!(frame.geometry().quality2, 0x5050, "stamped or from the register page");
        self.in_hands.push(delivery);
    }

    /// Is done with what it has in its hands.
    fn finish(&mut self, account: &mut Account) {
        // The slabs are free before the books say so.
        let frames = self.in_hands.drain(..).count() as u64;
        self.delivered += frames;
        account.deliver(frames);
    }
}

struct Simulation {
    random: Random,
    camera: SteppedCamera,
    capture: Capture,
    proc: Consumer,
    arch: Option<Consumer>,
    ticks_ns: u64,
}

impl Simulation {
    fn of(seed: u64) -> Simulation {
        let mut random = Random::of(seed);
        let ring_bytes = 4096 * (1 + random.below(3));
        let (gap, stamped) = (random.one_of(&GAPS), !random.once_in(3));
        let mut camera = SteppedCamera::new(ring_bytes, PAYLOAD_MAX as u32, gap, stamped);
        (0..random.below(40)).for_each(|_| camera.emit(1 + random.below(PAYLOAD_MAX) as usize));
        let device = Arc::new(camera.device(true));
        let start = random.one_of(&[StartAt::Newest, StartAt::Oldest]);
        let tail = Tail::attach(&device, start).unwrap();
        let pool = SlabPool::new((16 << 10) * (1 + random.below(8) as usize));
        let (proc_outlet, proc) = Consumer::of(&mut random);
        let (arch_outlet, arch) = random.once_in(2).then(|| Consumer::of(&mut random)).unzip();
        let outlets = (proc_outlet, arch_outlet);
        let capture = Capture::new(device, tail, pool, Origin::default(), outlets);
        Simulation { random, camera, capture, proc, arch, ticks_ns: 0 }
    }

    fn run(mut self) -> Books {
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
            0..4 => self.write(),
            4..7 => drop(self.capture()),
            7 => self.proc.take(&self.camera),
            8 => self.proc.finish(&mut self.capture.books().proc),
            _ if self.random.once_in(20) => self.camera.reset(),
            _ => {
                let Some(arch) = &mut self.arch else { return };
                arch.take(&self.camera);
                if self.random.once_in(2) {
                    arch.finish(&mut self.capture.books().arch);
                }
            }
        }
    }

    fn write(&mut self) {
        // Now and then a lap or more without a look.
        let most = if self.random.once_in(12) { 600 } else { 30 };
        for _ in 0..self.random.below(most) {
            let length = 1 + self.random.below(PAYLOAD_MAX) as usize;
            self.camera.step(length);
        }
    }

    fn capture(&mut self) -> Captured {
        self.ticks_ns += 1;
        let now = Moment { monotonic_ns: self.ticks_ns, realtime_ns: self.ticks_ns };
        self.capture.step(now, || now).unwrap()
    }

    fn check(&mut self) {
        let books = self.capture.books();
        assert_eq!(books.detected, books.passed + books.torn + books.corrupt);
        assert_eq!(books.proc.expected, books.passed);
        assert!(books.proc.closes(), "{:?}", books.proc);
        let held = self.proc.in_hands.len() + self.proc.queue.len();
        assert_eq!(books.proc.in_flight, held as u64, "in the queue and in its hands");
        assert_eq!(books.corrupt, 0, "the camera writes nothing that is no frame");
        assert!(books.arch.closes(), "{:?}", books.arch);
        if self.arch.is_some() {
            assert_eq!(books.arch.expected, books.passed);
        }
    }

    /// The camera ends, everything is read, and one frame more tells what is untold.
    fn finish(&mut self) {
        for last in [false, true] {
            if last || self.camera.is_writing() {
                while self.camera.step(100) == Progress::Writing {}
            }
            self.camera.end();
            let ended = (0..1000).any(|_| {
                let captured = self.capture();
                // Nothing is overwritten any more, so that the stage waits for the consumers.
                self.consume();
                captured == Captured::Nothing && self.capture.is_drained()
            });
            assert!(ended, "it comes to an end: {:?}", self.capture.tail());
        }
    }

    /// The consumers finish everything that waits for them.
    fn consume(&mut self) {
        for consumer in [Some(&mut self.proc), self.arch.as_mut()].into_iter().flatten() {
            while !consumer.queue.is_empty() {
                consumer.take(&self.camera);
            }
        }
        self.proc.finish(&mut self.capture.books().proc);
        if let Some(arch) = &mut self.arch {
            arch.finish(&mut self.capture.books().arch);
        }
    }

    fn close(self) -> Books {
        let expected = self.capture.expected().unwrap();
        let mut books = self.capture.books();
        assert_eq!(expected, books.detected + books.overrun, "exactly");
        let accounts = [(Some(self.proc), books.proc), (self.arch, books.arch)];
        for (consumer, account) in accounts {
            let Some(consumer) = consumer else { continue };
            assert_eq!((account.delivered, account.in_flight), (consumer.delivered, 0));
            if consumer.policy.take == Take::Every {
                // Every frame that it was not given was told to it as lost.
                assert_eq!(expected, consumer.delivered + consumer.told_lost);
            }
        }
        std::mem::take(&mut *books)
    }
}

#[test]
fn random_schedules_keep_the_books_and_the_truth() {
    let (mut passed, mut overrun, mut no_slab, mut queue_full) = (0, 0, 0, 0);
    for seed in 0..SEEDS {
        println!("seed {seed}");
        let books = Simulation::of(seed).run();
        passed += books.passed;
        overrun += books.overrun;
        no_slab += books.proc.no_slab;
        queue_full += books.proc.queue_full;
    }
    // The schedules reach what they are made for.
    let reached = [passed, overrun, no_slab, queue_full];
    assert!(reached.iter().all(|&frames| frames > SEEDS), "{reached:?}");
}
