//! In steady state a frame costs no allocation and no page fault, neither on the capturing thread nor on a
//! worker's. What the system calls are is shown by `scripts/check-steady.sh`.

#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs::read_to_string;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use circbuf_driver::device::Device;
use circbuf_driver::dispatch::Delivery;
use circbuf_driver::pipeline::{Channel, Options, Pipeline, Processor};
use circbuf_driver::wait::Wait;
use circbuf_emulator::camera::{self, Camera, Limit};
use circbuf_emulator::model::Model;
use circbuf_emulator::pace::Pace;
use circbuf_emulator::ring_file::RingFile;
use circbuf_emulator::source::{Source, SourceOptions};
use nix::unistd::gettid;

/// Frames after which everything has been touched: the ring, the slabs and the queue.
const WARM: u64 = 20_000;

/// Frames that are counted for.
const STEADY: u64 = 100_000;

/// Frames behind them, so that no thread has come to its end before.
const MORE: u64 = 1000;

/// What may happen once in a run, as a page of the program that is touched for the first time.
const ONCE: u64 = STEADY / 1000;

const THREADS: usize = 256;

/// Allocations of each thread that ever allocated, in the order in which they began.
static ALLOCATIONS: [AtomicU64; THREADS] = [const { AtomicU64::new(0) }; THREADS];
/// The system's numbers for them.
static TIDS: [AtomicU64; THREADS] = [const { AtomicU64::new(0) }; THREADS];
static BEGUN: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static PLACE: Cell<usize> = const { Cell::new(usize::MAX) };
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn count() {
    // A thread that ends allocates no more that counts.
    let _ending = PLACE.try_with(|place| {
        if place.get() == usize::MAX {
            place.set(BEGUN.fetch_add(1, Ordering::Relaxed));
            TIDS[place.get()].store(gettid().as_raw() as u64, Ordering::Relaxed);
        }
        ALLOCATIONS[place.get()].fetch_add(1, Ordering::Relaxed);
    });
}

#[allow(unsafe_code)]
// SAFETY: every call goes to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the same, and the block came from the system's allocator.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is the same, and the block came from the system's allocator.
        unsafe { System.realloc(at, layout, bytes) }
    }
}

/// What the threads of this name have cost so far: allocations and page faults.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Cost {
    allocations: u64,
    faults: u64,
}

impl Cost {
    fn of(name: &str) -> Cost {
        let threads = BEGUN.load(Ordering::Relaxed);
        let costs = (0..threads).filter_map(|place| {
            let task = format!("/proc/self/task/{}", TIDS[place].load(Ordering::Relaxed));
            // A thread that has ended has no name.
            let is_named = read_to_string(format!("{task}/comm")).ok()?.trim_end() == name;
            let stat = is_named.then(|| read_to_string(format!("{task}/stat")).ok())??;
            // Behind the name, which may hold anything: state, six numbers, minor faults, .., major.
            let fields: Vec<&str> = stat[stat.rfind(')')? + 2..].split(' ').collect();
            let faults = fields[7].parse::<u64>().ok()? + fields[9].parse::<u64>().ok()?;
            Some((ALLOCATIONS[place].load(Ordering::Relaxed), faults))
        });
        costs.fold(Cost::default(), |sum, (allocations, faults)| Cost {
            allocations: sum.allocations + allocations,
            faults: sum.faults + faults,
        })
    }

    fn since(self, earlier: Cost) -> Cost {
        Cost {
            allocations: self.allocations - earlier.allocations,
            faults: self.faults - earlier.faults,
        }
    }
}

/// What threads of these names cost between two frames of a run that a processor sees all of. To look
/// costs the looking thread something itself, which is not counted.
struct Watch {
    names: &'static [&'static str],
    begin: Vec<Cost>,
    steady: Vec<Cost>,
}

impl Watch {
    fn look(&mut self, number: u64) {
        let costs = || self.names.iter().map(|name| Cost::of(name)).collect::<Vec<_>>();
        if number == WARM {
            // The first look makes room for what a look costs.
            drop(costs());
            self.begin = costs();
        } else if number == WARM + STEADY {
            let end = costs();
            let looked = costs();
            let both = end.iter().zip(&looked);
            // The second look of the beginning and this first one cost the same.
            let steady = both.zip(&self.begin).map(|((end, looked), begin)| {
                let look = looked.since(*end).allocations;
                let cost = end.since(*begin);
                Cost { allocations: cost.allocations.saturating_sub(look), faults: cost.faults }
            });
            self.steady = steady.collect();
        }
    }
}

fn camera(credit: Option<Arc<AtomicU64>>) -> Camera {
    const RING_BYTES: u64 = 256 << 10;
    let source = Source::open(&"noise:1024".parse().unwrap(), &SourceOptions::default()).unwrap();
    let mut options = camera::Options::of(Model::Custom { ring_bytes: RING_BYTES });
    options.pace = Pace::UNPACED;
    options.limit = Limit { frames: Some(WARM + STEADY + MORE), time: None };
    options.credit = credit;
    Camera::new(RingFile::memfd(RING_BYTES).unwrap(), source, options).unwrap()
}

/// Runs a pipeline for each channel over all frames, with one thread that captures; what the threads cost
/// in steady state of the first channel.
fn steady(channels: usize, inline: bool, names: &'static [&'static str]) -> Vec<Cost> {
    let watch = Arc::new(Mutex::new(Watch { names, begin: Vec::new(), steady: Vec::new() }));
    let mut watching = Some(Arc::clone(&watch));
    let (mut cameras, mut driven) = (Vec::new(), Vec::new());
    for _ in 0..channels {
        let credit = Some(Arc::default());
        let camera = camera(credit.clone());
        let ring = camera.ring();
        let device = Device::from_fds(ring.ring_fd(), Some(ring.registers_fd())).unwrap();
        let mut options = Options { credit, inline, wait: Wait::Spin, ..Options::default() };
        options.proc.policy = "every".parse().unwrap();
        options.proc.queue_frames = 8;
        let watching = watching.take();
        let processor: Processor = Box::new(move |delivery: &Delivery| {
            let Some(watch) = &watching else { return };
            watch.lock().unwrap().look(delivery.frame.sequence());
        });
        driven.push(Channel { device, processors: vec![processor], archive: None, options });
        cameras.push(camera);
    }
    let pipelines = Pipeline::start_several(driven).unwrap();
    let cameras: Vec<_> = cameras.into_iter().map(|camera| camera.spawn().unwrap()).collect();
    for (pipeline, camera) in pipelines.into_iter().zip(cameras) {
        let finished = pipeline.join();
        camera.join().unwrap();
        finished.snapshot.check_balance().unwrap();
        assert_eq!(finished.snapshot.consumers.proc.delivered, WARM + STEADY + MORE);
    }
    let watch = watch.lock().unwrap();
    assert_eq!(watch.steady.len(), names.len(), "both looks were taken");
    watch.steady.clone()
}

// One test: threads are told apart by their names.
#[test]
fn a_frame_costs_no_allocation_and_no_page_fault() {
    let mut costs = steady(1, true, &["capture"]);
    costs.extend(steady(1, false, &["capture", "proc"]));
    costs.extend(steady(2, true, &["capture"]));
    let names =
        ["capture with the processor inline", "capture", "proc", "capture of two channels inline"];
    for (cost, name) in costs.iter().zip(names) {
        println!("{name}: {cost:?} in {STEADY} frames");
    }
    let is_free = |cost: &Cost| cost.allocations.max(cost.faults) <= ONCE;
    assert!(costs.iter().all(is_free), "frames cost memory: see above");
}
