//! The writer: frame after frame, without any pace.

use circbuf_emulator::fpga::{Fpga, Progress};
use circbuf_tests::{Random, picture};

use super::proof::{Maker, time};
use super::{Kind, stall};

/// Steps from one stall to the next, about.
const STEPS_PER_STALL: u64 = 20_000;

/// Writes so many frames, and says that the camera has ended.
pub(super) fn run(mut fpga: Fpga, kind: &Kind, frames: u64) {
    let (mut random, mut maker) = (Random::of(kind.seed), Maker::new(kind.seed));
    for number in 0..frames {
        let length = kind.bytes_min + random.below(kind.bytes_max - kind.bytes_min + 1);
        let payload = maker.make(number, length as usize);
        let burst_bytes = random.one_of(&[32, 256, 1024, 8192]);
        fpga.begin(&picture(payload), time(number)).expect("the frame fits");
        while fpga.step(payload, burst_bytes) == Progress::Writing {
            if random.once_in(STEPS_PER_STALL) {
                stall(&mut random);
            }
        }
    }
    fpga.end();
}
