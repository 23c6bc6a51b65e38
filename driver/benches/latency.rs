//! From the moment at which a frame's end is visible to the moment at which the frame lies checked in its
//! slab, against a bare notification between two threads.
//!
//! `cargo bench -p circbuf-driver --bench latency`. Camera and driver take turns: a frame that the driver
//! follows while it is written, one that it copies at its end, one that is waited for and copied without
//! any driver, one of which no more than the last burst is copied so, and a bare notification. A thread
//! spins on each side, so that two cores are needed.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use circbuf_driver::capture::{Capture, Captured, Origin};
use circbuf_driver::clock::Clock;
use circbuf_driver::copy::Manner;
use circbuf_driver::device::Device;
use circbuf_driver::dispatch::Outlet;
use circbuf_driver::policy::{Policy, Take, WhenFull};
use circbuf_driver::ring::{padded, slot};
use circbuf_driver::slab::SlabPool;
use circbuf_driver::tail::{StartAt, Tail};
use circbuf_emulator::fpga::{Fpga, Progress, Setup};
use circbuf_emulator::model::{FrameTime, Gap, Geometry, Picture};
use circbuf_emulator::ring_file::RingFile;

/// The ring of a 353.
const RING_BYTES: u64 = 19_791_872;
const PAYLOAD_BYTES: usize = 230_400;
const ROUNDS: u64 = 3000;
/// The driver's own.
const FOLLOW_BYTES: u64 = 1 << 10;
/// What the camera writes before it pauses.
const BURST_BYTES: u64 = 4096;
/// Payload in the last burst of a frame, in front of a chunk with the trailer and the gap.
const LAST_BYTES: u32 = (slot(PAYLOAD_BYTES as u32) % BURST_BYTES) as u32 - 64;
/// 4 GB/s: faster than any bus of a camera, slower than the driver copies.
const BURST_PAUSE: Duration = Duration::from_micros(1);

/// What the two sides share.
#[derive(Default)]
struct Shared {
    /// Whose turn it is: odd the camera's, even the driver's.
    turn: AtomicU64,
    /// When the frame's end became visible, or the notification was sent.
    sent_ns: AtomicU64,
    /// The notification.
    rung: AtomicU64,
}

impl Shared {
    fn wait_for(&self, turn: u64) {
        while self.turn.load(Ordering::Acquire) != turn {
            std::hint::spin_loop();
        }
    }
}

fn spin(pause: Duration) {
    let began = Instant::now();
    while began.elapsed() < pause {
        std::hint::spin_loop();
    }
}

/// Emits four frames a round, and one notification.
fn camera(mut fpga: Fpga, shared: &Shared, base: Instant) {
    let payload: Vec<u8> = (0..PAYLOAD_BYTES).map(|at| (at % 251) as u8).collect();
    let (width, height) = (2048, 1536);
    let picture = Picture {
        payload: &payload,
        crc32c: Some(0),
        quality2: 0x5050,
        color_mode: 0,
        width,
        height,
    };
    let now_ns = || base.elapsed().as_nanos() as u64;
    for round in 0..ROUNDS {
        for frame in 4 * round..4 * round + 4 {
            shared.wait_for(10 * round + 2 * (frame % 4) + 1);
            let time = FrameTime { sec: 1, usec: 0 }.plus_nanos(frame * 1_000_000);
            fpga.begin(&picture, time).unwrap();
            let end = fpga.cursor() + slot(PAYLOAD_BYTES as u32);
            while fpga.cursor() < end {
                spin(BURST_PAUSE);
                fpga.step(&payload, BURST_BYTES);
            }
            shared.sent_ns.store(now_ns(), Ordering::Relaxed);
            assert_eq!(fpga.step(&payload, BURST_BYTES), Progress::Whole);
            shared.turn.fetch_add(1, Ordering::Release);
        }
        shared.wait_for(10 * round + 9);
        spin(Duration::from_micros(20));
        shared.sent_ns.store(now_ns(), Ordering::Relaxed);
        shared.rung.store(round + 1, Ordering::Release);
        shared.turn.fetch_add(1, Ordering::Release);
    }
}

/// What the driver measures, in nanoseconds.
#[derive(Default)]
struct Measured {
    followed: Vec<u64>,
    at_end: Vec<u64>,
    /// Without tail, slabs, books and queue.
    bare: Vec<u64>,
    /// Nothing but the last burst.
    finished: Vec<u64>,
    notified: Vec<u64>,
}

/// Waits for a frame and copies it, and that is all.
fn wait_and_copy(device: &Device, start: u64, scratch: &mut [u8]) {
    let registers = device.registers().unwrap();
    let is_complete = || registers.progress().is_some_and(|progress| progress.complete > start);
    while !is_complete() {
        std::hint::spin_loop();
    }
    let _ = device.ring().copy_frame(start, PAYLOAD_BYTES as u32, scratch, Manner::default());
}

