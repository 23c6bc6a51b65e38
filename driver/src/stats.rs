//! The books: what became of every frame.
//!
//! * ring: expected = detected + overrun; detected = passed + torn + corrupt.
//! * each consumer: expected = passed = delivered + left by its policy + lost + in flight.
//!
//! While it runs, frames that the camera has completed and the driver has not come to are nobody's
//! loss: the ring's first equation says something at the end only, where a counter tells what is
//! expected.
//!
//! Counters only grow, and reading never resets them. All of them stand behind one lock and every
//! event changes all the numbers that it touches at once, so that the books close at any moment, not only at
//! the end. The capturing thread alone takes that lock for a frame: it enters the frame as in flight before it
//! offers it, and what a consumer's threads have done with theirs they note in a tally, which joins the
//! books when somebody opens them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::latency::{Histogram, Percentiles};
use crate::loss::LossReason;
use crate::pointer::LostSight;

/// Version of [`Snapshot`] as JSON.
pub const SCHEMA: &str = "circbuf.stats/1";

/// The running counts.
#[derive(Debug, Clone, Default)]
pub struct Books {
    /// Frames found, whole or not.
    pub detected: u64,
    /// Frames found whole; those that no slab was free for by what stands around them alone, since
    /// they were not copied.
    pub passed: u64,
    /// Frames refused because the writer was, or may have been, at them.
    pub torn: u64,
    /// Frames refused because their bytes are no frame.
    pub corrupt: u64,
    /// Frames that were overwritten before they were looked at.
    pub overrun: u64,
    /// Whether frames are, or have been, estimated and not counted.
    pub estimated: bool,
    /// The smallest distance in bytes that was seen between the writer and what is read next.
    pub headroom_bytes_min: Option<u64>,
    /// The processing consumer.
    pub proc: Account,
    /// The archiving consumer.
    pub arch: Account,
}

/// What a consumer's threads have done since the books were opened the last time.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    delivered: AtomicU64,
    io: AtomicU64,
    /// Frame found to frame done, by whatever measure of it.
    pub(crate) latency: Histogram,
}

impl Tally {
    /// Notes frames that the consumer is done with, and that were entered as in flight.
    pub(crate) fn deliver(&self, frames: u64) {
        self.delivered.fetch_add(frames, Ordering::Release);
    }

    /// Notes frames that were entered as in flight and could not be written.
    pub(crate) fn lose(&self, frames: u64) {
        self.io.fetch_add(frames, Ordering::Release);
    }

    fn join(&self, account: &mut Account) {
        account.deliver(self.delivered.swap(0, Ordering::Acquire));
        let lost = self.io.swap(0, Ordering::Acquire);
        account.io += lost;
        account.in_flight -= lost;
    }
}

/// Books that several threads keep.
#[derive(Debug, Default)]
pub(crate) struct SharedBooks {
    books: Mutex<Books>,
    /// Of the processing workers together.
    pub(crate) proc: Tally,
    /// Of the archive: frame found to frame durable.
    pub(crate) arch: Tally,
    /// Frame found to frame in the queues.
    pub(crate) tail_latency: Histogram,
}

impl SharedBooks {
    /// Opens the books as they stand.
    pub(crate) fn open(&self) -> MutexGuard<'_, Books> {
        let mut books = self.enter();
        self.proc.join(&mut books.proc);
        self.arch.join(&mut books.arch);
        books
    }

    /// Opens the books to enter something, without what the consumers' threads have noted meanwhile.
    pub(crate) fn enter(&self) -> MutexGuard<'_, Books> {
        // Whatever panicked with the books open had finished its event.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One consumer's counts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Account {
    /// Frames that were found whole while the consumer was there.
    pub expected: u64,
    /// Frames that it is done with.
    pub delivered: u64,
    /// Frames that its policy left out.
    pub policy: u64,
    /// Lost because no slab was free.
    pub no_slab: u64,
    /// Lost because its queue was full.
    pub queue_full: u64,
    /// Lost because the archive could not be written.
    pub io: u64,
    /// Frames in its queue or in its hands.
    pub in_flight: u64,
}

