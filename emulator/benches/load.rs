//! How fast the camera is as a load: byte stuffing, and frames into a ring, each against memcpy.
//!
//! Criterion tells the times. The ratios at the end are medians of rounds in which the candidate and
//! its memcpy take turns, because absolute figures drift with what else the machine does; `-- ratios`
//! asks for them alone.

#![allow(unsafe_code, clippy::print_stdout, clippy::unwrap_used)]

use std::fs::File;
use std::hint::black_box;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use circbuf_abi::ring::NC353_RING_BYTES;
use circbuf_emulator::camera::{Camera, Limit, Options};
use circbuf_emulator::escape::stuff;
use circbuf_emulator::ledger::Ledger;
use circbuf_emulator::model::Model;
use circbuf_emulator::pace::Pace;
use circbuf_emulator::ring_file::RingFile;
use circbuf_emulator::source::{Source, SourceOptions};
use criterion::{BenchmarkId, Criterion, Throughput};
use memmap2::{MmapMut, MmapOptions};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};

const PAYLOAD_BYTES: [u64; 3] = [230_400, 4096, 1024];
const SOURCES: [&str; 4] = ["noise:230400", "noise:4096", "noise:1024", "synthetic:8"];
/// Pictures of the scene.
const CYCLE: u64 = 8;
const ROUNDS: usize = 15;
/// Bytes of a round: some laps of the ring.
const ROUND_BYTES: u64 = 20 * NC353_RING_BYTES;

/// Emits frames as fast as the machine; nobody reads. Bytes of their payloads, and the time of the
/// frames alone.
fn emit(source: &str, ledger: Ledger, frames: u64) -> (u64, Duration) {
    let options =
        SourceOptions { width: 2048, height: 1536, fps: None, ..SourceOptions::default() };
    let source = Source::open(&source.parse().unwrap(), &options).unwrap();
    let mut options = Options::of(Model::Nc353);
    options.pace = Pace::UNPACED;
    options.limit = Limit { frames: Some(frames), time: None };
    options.ledger = ledger;
    let ring = RingFile::memfd(NC353_RING_BYTES).unwrap();
    let camera = Camera::new(ring, source, options).unwrap();
    let start = Instant::now();
    let report = camera.run(&AtomicBool::new(false)).unwrap();
    let time = start.elapsed();
    assert_eq!(report.frames, frames);
    (report.payload_bytes, time)
}

/// memcpy of one hot buffer into a mapping like the camera's, place after place.
struct Memcpy {
    ring: MmapMut,
    source: Vec<u8>,
}

impl Memcpy {
    fn new(bytes: u64) -> Self {
        let ring = RingFile::memfd(NC353_RING_BYTES).unwrap();
        let memory = File::from(ring.ring_fd().try_clone_to_owned().unwrap());
        // SAFETY: nobody else has this memory, so nobody changes or shortens it.
        let ring = unsafe { MmapOptions::new().populate().map_mut(&memory) }.unwrap();
        Self { ring, source: vec![0x5A; bytes as usize] }
    }

    fn run(&mut self, frames: u64) -> Duration {
        let bytes = self.source.len();
        let mut at = 0;
        let start = Instant::now();
        for _ in 0..frames {
            if at + bytes > self.ring.len() {
                at = 0;
            }
            self.ring[at..at + bytes].copy_from_slice(black_box(&self.source));
            at += bytes.next_multiple_of(32) + 64;
        }
        start.elapsed()
    }
}

/// Random bytes have an FF as often as a scan.
fn plain() -> Vec<u8> {
    let mut plain = vec![0; PAYLOAD_BYTES[0] as usize];
    Xoshiro256PlusPlus::seed_from_u64(1).fill_bytes(&mut plain);
    plain
}

fn copy(plain: &[u8], copied: &mut Vec<u8>) {
    copied.clear();
    copied.extend_from_slice(black_box(plain));
}

fn stuff_anew(plain: &[u8], stuffed: &mut Vec<u8>) {
    stuffed.clear();
    stuff(black_box(plain), stuffed);
}