/// What is left for whoever followed the frame up to its last burst, and that is all: it waits for the end,
/// copies the burst, and looks at header, trailer and `reserved`. The camera's core wrote all of it last.
fn wait_and_finish(device: &Device, start: u64, scratch: &mut [u8]) {
    let (registers, ring) = (device.registers().unwrap(), device.ring());
    while registers.progress().is_none_or(|progress| progress.complete == start) {
        std::hint::spin_loop();
    }
    let end = start + padded(PAYLOAD_BYTES as u32);
    let last = padded(LAST_BYTES);
    let _ = black_box(ring.copy_frame(end - last, LAST_BYTES, scratch, Manner::default()));
    black_box((ring.header(start), ring.trailer(end), registers.reach()));
}

/// Waits for a frame as the pipeline's threads do that spin.
fn take(capture: &mut Capture, clock: &Clock) {
    while capture.step(clock.now(), || clock.now()).unwrap() != Captured::Frame {
        std::hint::spin_loop();
    }
}

fn driver(device: &Arc<Device>, shared: &Shared, base: Instant) -> Measured {
    let tail = Tail::attach(device, StartAt::Newest).unwrap();
    let policy = Policy { take: Take::Every, when_full: WhenFull::DropNewest };
    let (outlet, inlet) = Outlet::new(policy, 4);
    let pool = SlabPool::new(4 << 20);
    let mut capture =
        Capture::new(Arc::clone(device), tail, pool, Origin::default(), (outlet, None));
    let mut scratch = vec![0; padded(PAYLOAD_BYTES as u32) as usize];
    let (mut measured, clock) = (Measured::default(), Clock::new());
    let since = |sent: &AtomicU64| {
        (base.elapsed().as_nanos() as u64).saturating_sub(sent.load(Ordering::Relaxed))
    };
    for round in 0..ROUNDS {
        for (half, follow_bytes) in [(0, FOLLOW_BYTES), (1, u64::from(u32::MAX))] {
            capture.set_follow_bytes(follow_bytes);
            shared.turn.fetch_add(1, Ordering::Release);
            take(&mut capture, &clock);
            let latency_ns = since(&shared.sent_ns);
            if half == 0 { &mut measured.followed } else { &mut measured.at_end }.push(latency_ns);
            assert_eq!(inlet.try_recv().unwrap().frame.payload()[250], 250);
            shared.wait_for(10 * round + 2 + 2 * half);
        }
        let start = capture.tail().cursor();
        shared.turn.fetch_add(1, Ordering::Release);
        wait_and_copy(device, start, &mut scratch);
        measured.bare.push(since(&shared.sent_ns));
        shared.wait_for(10 * round + 6);
        let start = start + slot(PAYLOAD_BYTES as u32);
        shared.turn.fetch_add(1, Ordering::Release);
        wait_and_finish(device, start, &mut scratch[..padded(LAST_BYTES) as usize]);
        measured.finished.push(since(&shared.sent_ns));
        shared.wait_for(10 * round + 8);
        for _ in 0..2 {
            take(&mut capture, &clock);
            drop(inlet.try_recv().unwrap());
        }
        shared.turn.fetch_add(1, Ordering::Release);
        while shared.rung.load(Ordering::Acquire) != round + 1 {
            std::hint::spin_loop();
        }
        measured.notified.push(since(&shared.sent_ns));
        shared.wait_for(10 * round + 10);
    }
    measured
}

fn main() {
    let file = RingFile::memfd(RING_BYTES).unwrap();
    let geometry = Geometry { width: 2048, height: 1536, quality2: 0x5050, color_mode: 0 };
    let payload_bytes_max = PAYLOAD_BYTES as u32;
    let setup =
        Setup { gap: Gap::Zero, stamped: true, payload_bytes_max, geometry, frame_period_ns: 0 };
    let fpga = Fpga::new(file, setup).unwrap();
    let file = fpga.file();
    let device = Arc::new(Device::from_fds(file.ring_fd(), Some(file.registers_fd())).unwrap());
    let (shared, base) = (Shared::default(), Instant::now());
    let measured = std::thread::scope(|threads| {
        threads.spawn(|| camera(fpga, &shared, base));
        driver(&device, &shared, base)
    });
    let at = |values: &[u64], share: f64| {
        let mut values = values.to_vec();
        values.sort_unstable();
        values[(share * (values.len() - 1) as f64) as usize] as f64
    };
    let notified = at(&measured.notified, 0.5);
    println!(
        "| frames of {PAYLOAD_BYTES} bytes, {ROUNDS} of each | p50 | p99 | p50 to a notification |"
    );
    println!("|---|--:|--:|--:|");
    for (name, values) in [
        ("notification of a spinning thread", &measured.notified),
        ("notification, the last burst and the lines that tell of it alone", &measured.finished),
        ("end of frame to checked in the slab, followed", &measured.followed),
        ("the same, copied at its end", &measured.at_end),
        ("notification and copy alone", &measured.bare),
    ] {
        let (p50, p99) = (at(values, 0.5), at(values, 0.99));
        println!("| {name} | {p50:.0} ns | {p99:.0} ns | {:.1} |", p50 / notified);
    }
    let ratio = at(&measured.at_end, 0.5) / at(&measured.bare, 0.5);
    println!("\ncopied at its end / notification and copy alone: {ratio:.2}");
}
