//! How a thread waits for what another one writes.

use std::num::NonZeroUsize;
use std::thread::{available_parallelism, yield_now};

/// What a thread does while there is nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wait {
    /// Looks again at once, for ever: the shortest latency, at a whole core for each thread.
    Spin,
    /// Looks again at once when a frame is due, and sleeps between.
    #[default]
    Adaptive,
    /// Sleeps: the least work.
    Sleep,
}

/// A loop that looks again and again.
#[derive(Debug, Clone)]
pub(crate) struct Spin {
    looks: u32,
    yields: bool,
}

impl Spin {
    /// Looks in vain before the core is left to others, some 15 us: what is waited for may be the work of
    /// a thread that has none. Fewer would make a system call of a short wait.
    const LOOKS: u32 = 256;

    /// A loop of one of so many threads that may spin at once, the camera's included. Where each has a
    /// core, none is ever left.
    pub(crate) fn of(threads: usize) -> Spin {
        let cores = available_parallelism().map_or(1, NonZeroUsize::get);
        Spin { looks: 0, yields: cores < threads }
    }

    /// Something was there.
    pub(crate) fn reset(&mut self) {
        self.looks = 0;
    }

    /// Something was not there. True now and then, for what is dear.
    pub(crate) fn relax(&mut self) -> bool {
        self.looks = self.looks.wrapping_add(1);
        if self.yields && self.looks.is_multiple_of(Self::LOOKS) {
            yield_now();
        } else {
            std::hint::spin_loop();
        }
        self.looks.is_multiple_of(16)
    }
}
