//! From the tail to a worker that waits, one frame at a time on a ring that was filled beforehand, against
//! what a notification between two cores costs at least: a spin on a shared cache line, and an eventfd.
//!
//! `cargo bench -p circbuf-driver --bench handoff [ROUNDS]`, with two idle cores at least.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::scope;

use circbuf_abi::registers as reg;
use circbuf_driver::capture::{Capture, Captured, Origin};
use circbuf_driver::clock::Moment;
use circbuf_driver::device::Device;
use circbuf_driver::dispatch::{Delivery, Inlet, NoDelivery, Outlet, Processor};
use circbuf_driver::slab::SlabPool;
use circbuf_driver::tail::{StartAt, Tail};
use nix::sys::eventfd::EventFd;
use nix::time::{ClockId, clock_gettime};

const FRAMES: u64 = 2000;
const SLOT_BYTES: u64 = 1088;
const RING_BYTES: u64 = (FRAMES + 2).next_multiple_of(4096) * SLOT_BYTES;

/// Frames of a round in which somebody has to fall asleep before each.
const SLEEPS: u64 = 200;

/// How long that takes at most.
const ASLEEP_NS: u64 = 150_000;

/// What one thread tells the other, on a cache line of its own.
#[derive(Default)]
#[repr(align(128))]
struct Line(AtomicU64);

fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

fn median(mut values: Vec<u64>) -> f64 {
    values.sort_unstable();
    values[values.len() / 2] as f64
}

fn spin_for(ns: u64) {
    let end_ns = now_ns() + ns;
    while now_ns() < end_ns {
        std::hint::spin_loop();
    }
}

/// When the other thread had it.
fn answer(taken: &Line) -> u64 {
    loop {
        match taken.0.swap(0, Ordering::Acquire) {
            0 => std::hint::spin_loop(),
            at_ns => return at_ns,
        }
    }
}

/// Time from here to there by a store that the other thread spins on.
fn raw_spin() -> f64 {
    let (line, taken) = (Line::default(), Line::default());
    let one_way = |number| {
        spin_for(1000);
        let from_ns = now_ns();
        line.0.store(number, Ordering::Release);
        answer(&taken) - from_ns
    };
    scope(|threads| {
        threads.spawn(|| {
            for number in 1..=FRAMES {
                while line.0.load(Ordering::Acquire) != number {
                    std::hint::spin_loop();
                }
                taken.0.store(now_ns(), Ordering::Release);
            }
        });
        median((1..=FRAMES).map(one_way).collect())
    })
}

/// Time from here to there by an eventfd on which the other thread sleeps.
fn raw_eventfd() -> f64 {
    let (event, taken) = (EventFd::new().unwrap(), Line::default());
    let one_way = |_| {
        spin_for(ASLEEP_NS);
        let from_ns = now_ns();
        event.write(1).unwrap();
        answer(&taken) - from_ns
    };
    scope(|threads| {
        threads.spawn(|| {
            for _ in 0..SLEEPS {
                event.read().unwrap();
                taken.0.store(now_ns(), Ordering::Release);
            }
        });
        median((0..SLEEPS).map(one_way).collect())
    })
}

/// A ring that was filled beforehand.
struct Ring {
    ring: File,
    page: File,
}

impl Ring {
    fn new() -> Ring {
        let (ring, page) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        ring.set_len(RING_BYTES).unwrap();
        page.set_len(reg::PAGE_BYTES as u64).unwrap();
        let told = Ring { ring, page };
        told.tell(reg::MAGIC, reg::MAGIC_VALUE);
        told.tell(reg::VERSION, u64::from(reg::VERSION_VALUE));
        told.tell(reg::RING_BYTES, RING_BYTES);
        told.tell(reg::MAX_SLOT_BYTES, RING_BYTES / 4);
        told.tell(reg::FLAGS, 0);
        for number in 0..FRAMES {
            let mut slot = vec![0x11; SLOT_BYTES as usize];
            slot[1032..].fill(0);
            slot[1044..1048].copy_from_slice(&(1000 + number as u32).to_le_bytes());
            slot[1048..1052].copy_from_slice(&7u32.to_le_bytes());
            slot[1052..1056].copy_from_slice(&(1032u32 | 0xFF00_0000).to_le_bytes());
            told.ring.write_all_at(&slot, number * SLOT_BYTES).unwrap();
        }
        told
    }

    fn tell(&self, register: usize, value: u64) {
        self.page.write_all_at(&value.to_le_bytes(), register as u64).unwrap();
    }

