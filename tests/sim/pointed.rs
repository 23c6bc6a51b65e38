//! A camera that has a write pointer and no counters, in virtual time: the bus takes it, and so does
//! whoever looks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use circbuf_driver::device::Device;
use circbuf_driver::pointer::Sighting;
use circbuf_tests::{Random, SteppedCamera};

/// The bus, in bytes a second.
const BUS_BYTES_PER_S: u64 = 10_000_000;

/// What a chunk takes on it.
const CHUNK_NS: u64 = 32 * 1_000_000_000 / BUS_BYTES_PER_S;

/// A pointer and the time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pointed {
    now_ns: Arc<AtomicU64>,
    pointer: Arc<AtomicU64>,
    /// Whether the pointer moves before the header is stamped.
    ahead: bool,
}

impl Pointed {
    pub(crate) fn of(ahead: bool) -> Pointed {
        Pointed { ahead, ..Pointed::default() }
    }

    /// A driver's view of the camera. Looking takes time before the pointer is read, and behind.
    pub(crate) fn device(&self, camera: &SteppedCamera, most: u32, mut random: Random) -> Device {
        self.note(camera);
        let seen = self.clone();
        let look = move || {
            let before_ns = seen.pass(random.below(2000));
            let pointer = seen.pointer.load(Ordering::Relaxed);
            let at_ns = seen.pass(random.below(2000));
            Ok(Sighting { pointer, before_ns, after_ns: at_ns + 2000 })
        };
        let ring = camera.fpga().file().ring_fd();
        let device = Device::with_pointer(ring, Some(most), look).unwrap();
        device.with_bus_rate(BUS_BYTES_PER_S)
    }

    /// Lets time go by, in nanoseconds; when it began.
    pub(crate) fn pass(&self, ns: u64) -> u64 {
        self.now_ns.fetch_add(ns, Ordering::Relaxed)
    }

    /// The bus has moved a chunk.
    pub(crate) fn chunk(&self, camera: &SteppedCamera) {
        self.pass(CHUNK_NS);
        self.note(camera);
    }

    /// The camera has changed its pointer.
    pub(crate) fn note(&self, camera: &SteppedCamera) {
        self.pointer.store(camera.pointer(self.ahead), Ordering::Relaxed);
    }
}
