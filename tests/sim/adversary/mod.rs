//! Camera and driver as fast as the machine, at the same time: as two threads, and as two processes
//! that are stopped (SIGSTOP) again and again, wherever they are. Rings are small, so that the
//! writer comes round while frames are copied. Each frame proves by itself that it is whole.
//!
//! `ADVERSARY_SECONDS=N` goes on for so long; without it a few runs have to do.

mod camera;
mod driver;
mod processes;
mod proof;

use circbuf_emulator::fpga::{Fpga, Setup};
use circbuf_emulator::model::{Gap, Geometry};
use circbuf_emulator::ring_file::RingFile;
use circbuf_tests::{GAPS, Random};

use crate::law::{Law, Point};

/// A ring and who is at it.
#[derive(Debug, Clone, Copy)]
struct Kind {
    seed: u64,
    ring_bytes: u64,
    gap: Gap,
    stamped: bool,
    /// Whether the driver gets the register page.
    counted: bool,
    /// Payload lengths. Where they are equal, their slots divide the ring: each frame starts where
    /// one of the lap before did.
    bytes_min: u64,
    bytes_max: u64,
    reader: Reader,
}

/// How frames are read.
#[derive(Debug, Clone, Copy)]
enum Reader {
    /// By the capturing stage, one step after the other.
    Capture,
    /// By the pipeline's threads.
    Pipeline,
    /// By the naive twin of the law, which may lack a point.
    Twin(Law),
}

impl Kind {
    /// Kinds on which the law promises whole frames.
    fn of(seed: u64) -> Kind {
        let mut random = Random::of(seed);
        let counted = !random.once_in(5);
        let gap = random.one_of(if counted { &GAPS } else { &[Gap::Zero, Gap::Late] });
        let stamped = !counted || !random.once_in(3);
        let (bytes_min, bytes_max) =
            random.one_of(&[(64, 4000), (64, 400), (208, 208), (976, 976)]);
        // Without counters there is no end that a pipeline could see.
        let readers = [Reader::Capture, Reader::Pipeline, Reader::Capture];
        let reader = if counted { random.one_of(&readers) } else { Reader::Capture };
        let ring_bytes = (64 << 10) << random.below(if counted { 5 } else { 3 });
        Kind { seed, ring_bytes, gap, stamped, counted, bytes_min, bytes_max, reader }
    }

    /// One on which the law lets damaged frames pass if it lacks this point; with none, does not.
    fn against(point: Option<Point>, seed: u64) -> Kind {
        let counted = point != Some(Point::Marks);
        let gap = if counted { Gap::Skip } else { Gap::Zero };
        let reader = Reader::Twin(Law { without: point });
        let (ring_bytes, bytes) = (64 << 10, 976);
        Kind {
            seed,
            ring_bytes,
            gap,
            stamped: true,
            counted,
            bytes_min: bytes,
            bytes_max: bytes,
            reader,
        }
    }

    fn fpga(&self, file: RingFile) -> Fpga {
        let geometry = Geometry { width: 64, height: 48, quality2: 0x5050, color_mode: 0 };
        let setup = Setup {
            gap: self.gap,
            stamped: self.stamped,
            payload_bytes_max: self.bytes_max as u32,
            geometry,
            frame_period_ns: 0,
        };
        Fpga::new(file, setup).expect("the ring holds four frames")
    }
}

/// Now and then sleeps for a moment, or lets others run.
fn stall(random: &mut Random) {
    match random.below(4) {
        0 => std::thread::sleep(std::time::Duration::from_micros(random.below(500))),
        1 => (0..random.below(2000)).for_each(|_| std::hint::spin_loop()),
        _ => std::thread::yield_now(),
    }
}