    fn count(&self, frames: u64) {
        for register in [reg::RESERVED, reg::WRITTEN, reg::COMPLETE] {
            self.tell(register, frames * SLOT_BYTES);
        }
        self.tell(reg::FRAMES, frames);
    }

    /// A capture with all frames before it, that gives them to `processor`.
    fn capture(&self, processor: Processor) -> Capture {
        self.count(0);
        let device = Arc::new(Device::from_fds(&self.ring, Some(&self.page)).unwrap());
        let tail = Tail::attach(&device, StartAt::Newest).unwrap();
        self.count(FRAMES);
        let outlets = (Outlet::inline("every".parse().unwrap(), processor), None);
        Capture::new(device, tail, SlabPool::new(8 << 20), Origin::default(), outlets)
    }
}

/// Time from the tail to the worker, and what of it the tail spends, both in nanoseconds.
fn handoff(ring: &Ring, frames: u64, quiet_ns: u64, take: fn(&Inlet) -> Delivery) -> (f64, f64) {
    let (mut outlet, inlet) = Outlet::new("every".parse().unwrap(), 128);
    let taken = Line::default();
    // What the tail has found, where it would offer it.
    let offers = Arc::new(Mutex::new((0, 0)));
    let noted = Arc::clone(&offers);
    let mut capture = ring.capture(Box::new(move |delivery| {
        let from_ns = now_ns();
        outlet.offer(delivery.frame.clone(), delivery.detected);
        *noted.lock().unwrap() = (from_ns, now_ns());
    }));
    let one_way = |_| {
        spin_for(quiet_ns);
        let captured = capture.step(Moment::default(), Moment::default).unwrap();
        assert_eq!(captured, Captured::Frame);
        let at_ns = answer(&taken);
        let (from_ns, back_ns) = *offers.lock().unwrap();
        (at_ns - from_ns, back_ns - from_ns)
    };
    scope(|threads| {
        threads.spawn(|| {
            for _ in 0..frames {
                let delivery = take(&inlet);
                taken.0.store(now_ns(), Ordering::Release);
                drop(delivery);
            }
        });
        let (latencies, costs) = (0..frames).map(one_way).unzip();
        (median(latencies), median(costs))
    })
}

fn take_spinning(inlet: &Inlet) -> Delivery {
    loop {
        match inlet.try_recv() {
            Ok(delivery) => return delivery,
            Err(NoDelivery::Yet) => std::hint::spin_loop(),
            Err(NoDelivery::EverAgain) => unreachable!("the outlet is there"),
        }
    }
}

fn take_sleeping(inlet: &Inlet) -> Delivery {
    inlet.recv().unwrap()
}

fn main() {
    let rounds: usize = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(9);
    let ring = Ring::new();
    let clock = median((0..1000).map(|_| now_ns().abs_diff(now_ns())).collect());
    let mut table: Vec<[f64; 6]> = Vec::new();
    for round in 1..=rounds {
        let spin = raw_spin();
        let (spinning, cost) = handoff(&ring, FRAMES, 1000, take_spinning);
        let eventfd = raw_eventfd();
        let (sleeping, waking) = handoff(&ring, SLEEPS, ASLEEP_NS, take_sleeping);
        println!(
            "round {round}: raw spin {spin:.0} ns, handed on spinning {spinning:.0} ns ({:.2}), cost \
             {cost:.0} ns; raw eventfd {eventfd:.0} ns, handed on sleeping {sleeping:.0} ns ({:.2}), \
             cost {waking:.0} ns",
            spinning / spin,
            sleeping / eventfd,
        );
        table.push([spin, spinning, spinning / spin, cost, eventfd, sleeping / eventfd]);
    }
    let column = |index: usize| {
        let mut values: Vec<f64> = table.iter().map(|row| row[index]).collect();
        values.sort_by(f64::total_cmp);
        (values[0], values[values.len() / 2], values[values.len() - 1])
    };
    println!(
        "medians (lowest to highest) of {rounds} rounds; a look at the clock takes {clock} ns"
    );
    let names = [
        "raw spin, one way, ns",
        "tail to worker, spinning, ns",
        "  to raw spin",
        "  spent by the tail, clock included, ns",
        "raw eventfd, ns",
        "tail to worker, sleeping, to raw eventfd",
    ];
    for (index, name) in names.iter().enumerate() {
        let (lowest, median, highest) = column(index);
        println!("{name:42} {median:10.2} ({lowest:.2} to {highest:.2})");
    }
}