impl Account {
    /// Enters a frame that was found whole: in flight if the consumer's policy takes it.
    pub(crate) fn expect(&mut self, takes: bool) {
        self.expected += 1;
        self.in_flight += u64::from(takes);
        self.policy += u64::from(!takes);
    }

    /// Enters frames in flight that had to give way in a full queue.
    pub(crate) fn drop_queued(&mut self, frames: u64) {
        self.queue_full += frames;
        self.in_flight -= frames;
    }

    /// Enters frames in flight that gave up their slabs.
    pub(crate) fn give_up_slabs(&mut self, frames: u64) {
        self.no_slab += frames;
        self.in_flight -= frames;
    }

    /// Enters frames that the consumer is done with.
    pub fn deliver(&mut self, frames: u64) {
        self.delivered += frames;
        self.in_flight -= frames;
    }

    /// Whether expected = delivered + policy + lost + in flight.
    #[must_use]
    pub fn closes(&self) -> bool {
        self.expected == self.delivered + self.policy + self.lost() + self.in_flight
    }

    /// Frames lost, for whatever reason.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.no_slab + self.queue_full + self.io
    }
}

impl Books {
    /// Counts frames that the ring lost.
    pub fn ring_lost(&mut self, reason: LossReason, count: u64) {
        match reason {
            LossReason::Overrun => self.overrun += count,
            LossReason::Torn => {
                self.detected += count;
                self.torn += count;
            }
            _ => {
                self.detected += count;
                self.corrupt += count;
            }
        }
    }

    /// Frames that the consumer which lost more did not get, its own policy apart.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.overrun + self.torn + self.corrupt + self.proc.lost().max(self.arch.lost())
    }

    /// Counts one frame that was found whole.
    pub fn ring_passed(&mut self) {
        self.detected += 1;
        self.passed += 1;
    }

    /// Notes whether frames are still counted.
    pub fn note_exact(&mut self, exact: bool) {
        self.estimated |= !exact;
    }

    /// Notes how near the writer was.
    pub fn note_headroom(&mut self, bytes: Option<u64>) {
        if let Some(bytes) = bytes {
            let smallest = self.headroom_bytes_min.unwrap_or(u64::MAX);
            self.headroom_bytes_min = Some(smallest.min(bytes));
        }
    }
}

/// Where the numbers stood at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Snapshot {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Seconds since the driver was attached.
    pub elapsed_s: f64,
    /// Whether all equations of the books hold.
    pub closes: bool,
    /// The ring's book.
    pub ring: RingBook,
    /// The consumers' books.
    pub consumers: ConsumerBooks,
    /// Latencies in microseconds.
    pub latency_us: Latencies,
}

/// The ring's book.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RingBook {
    /// Size of the ring.
    pub bytes: u64,
    /// Frames that the camera completed, by its own counter; `None` where it has none.
    pub frames_expected: Option<u64>,
    /// Frames found, whole or not.
    pub frames_detected: u64,
    /// Frames found whole.
    pub passed: u64,
    /// Frames that were not.
    pub lost: RingLost,
    /// "exact" where frames were counted all the time, so that it is known what was overrun, else
    /// "estimated".
    pub lost_is: &'static str,
    /// Whose numbers and cursors frames have: "camera" where its counters tell them, else "driver", which
    /// counts from where it attached.
    pub numbered_by: &'static str,
    /// How a write pointer that wraps was followed; only where that stands for counters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<PointerBook>,
    /// Smallest distance between writer and reader; `None` where no counter tells it.
    pub headroom_bytes_min: Option<u64>,
}

/// How a pointer was followed: see [`crate::pointer`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PointerBook {
    /// A look later than this after the one before, in milliseconds, proves nothing.
    pub window_ms: f64,
    /// How often it was lost sight of.
    #[serde(flatten)]
    pub lost: LostSight,
}

/// What the ring lost, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RingLost {
    /// Overwritten before they were looked at.
    pub overrun: u64,
    /// Overwritten, or changed, while they were copied.
    pub torn: u64,
    /// Bytes that are no frame.
    pub corrupt: u64,
}

impl RingLost {
    /// Frames lost, for whatever reason.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.overrun + self.torn + self.corrupt
    }
}

