//! Frames on their way from the capturing thread to consumers that take them on threads of their own, or on
//! that same thread.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use circbuf_driver::capture::{Capture, Captured, Origin};
use circbuf_driver::clock::Moment;
use circbuf_driver::device::Device;
use circbuf_driver::dispatch::{Delivery, Inlet, NoDelivery, Outlet};
use circbuf_driver::pipeline::{Options, Pipeline, PipelineError, Processor};
use circbuf_driver::slab::SlabPool;
use circbuf_driver::tail::{StartAt, Tail};
use circbuf_emulator::model::Gap;
use circbuf_tests::{Random, SteppedCamera};

const FRAMES: u64 = 20_000;

fn capture(camera: &SteppedCamera, outlets: (Outlet, Option<Outlet>)) -> Capture {
    let device = Arc::new(camera.device(true));
    let tail = Tail::attach(&device, StartAt::Newest).unwrap();
    Capture::new(device, tail, SlabPool::new(1 << 20), Origin::default(), outlets)
}

fn camera() -> SteppedCamera {
    SteppedCamera::new(64 << 10, 900, Gap::Zero, true)
}

/// What consumers were given: numbers of frames, and of those that they were told are missing.
#[derive(Debug, Default)]
struct Given {
    frames: BTreeSet<u64>,
    missing: BTreeSet<u64>,
}

impl Given {
    fn take(&mut self, delivery: &Delivery) {
        for loss in delivery.lost.iter() {
            let numbers = loss.sequence..loss.sequence + loss.count;
            numbers.for_each(|number| assert!(self.missing.insert(number), "told once"));
        }
        assert!(self.frames.insert(delivery.frame.sequence()), "given once");
    }
}

/// Takes frames until none will come: by spinning or sleeping, as the dice fall.
fn consume(inlet: &Inlet, seed: u64, is_alone: bool) -> Given {
    let (mut given, mut random, mut next) = (Given::default(), Random::of(seed), 0);
    loop {
        let taken = match random.below(3) {
            0 => inlet.recv().ok_or(NoDelivery::EverAgain),
            1 => inlet.recv_timeout(std::time::Duration::from_micros(random.below(100))),
            _ => inlet.try_recv(),
        };
        match taken {
            Ok(delivery) => {
                given.take(&delivery);
                let number = delivery.frame.sequence();
                assert!(!is_alone || number == next + delivery.lost.frames(), "no hole, in order");
                next = number + 1;
            }
            Err(NoDelivery::Yet) => std::hint::spin_loop(),
            Err(NoDelivery::EverAgain) => return given,
        }
    }
}

#[test]
fn every_frame_is_given_or_told_as_missing_once_whoever_takes_it_back_meanwhile() {
    let policies = ["every:drop-newest", "every:drop-oldest", "every:latest-only"];
    for (seed, (policy, consumers)) in policies.iter().flat_map(|p| [(p, 1), (p, 2)]).enumerate() {
        println!("seed {seed}, {policy}, {consumers} consumers");
        let mut camera = camera();
        let (outlet, inlet) = Outlet::new(policy.parse().unwrap(), 3);
        let mut capture = capture(&camera, (outlet, None));
        let threads: Vec<_> = (0..consumers)
            .map(|number| {
                let inlet = inlet.clone();
                std::thread::spawn(move || consume(&inlet, seed as u64 + number, consumers == 1))
            })
            .collect();
        for _ in 0..FRAMES {
            camera.emit(64);
            let captured = capture.step(Moment::default(), Moment::default).unwrap();
            assert_eq!(captured, Captured::Frame);
        }
        let dropped = capture.books().proc.queue_full;
        drop(capture);
        let mut all = Given::default();
        for mut given in threads.into_iter().map(|thread| thread.join().unwrap()) {
            all.frames.append(&mut given.frames);
            all.missing.append(&mut given.missing);
        }
        assert!(all.frames.is_disjoint(&all.missing), "given or missing");
        assert_eq!(all.frames.len() as u64 + dropped, FRAMES, "seed {seed}");
        // Those that nothing followed stay untold.
        let untold = FRAMES - (all.frames.len() + all.missing.len()) as u64;
        let last = all.frames.last().copied().unwrap_or(0);
        assert!(untold <= FRAMES - 1 - last, "{untold} untold behind frame {last}, seed {seed}");
    }
}

#[test]
fn a_processor_inline_is_done_with_the_frame_that_the_archive_already_has() {
    let mut camera = camera();
    let (arch, archived) = Outlet::new("every".parse().unwrap(), 4);
    let given = Arc::new(Mutex::new(Given::default()));
    let (noted, waiting) = (Arc::clone(&given), archived.clone());
    let processor: Processor = Box::new(move |delivery: &Delivery| {
        assert_eq!(waiting.len(), 1, "the archive need not wait for this thread");
        noted.lock().unwrap().take(delivery);
    });
    let proc = Outlet::inline("nth=3".parse().unwrap(), processor);
    let mut capture = capture(&camera, (proc, Some(arch)));
    for number in 0..300 {
        camera.emit(64);
        capture.step(Moment::default(), Moment::default).unwrap();
        assert_eq!(archived.try_recv().unwrap().frame.sequence(), number);
        let books = capture.books();
        assert!(books.proc.closes() && books.arch.closes());
        assert_eq!((books.proc.delivered, books.proc.in_flight), (number / 3 + 1, 0));
        assert_eq!((books.proc.expected, books.proc.policy), (number + 1, number - number / 3));
    }
    let given = given.lock().unwrap();
    assert_eq!(given.frames, (0..300).step_by(3).collect());
    assert_eq!(given.missing, BTreeSet::new(), "what a policy leaves out is no loss");
}

#[test]
fn a_processor_inline_is_told_what_the_ring_lost() {
    let mut camera = camera();
    let given = Arc::new(Mutex::new(Given::default()));
    let noted = Arc::clone(&given);
    let processor: Processor = Box::new(move |delivery| noted.lock().unwrap().take(delivery));
    let proc = Outlet::inline("every".parse().unwrap(), processor);
    let mut capture = capture(&camera, (proc, None));
    // Some laps without a look.
    (0..3000).for_each(|_| camera.emit(64));
    while capture.step(Moment::default(), Moment::default).unwrap() != Captured::Nothing {}
    let given = given.lock().unwrap();
    assert!(given.missing.len() > 1000 && given.frames.len() > 100);
    assert_eq!(given.missing.iter().chain(&given.frames).copied().collect::<Vec<_>>(), {
        (0..3000).collect::<Vec<_>>()
    });
}

#[test]
fn several_processors_cannot_run_inline() {
    let camera = camera();
    let options = Options { inline: true, ..Options::default() };
    let device = || -> Device { camera.device(true) };
    let nothing = || -> Processor { Box::new(|_| {}) };
    let refused = Pipeline::start(device(), vec![nothing(), nothing()], None, &options);
    assert!(matches!(refused, Err(PipelineError::Inline { processors: 2 })), "{refused:?}");
    drop(Pipeline::start(device(), vec![nothing()], None, &options).unwrap());
    drop(Pipeline::start(device(), Vec::new(), None, &options).unwrap());
}
