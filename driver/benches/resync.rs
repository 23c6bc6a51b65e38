//! From an overrun back to the first frame that can still be had: the tail finds the ring lapped, walks the
//! chain of trailers down from the newest frame, and tells what was lost.
//!
//! `cargo bench -p circbuf-driver --bench resync`. The camera stands still meanwhile. Where headers prove the
//! links of the chain, the time goes by the number of frames, however large they are; on a bare ring a link
//! is proven by looking at a word of every chunk, so that it goes by the bytes.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::{Duration, Instant};

use circbuf_driver::device::Device;
use circbuf_driver::ring::slot;
use circbuf_driver::tail::{StartAt, Step, Tail};
use circbuf_emulator::fpga::{Fpga, Progress, Setup};
use circbuf_emulator::model::{FrameTime, Gap, Geometry, Picture};
use circbuf_emulator::ring_file::RingFile;

/// The rings of a 353 and of a channel of a 393.
const RINGS: [u64; 2] = [19_791_872, 64 << 20];
const FRAME_BYTES: [u32; 4] = [1_024, 10_240, 230_400, 737_280];
const ROUNDS: usize = 15;

/// A camera that is stepped, and its picture.
struct Camera {
    fpga: Fpga,
    payload: Vec<u8>,
    frames: u64,
}

impl Camera {
    fn new(ring_bytes: u64, frame_bytes: u32, stamped: bool) -> Camera {
        let geometry = Geometry { width: 0, height: 0, quality2: 0x5050, color_mode: 0 };
        let (payload_bytes_max, frame_period_ns) = (frame_bytes, 0);
        let setup = Setup { gap: Gap::Zero, stamped, payload_bytes_max, geometry, frame_period_ns };
        let fpga = Fpga::new(RingFile::memfd(ring_bytes).unwrap(), setup).unwrap();
        let payload = (0..frame_bytes).map(|at| (at.wrapping_mul(0x9E37_79B9) >> 24) as u8 & 0x7F);
        Camera { fpga, payload: payload.collect(), frames: 0 }
    }

    fn write(&mut self, frames: u64) {
        let Camera { fpga, payload, .. } = self;
        let (width, height) = (0, 0);
        let picture =
            Picture { payload, crc32c: Some(0), quality2: 0x5050, color_mode: 0, width, height };
        for frame in self.frames..self.frames + frames {
            let time = FrameTime { sec: 1, usec: 0 }.plus_nanos(frame * 1000);
            fpga.begin(&picture, time).unwrap();
            while fpga.step(payload, u64::MAX) != Progress::Whole {}
        }
        self.frames += frames;
    }
}

/// How long it takes, and how many frames were found again.
fn resynchronise(device: &Device, tail: &mut Tail) -> (Duration, u64) {
    let began = Instant::now();
    let Step::Lost(loss) = tail.poll(device).unwrap() else { panic!("the ring was lapped") };
    let Step::Frame(first) = tail.poll(device).unwrap() else { panic!("there is a whole frame") };
    let took = began.elapsed();
    assert_eq!(first.sequence, loss.sequence + loss.count);
    let found = 1 + std::iter::from_fn(|| match tail.poll(device).unwrap() {
        Step::Frame(_) => Some(()),
        _ => None,
    })
    .count();
    (took, found as u64)
}

fn row(ring_bytes: u64, frame_bytes: u32, stamped: bool) {
    let mut camera = Camera::new(ring_bytes, frame_bytes, stamped);
    let (ring, registers) = (camera.fpga.file().ring_fd(), camera.fpga.file().registers_fd());
    let device = Device::from_fds(ring, Some(registers)).unwrap();
    let mut tail = Tail::attach(&device, StartAt::Newest).unwrap();
    let lap = ring_bytes / slot(frame_bytes);
    let mut rounds: Vec<_> = (0..ROUNDS)
        .map(|_| {
            camera.write(lap * 3 / 2);
            resynchronise(&device, &mut tail)
        })
        .collect();
    rounds.sort();
    let (took, frames) = rounds[ROUNDS / 2];
    let kind = if stamped { "stamped" } else { "bare" };
    let ns = took.as_nanos() as f64;
    println!(
        "| {:.1} | {kind} | {frame_bytes} | {frames} | {:.1} | {:.0} |",
        ring_bytes as f64 / 1e6,
        ns / 1e3,
        ns / frames as f64
    );
}

fn main() {
    println!(
        "| ring, MB | | payload | frames found again | us | ns a frame |\n|--:|---|--:|--:|--:|--:|"
    );
    for stamped in [true, false] {
        for ring_bytes in RINGS {
            for frame_bytes in FRAME_BYTES {
                row(ring_bytes, frame_bytes, stamped);
            }
        }
    }
}
