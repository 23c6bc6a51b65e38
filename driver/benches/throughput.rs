//! The whole driver with the worker inline, a camera at full speed on another core, against drivers that do
//! less: a bare copy into one hot slab, and the usual memcpy followed by memchr.
//!
//! `cargo bench -p circbuf-driver --bench throughput`. The camera waits for its driver (no camera does), so
//! that every frame is taken. The drivers take turns of some 0.1 s in a row, on the same ring; what counts is the ratio of
//! their rates within a round, and the median of those over the rounds.

#![allow(clippy::unwrap_used, clippy::print_stdout, unsafe_code)]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

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
const ROUNDS: usize = 15;
/// Payload that a driver takes in its turn.
const TURN_BYTES: usize = 1 << 30;

/// What camera and driver share.
#[derive(Default)]
struct Shared {
    /// Everything below may be overwritten.
    credit: Arc<AtomicU64>,
    /// How long the camera has waited for that in this turn: where it never does, the camera is the limit.
    waited_ns: AtomicU64,
    ends: AtomicBool,
}

/// Of one driver in one round.
#[derive(Clone, Copy)]
struct Turn {
    /// Frames a second.
    rate: f64,
    /// Part of the time in which the camera waited for the driver.
    camera_waits: f64,
}

/// What a JPEG's scan looks like to whoever looks for FF FF: every FF is followed by 00.
fn payload(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut payload = Vec::with_capacity(length + 1);
    while payload.len() < length {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        match (state >> 24) as u8 {
            0xFF => payload.extend([0xFF, 0]),
            byte => payload.push(byte),
        }
    }
    payload.truncate(length);
    payload[length - 1] = 0;
    payload
}

/// Writes frames one behind the other as fast as it may.
fn camera(mut fpga: Fpga, payload: &[u8], shared: &Shared) {
    let (width, height) = (0, 0);
    let picture =
        Picture { payload, crc32c: Some(0), quality2: 0x5050, color_mode: 0, width, height };
    let slot_bytes = slot(payload.len() as u32);
    for frame in 0.. {
        let is_full =
            || fpga.cursor() + slot_bytes + 64 > shared.credit.load(Ordering::Acquire) + RING_BYTES;
        if is_full() {
            let began = Instant::now();
            while is_full() {
                if shared.ends.load(Ordering::Relaxed) {
                    return;
                }
                std::hint::spin_loop();
            }
            let waited_ns = began.elapsed().as_nanos() as u64;
            shared.waited_ns.fetch_add(waited_ns, Ordering::Relaxed);
        }
        fpga.begin(&picture, FrameTime { sec: 1, usec: 0 }.plus_nanos(frame * 1000)).unwrap();
        while fpga.step(payload, u64::MAX) != Progress::Whole {}
    }
}

/// A ring, its camera, and what the drivers need.
struct Bench<'a> {
    device: Arc<Device>,
    /// The ring as what memcpy reads.
    bytes: memmap2::Mmap,
    shared: &'a Shared,
    length: u32,
    pool: SlabPool,
    hot: Vec<u8>,
}

