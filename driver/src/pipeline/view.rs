//! Makes a snapshot of the books at any moment.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::archive::ArchiveCounters;
use crate::clock::Moment;
use crate::device::Device;
use crate::stats::{
    ArchBook, ConsumerBooks, Latencies, PointerBook, RingBook, RingLost, SCHEMA, SharedBooks,
    Snapshot,
};

/// What it takes to make a snapshot.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) device: Arc<Device>,
    pub(super) books: Arc<SharedBooks>,
    pub(super) archive: Arc<Mutex<ArchiveCounters>>,
    pub(super) began: Moment,
    pub(super) archives: bool,
    pub(super) expected: Arc<AtomicU64>,
}

/// [`View::expected`] where no counter tells it.
pub(super) const UNKNOWN: u64 = u64::MAX;

impl View {
    pub(super) fn snapshot(&self) -> Snapshot {
        let archive = self.archive.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let elapsed = Moment::now().since(self.began);
        // Closed again at once: the capturing thread must not wait for the percentiles.
        let books = self.books.open().clone();
        let expected = self.expected.load(Ordering::Acquire);
        let mut snapshot = Snapshot {
            schema: SCHEMA,
            elapsed_s: elapsed.as_secs_f64(),
            closes: true,
            ring: RingBook {
                bytes: self.device.ring().bytes(),
                // While it runs, frames that are complete but not found yet are nobody's loss.
                frames_expected: match (books.estimated, expected) {
                    (true, _) => None,
                    (false, UNKNOWN) => Some(books.detected + books.overrun),
                    (false, frames) => Some(frames),
                },
                frames_detected: books.detected,
                passed: books.passed,
                lost: RingLost { overrun: books.overrun, torn: books.torn, corrupt: books.corrupt },
                lost_is: if books.estimated { "estimated" } else { "exact" },
                numbered_by: if self.device.registers().is_some() { "camera" } else { "driver" },
                pointer: self.device.pointer().map(|pointer| PointerBook {
                    window_ms: pointer.window_ns() as f64 / 1e6,
                    lost: pointer.lost_sight(),
                }),
                headroom_bytes_min: books.headroom_bytes_min,
            },
            consumers: ConsumerBooks {
                proc: books.proc.into(),
                arch: ArchBook {
                    enabled: self.archives,
                    book: books.arch.into(),
                    bytes_written: archive.bytes_written,
                    segments: archive.segments,
                    durable: archive.durable,
                },
            },
            latency_us: Latencies {
                tail: self.books.tail_latency.percentiles(),
                proc: self.books.proc.latency.percentiles(),
                durable: self.books.arch.latency.percentiles(),
            },
        };
        snapshot.closes = snapshot.check_balance().is_ok();
        snapshot
    }
}