fn repeat(times: u64, mut work: impl FnMut()) -> Duration {
    let start = Instant::now();
    (0..times).for_each(|_| work());
    start.elapsed()
}

fn stuffing(criterion: &mut Criterion) {
    let (plain, mut bytes) = (plain(), Vec::new());
    let mut group = criterion.benchmark_group("stuff");
    group.throughput(Throughput::Bytes(PAYLOAD_BYTES[0]));
    group.bench_function("memcpy", |bench| bench.iter(|| copy(&plain, &mut bytes)));
    group.bench_function("stuff", |bench| bench.iter(|| stuff_anew(&plain, &mut bytes)));
    group.finish();
}

fn emitting(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("emit");
    group.sample_size(20);
    for payload_bytes in PAYLOAD_BYTES {
        group.throughput(Throughput::Bytes(payload_bytes));
        let mut memcpy = Memcpy::new(payload_bytes);
        group.bench_function(BenchmarkId::new("memcpy", payload_bytes), |bench| {
            bench.iter_custom(|frames| memcpy.run(frames));
        });
        let source = format!("noise:{payload_bytes}");
        group.bench_function(BenchmarkId::new("camera", payload_bytes), |bench| {
            bench.iter_custom(|frames| emit(&source, Ledger::none(), frames).1);
        });
    }
    group.finish();
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// Prints how fast `candidate` is beside `memcpy`, both of which do so many times `bytes`.
fn tell_ratio(
    what: &str,
    bytes: u64,
    mut candidate: impl FnMut(u64) -> Duration,
    mut memcpy: impl FnMut(u64) -> Duration,
) {
    let times = ROUND_BYTES / bytes;
    let rate = |time: Duration| times as f64 / time.as_secs_f64();
    let rounds = (0..ROUNDS).map(|_| (rate(memcpy(times)), rate(candidate(times))));
    let (copies, rates): (Vec<_>, Vec<_>) = rounds.unzip();
    let mut ratios: Vec<_> = rates.iter().zip(&copies).map(|(rate, copy)| rate / copy).collect();
    ratios.sort_by(f64::total_cmp);
    let (low, high) = (ratios[ROUNDS / 4], ratios[ROUNDS * 3 / 4]);
    let (rate, copy) = (median(rates), median(copies));
    println!(
        "{what:<34} {:.2} of memcpy ({low:.2} to {high:.2}), {rate:>9.0}/s, {:.1} GB/s \
         (memcpy {:.1})",
        median(ratios),
        rate * bytes as f64 / 1e9,
        copy * bytes as f64 / 1e9,
    );
}

fn tell_ratios() {
    println!("\nmedians of {ROUNDS} rounds, in brackets the quartiles");
    let (plain, mut stuffed, mut copied) = (plain(), Vec::new(), Vec::new());
    tell_ratio(
        &format!("stuff {} bytes", plain.len()),
        plain.len() as u64,
        |times| repeat(times, || stuff_anew(&plain, &mut stuffed)),
        |times| repeat(times, || copy(&plain, &mut copied)),
    );
    for source in SOURCES {
        // The pictures of a scene are about equally long.
        let bytes = emit(source, Ledger::none(), CYCLE).0 / CYCLE;
        let mut memcpy = Memcpy::new(bytes);
        let mut memcpy = |frames| memcpy.run(frames);
        let camera = |frames| emit(source, Ledger::none(), frames).1;
        tell_ratio(&format!("camera, {source}"), bytes, camera, &mut memcpy);
        let camera = |frames| emit(source, Ledger::in_memory(), frames).1;
        tell_ratio(&format!("camera, {source}, ledger"), bytes, camera, &mut memcpy);
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    stuffing(&mut criterion);
    emitting(&mut criterion);
    criterion.final_summary();
    // Without it, this is a test that the benchmarks run.
    if std::env::args().any(|argument| argument == "--bench") {
        tell_ratios();
    }
}