impl Bench<'_> {
    fn frames(&self) -> usize {
        (TURN_BYTES / self.length as usize).min(200_000)
    }

    /// Where the newest frame ends.
    fn complete(&self) -> u64 {
        let registers = self.device.registers().unwrap();
        std::iter::repeat_with(|| registers.progress()).flatten().next().unwrap().complete
    }

    /// What came of a turn: `drive` takes all its frames.
    fn turn(&mut self, drive: impl FnOnce(&mut Self)) -> Turn {
        let waited_ns = &self.shared.waited_ns;
        waited_ns.store(0, Ordering::Relaxed);
        let began = Instant::now();
        drive(self);
        let seconds = began.elapsed().as_secs_f64();
        let camera_waits = waited_ns.load(Ordering::Relaxed) as f64 / 1e9 / seconds;
        Turn { rate: self.frames() as f64 / seconds, camera_waits }
    }

    /// A driver that knows nothing but where frames end.
    fn bare(&mut self, copy: impl Fn(&mut Self, u64)) {
        let (mut start, mut complete) = (self.complete(), 0);
        self.shared.credit.store(start, Ordering::Release);
        for _ in 0..self.frames() {
            while complete <= start {
                std::hint::spin_loop();
                complete = self.complete();
            }
            copy(self, start);
            start += slot(self.length);
            self.shared.credit.store(start, Ordering::Release);
        }
    }

    fn memcpy(&mut self, start: u64) {
        let (offset, bytes) = ((start % RING_BYTES) as usize, self.hot.len());
        let front = bytes.min(RING_BYTES as usize - offset);
        self.hot[..front].copy_from_slice(&self.bytes[offset..][..front]);
        self.hot[front..].copy_from_slice(&self.bytes[..bytes - front]);
        black_box(&mut self.hot);
    }

    fn memcpy_memchr(&mut self, start: u64) {
        self.memcpy(start);
        let payload = &self.hot[..self.length as usize];
        let is_pair = |at: usize| payload.get(at + 1) == Some(&0xFF);
        black_box(memchr::memchr_iter(0xFF, payload).any(is_pair));
    }

    fn kernel(&mut self, start: u64) {
        let ring = self.device.ring();
        black_box(ring.copy_frame(start, self.length, &mut self.hot, Manner::default()));
    }

    /// The driver itself: tail, law, slabs, books, and a worker that looks at every frame.
    fn driver(&mut self) {
        let tail = Tail::attach(&self.device, StartAt::Newest).unwrap();
        let policy = Policy { take: Take::Every, when_full: WhenFull::DropNewest };
        let worker = Outlet::inline(
            policy,
            Box::new(|delivery| {
                black_box(delivery.frame.sequence());
            }),
        );
        let (device, pool) = (Arc::clone(&self.device), self.pool.clone());
        let mut capture = Capture::new(device, tail, pool, Origin::default(), (worker, None));
        capture.set_credit(Arc::clone(&self.shared.credit));
        let (mut frames, wanted, clock) = (0, self.frames(), Clock::new());
        while frames < wanted {
            match capture.step(clock.now(), || clock.now()).unwrap() {
                Captured::Frame => frames += 1,
                Captured::Nothing => std::hint::spin_loop(),
                Captured::Loss => panic!("a camera that waits loses nothing"),
            }
        }
    }
}

const DRIVERS: [&str; 4] =
    ["memcpy into a hot slab", "memcpy, then memchr", "copy and check alone", "the whole driver"];

fn rounds(length: u32) -> Vec<[Turn; DRIVERS.len()]> {
    let geometry = Geometry { width: 0, height: 0, quality2: 0x5050, color_mode: 0 };
    let (payload_bytes_max, frame_period_ns) = (length, 0);
    let setup =
        Setup { gap: Gap::Zero, stamped: true, payload_bytes_max, geometry, frame_period_ns };
    let fpga = Fpga::new(RingFile::memfd(RING_BYTES).unwrap(), setup).unwrap();
    let (ring, registers) = (fpga.file().ring_fd(), fpga.file().registers_fd());
    let device = Arc::new(Device::from_fds(ring, Some(registers)).unwrap());
    // SAFETY: none that Rust knows of: the camera writes what is read. Only the speed is looked at.
    let bytes = unsafe { memmap2::MmapOptions::new().populate().map(&ring) }.unwrap();
    let payload = payload(length as usize);
    let shared = Shared::default();
    let pool = SlabPool::new(4 << 20);
    let hot = vec![0; padded(length) as usize];
    let mut bench = Bench { device, bytes, shared: &shared, length, pool, hot };
    std::thread::scope(|threads| {
        threads.spawn(|| camera(fpga, &payload, &shared));
        let mut round = || {
            [
                bench.turn(|bench| bench.bare(Bench::memcpy)),
                bench.turn(|bench| bench.bare(Bench::memcpy_memchr)),
                bench.turn(|bench| bench.bare(Bench::kernel)),
                bench.turn(Bench::driver),
            ]
        };
        round();
        let rounds = (0..ROUNDS).map(|_| round()).collect();
        shared.ends.store(true, Ordering::Relaxed);
        rounds
    })
}

fn at(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(share * (values.len() - 1) as f64).round() as usize]
}

fn main() {
    for length in [230_400, 4096, 1024] {
        let rounds = rounds(length);
        println!("\nPayload of {length} bytes, camera at full speed:\n");
        println!(
            "| | frames/s | ratio to memcpy | 10 % to 90 % of the rounds | to memcpy, then memchr \
             | the camera waits |"
        );
        println!("|---|--:|--:|--:|--:|--:|");
        for (index, name) in DRIVERS.iter().enumerate() {
            let of =
                |what: &dyn Fn(&[Turn; DRIVERS.len()]) -> f64| rounds.iter().map(what).collect();
            let ratios = |to: usize| of(&|round| round[index].rate / round[to].rate);
            println!(
                "| {name} | {:.0} | {:.2} | {:.2} to {:.2} | {:.2} | {:.0} % |",
                at(of(&|round| round[index].rate), 0.5),
                at(ratios(0), 0.5),
                at(ratios(0), 0.1),
                at(ratios(0), 0.9),
                at(ratios(1), 0.5),
                100.0 * at(of(&|round| round[index].camera_waits), 0.5)
            );
        }
    }
}
