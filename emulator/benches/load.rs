//! How fast the camera is as a load: frames into a ring, and byte stuffing, each against memcpy.
//!
//! Criterion tells the times; the ratios at the end are medians of rounds in which the candidate and
//! its memcpy take turns, because absolute figures drift with what else the machine does.

#![allow(unsafe_code, clippy::print_stdout, clippy::unwrap_used)]

use std::hint::black_box;
use std::os::fd::AsFd as _;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use circbuf_abi::ring::NC353_RING_BYTES;
use circbuf_emulator::camera::{Camera, Limit, Options};
use circbuf_emulator::model::Model;
use circbuf_emulator::pace::Pace;
use circbuf_emulator::ring_file::RingFile;
use circbuf_emulator::source::{Source, SourceOptions};
use memmap2::{MmapMut, MmapOptions};

const ROUNDS: usize = 9;
/// Bytes that go into the ring in a round: some laps.
const ROUND_BYTES: u64 = 10 * NC353_RING_BYTES;

/// Emits frames as fast as the machine; nobody reads.
fn emit(source: &str, frames: u64) -> Duration {
    let options = SourceOptions { fps: None, ..SourceOptions::default() };
    let source = Source::open(&source.parse().unwrap(), &options).unwrap();
    let mut options = Options::of(Model::Nc353);
    options.pace = Pace::UNPACED;
    options.limit = Limit { frames: Some(frames), time: None };
    let ring = RingFile::memfd(NC353_RING_BYTES).unwrap();
    let camera = Camera::new(ring, source, options).unwrap();
    let start = Instant::now();
    let report = camera.run(&AtomicBool::new(false)).unwrap();
    let time = start.elapsed();
    assert_eq!(report.frames, frames);
    time
}

/// memcpy of one hot buffer into a memfd mapping like the camera's, place after place.
struct Memcpy {
    ring: MmapMut,
    source: Vec<u8>,
}

impl Memcpy {
    fn new(bytes: usize) -> Self {
        let file = RingFile::memfd(NC353_RING_BYTES).unwrap();
        let fd = std::fs::File::from(file.ring_fd().as_fd().try_clone_to_owned().unwrap());
        // SAFETY: nobody else has this memfd, so nobody changes or shortens it.
        let ring = unsafe { MmapOptions::new().populate().map_mut(&fd) }.unwrap();
        Self { ring, source: vec![0x5A; bytes] }
    }

    fn run(&mut self, frames: u64) -> Duration {
        let start = Instant::now();
        let bytes = self.source.len();
        let mut at = 0;
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

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    for payload_bytes in [230_400_u64, 4096, 1024] {
        let frames = ROUND_BYTES / payload_bytes;
        let source = format!("noise:{payload_bytes}");
        let mut memcpy = Memcpy::new(payload_bytes as usize);
        let (mut emits, mut copies) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            copies.push(memcpy.run(frames).as_secs_f64());
            emits.push(emit(&source, frames).as_secs_f64());
        }
        let ratios = emits.iter().zip(&copies).map(|(emit, copy)| copy / emit).collect();
        let (emit, copy) = (median(emits), median(copies));
        let rate = |time: f64| (frames * payload_bytes) as f64 / time / 1e9;
        println!(
            "emit {payload_bytes:>7}: {:.2} of memcpy, {:.0} frames/s, {:.1} GB/s (memcpy {:.1})",
            median(ratios),
            frames as f64 / emit,
            rate(emit),
            rate(copy)
        );
    }
}