/// The consumers' books.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConsumerBooks {
    /// The processing workers together.
    pub proc: ConsumerBook,
    /// The archive.
    pub arch: ArchBook,
}

/// One consumer's book.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ConsumerBook {
    /// Frames that were found whole.
    pub expected: u64,
    /// Frames that it is done with.
    pub delivered: u64,
    /// Frames that its policy left out: a choice, not a loss.
    pub policy: u64,
    /// Frames in its queue or in its hands.
    pub in_flight: u64,
    /// Frames lost.
    pub lost: ConsumerLost,
    /// Whether expected = delivered + policy + lost + in flight.
    pub closes: bool,
}

/// What a consumer lost, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ConsumerLost {
    /// No slab was free (`pool_exhaust` of the C++ program).
    pub no_slab: u64,
    /// Its queue was full (`drops_proc_queue`, `drops_arch_queue`).
    pub queue_full: u64,
    /// The archive could not be written (`arch_io_errors`).
    pub io: u64,
}

impl ConsumerLost {
    /// Frames lost, for whatever reason.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.no_slab + self.queue_full + self.io
    }
}

/// The archive's book.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ArchBook {
    /// Whether there is an archive.
    pub enabled: bool,
    /// As of any consumer.
    #[serde(flatten)]
    pub book: ConsumerBook,
    /// Bytes written, record headers and padding included.
    pub bytes_written: u64,
    /// Segments begun (`arch_rotations` + 1).
    pub segments: u64,
    /// Frames that would survive a power cut.
    pub durable: u64,
}

/// Latencies by stage.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latencies {
    /// Frame found to frame in the queues.
    pub tail: Percentiles,
    /// Frame found to processor done.
    pub proc: Percentiles,
    /// Frame found to frame durable in the archive.
    pub durable: Percentiles,
}

impl From<Account> for ConsumerBook {
    fn from(account: Account) -> ConsumerBook {
        ConsumerBook {
            expected: account.expected,
            delivered: account.delivered,
            policy: account.policy,
            in_flight: account.in_flight,
            lost: ConsumerLost {
                no_slab: account.no_slab,
                queue_full: account.queue_full,
                io: account.io,
            },
            closes: account.closes(),
        }
    }
}

/// An equation of the books that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the books do not close: {equation} is {left} = {right}")]
pub struct Imbalance {
    /// In words.
    pub equation: &'static str,
    /// Its left side.
    pub left: u64,
    /// Its right side.
    pub right: u64,
}

impl Snapshot {
    /// Frames that the consumer which lost more did not get, its own policy apart: what the ring lost
    /// and what it lost itself.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let consumers = &self.consumers;
        self.ring.lost.total() + consumers.proc.lost.total().max(consumers.arch.book.lost.total())
    }

    /// Checks all equations.
    ///
    /// # Errors
    /// With the first one that does not hold.
    pub fn check_balance(&self) -> Result<(), Imbalance> {
        let (ring, proc, arch) = (&self.ring, &self.consumers.proc, &self.consumers.arch.book);
        let lost = ring.lost;
        let found = ring.frames_detected + lost.overrun;
        equal("ring: expected = detected + overrun", ring.frames_expected.unwrap_or(found), found)?;
        let detected = ring.passed + lost.torn + lost.corrupt;
        equal("ring: detected = passed + torn + corrupt", ring.frames_detected, detected)?;
        equal("proc: expected = passed", proc.expected, ring.passed)?;
        proc.check("proc: expected = delivered + policy + lost + in flight")?;
        if self.consumers.arch.enabled {
            equal("arch: expected = passed", arch.expected, ring.passed)?;
        }
        arch.check("arch: expected = delivered + policy + lost + in flight")
    }
}

impl ConsumerBook {
    fn check(&self, equation: &'static str) -> Result<(), Imbalance> {
        let accounted = self.delivered + self.policy + self.lost.total() + self.in_flight;
        equal(equation, self.expected, accounted)
    }
}

fn equal(equation: &'static str, left: u64, right: u64) -> Result<(), Imbalance> {
    match left == right {
        true => Ok(()),
        false => Err(Imbalance { equation, left, right }),
    }
}
