//! Runs the stages on threads: one that captures, the processing workers, and the archive's.
//!
//! This is the only file of the driver that starts threads or sleeps.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::archive::{Archive, ArchiveCounters};
use crate::capture::{Capture, Captured, Origin, SharedBooks, lock};
use crate::clock::Moment;
use crate::device::{Device, DeviceError};
use crate::dispatch::{Delivery, Losses, Outlet};
use crate::policy::{Policy, Take, WhenFull};
use crate::slab::SlabPool;
use crate::stats::{ArchBook, ConsumerBooks, Latencies, RingBook, RingLost, SCHEMA, Snapshot};
use crate::tail::{StartAt, Tail};

/// What one processing worker does with each frame that it is given.
pub type Processor = Box<dyn FnMut(&Delivery) + Send>;

/// How a driver runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to begin.
    pub start: StartAt,
    /// Memory for slabs in bytes, mapped on demand.
    pub slab_bytes: usize,
    /// The processing workers' share.
    pub proc: ConsumerOptions,
    /// The archive's share.
    pub arch: ConsumerOptions,
    /// Whose frames these are.
    pub origin: Origin,
    /// When to end without being told.
    pub limits: Limits,
    /// Makes the camera wait for the driver, as no camera does: see [`Capture::set_credit`].
    pub credit: Option<Arc<AtomicU64>>,
}

/// One consumer's share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConsumerOptions {
    /// Which frames, and what gives way.
    pub policy: Policy,
    /// Frames that its queue holds, at least 1.
    pub queue_frames: usize,
}

/// When to end without being told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// After so many frames were found whole.
    pub frames: Option<u64>,
    /// After no frame came for so long.
    pub silence: Option<Duration>,
}

impl Default for Options {
    fn default() -> Options {
        let consumer = |fps| ConsumerOptions {
            policy: Policy { take: Take::Fps(fps), when_full: WhenFull::DropNewest },
            queue_frames: 128,
        };
        Options {
            start: StartAt::Newest,
            slab_bytes: 64 << 20,
            proc: consumer(1000.0),
            arch: consumer(200.0),
            origin: Origin::default(),
            limits: Limits::default(),
            credit: None,
        }
    }
}

/// Why a run is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedBy {
    /// [`Pipeline::stop`] was called.
    Stop,
    /// The camera said that it ended, and everything was read.
    Camera,
    /// [`Limits::frames`] was reached.
    Frames,
    /// [`Limits::silence`] was reached.
    Silence,
    /// The camera's process is gone without having said so, and everything was read.
    Abandoned,
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The device cannot be used any more. The consumers have finished what they were given.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A thread could not be started.
    #[error("cannot start the {name} thread: {source}")]
    Spawn {
        /// Which one.
        name: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A processor panicked. The other consumers have finished what they were given.
    #[error("the {name} thread panicked")]
    Panicked {
        /// Which one.
        name: &'static str,
    },
}

/// A driver at work.
#[derive(Debug)]
pub struct Pipeline {
    stop: Arc<AtomicBool>,
    view: View,
    capture: JoinHandle<Result<EndedBy, DeviceError>>,
    workers: Vec<(&'static str, JoinHandle<()>)>,
    archives: bool,
}

/// The end of a run.
#[derive(Debug)]
pub struct Finished {
    /// Why it ended; an error if the device failed.
    pub ended_by: Result<EndedBy, PipelineError>,
    /// The books.
    pub snapshot: Snapshot,
    /// What the archive did, if there was one.
    pub archive: Option<ArchiveCounters>,
}

/// What it takes to make a snapshot.
#[derive(Debug, Clone)]
struct View {
    device: Arc<Device>,
    books: SharedBooks,
    archive: Arc<Mutex<ArchiveCounters>>,
    began: Moment,
    /// Whether frames are counted by the device, and the number of the first one that is expected.
    exact: bool,
    expected: Arc<AtomicU64>,
}

/// [`View::expected`] where no counter tells it.
const UNKNOWN: u64 = u64::MAX;

impl Pipeline {
    /// Attaches to the device and starts: one processing worker for each processor, and one for the
    /// archive if there is one.
    ///
    /// # Errors
    /// If the device's counters contradict themselves, or a thread cannot be started.
    pub fn start(
        device: Device,
        processors: Vec<Processor>,
        archive: Option<Archive>,
        options: &Options,
    ) -> Result<Pipeline, PipelineError> {
        let device = Arc::new(device);
        let tail = Tail::attach(&device, options.start)?;
        let exact = tail.is_exact();
        let (proc, proc_end) = Outlet::new(options.proc.policy, options.proc.queue_frames);
        let (arch, arch_end) = archive
            .as_ref()
            .map(|_| Outlet::new(options.arch.policy, options.arch.queue_frames))
            .unzip();
        let pool = SlabPool::new(options.slab_bytes);
        let mut capture =
            Capture::new(Arc::clone(&device), tail, pool, options.origin, (proc, arch));
        if let Some(credit) = &options.credit {
            capture.set_credit(Arc::clone(credit));
        }
        let view = View {
            device,
            books: Arc::clone(&capture.books),
            archive: Arc::default(),
            began: Moment::now(),
            exact,
            expected: Arc::new(AtomicU64::new(UNKNOWN)),
        };
        let mut workers = Workers::start(processors, &proc_end, &view)?;
        let archives = archive.is_some();
        let left = Arc::new(Mutex::new(Losses::default()));
        if let (Some(archive), Some(end)) = (archive, arch_end) {
            workers.archive(archive, end, &view, Arc::clone(&left))?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let run = Run { capture, stop: Arc::clone(&stop), limits: options.limits, left };
        let expected = Arc::clone(&view.expected);
        let capture = spawn("capture", move || run.run(&expected))?;
        Ok(Pipeline { stop, view, capture, workers: workers.handles, archives })
    }

    /// Asks for the end. What was found is still delivered.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether nothing will be found any more.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.capture.is_finished()
    }

    /// The books as they stand.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.view.snapshot()
    }

    /// Waits until the run is over and the consumers have finished.
    #[must_use]
    pub fn join(self) -> Finished {
        let panicked = |name| PipelineError::Panicked { name };
        let mut ended_by = match self.capture.join() {
            Ok(ended_by) => ended_by.map_err(PipelineError::from),
            Err(_) => Err(panicked("capture")),
        };
        for (name, worker) in self.workers {
            if worker.join().is_err() && ended_by.is_ok() {
                ended_by = Err(panicked(name));
            }
        }
        let archive = self.view.archive.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let archive = self.archives.then_some(archive);
        Finished { ended_by, snapshot: self.view.snapshot(), archive }
    }
}

fn spawn<T: Send + 'static>(
    name: &'static str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, PipelineError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|source| PipelineError::Spawn { name, source })
}

/// The consumers' threads.
struct Workers {
    handles: Vec<(&'static str, JoinHandle<()>)>,
}

impl Workers {
    fn start(
        processors: Vec<Processor>,
        frames: &Receiver<Delivery>,
        view: &View,
    ) -> Result<Workers, PipelineError> {
        let mut handles = Vec::new();
        for processor in processors {
            let (frames, books) = (frames.clone(), Arc::clone(&view.books));
            handles.push(("proc", spawn("proc", move || process(processor, &frames, &books))?));
        }
        Ok(Workers { handles })
    }

    fn archive(
        &mut self,
        archive: Archive,
        frames: Receiver<Delivery>,
        view: &View,
        left: Arc<Mutex<Losses>>,
    ) -> Result<(), PipelineError> {
        let worker = ArchiveWorker {
            archive,
            books: Arc::clone(&view.books),
            published: Arc::clone(&view.archive),
            entered: ArchiveCounters::default(),
        };
        self.handles.push(("arch", spawn("arch", move || worker.run(&frames, &left))?));
        Ok(())
    }
}

fn process(mut processor: Processor, frames: &Receiver<Delivery>, books: &SharedBooks) {
    for delivery in frames {
        processor(&delivery);
        let detected_ns = delivery.detected.monotonic_ns;
        // The slab is free before the books say that the frame is done.
        drop(delivery);
        let mut books = lock(books);
        books.proc.delivered += 1;
        books.proc.in_flight -= 1;
        books.proc_latency.record(Moment::now().monotonic_ns.saturating_sub(detected_ns));
    }
}

struct ArchiveWorker {
    archive: Archive,
    books: SharedBooks,
    published: Arc<Mutex<ArchiveCounters>>,
    /// What has been entered in the books.
    entered: ArchiveCounters,
}

impl ArchiveWorker {
    /// How long completions and syncs may wait when no frame comes.
    const TICK: Duration = Duration::from_millis(20);

    fn run(mut self, frames: &Receiver<Delivery>, left: &Mutex<Losses>) {
        loop {
            match self.next(frames) {
                Ok(delivery) => self.append(delivery),
                Err(RecvTimeoutError::Timeout) => self.archive.poll(Moment::now()),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.enter();
        }
        let left = std::mem::take(&mut *left.lock().unwrap_or_else(PoisonError::into_inner));
        left.iter().for_each(|loss| self.archive.append_loss(loss, Moment::now()));
        self.archive.close(Moment::now());
        self.enter();
    }

    /// The next frame; with nothing in the archive's hands there is no need to look up in between.
    fn next(&self, frames: &Receiver<Delivery>) -> Result<Delivery, RecvTimeoutError> {
        match self.entered.in_flight == 0 {
            true => frames.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => frames.recv_timeout(Self::TICK),
        }
    }

    fn append(&mut self, delivery: Delivery) {
        let now = Moment::now();
        delivery.lost.iter().for_each(|loss| self.archive.append_loss(loss, now));
        self.archive.append(delivery.frame, now);
        self.archive.poll(now);
    }

    /// Enters in the books what the archive did since the last time.
    fn enter(&mut self) {
        let counters = self.archive.counters();
        let mut books = lock(&self.books);
        let delivered = counters.frames_written - self.entered.frames_written;
        let lost = counters.frames_lost_io - self.entered.frames_lost_io;
        books.arch.delivered += delivered;
        books.arch.io += lost;
        books.arch.in_flight -= delivered + lost;
        let now_ns = Moment::now().monotonic_ns;
        for detected_ns in self.archive.drain_durable() {
            books.durable_latency.record(now_ns.saturating_sub(detected_ns));
        }
        drop(books);
        *self.published.lock().unwrap_or_else(PoisonError::into_inner) = counters.clone();
        self.entered = counters;
    }
}

/// The capturing thread.
struct Run {
    capture: Capture,
    stop: Arc<AtomicBool>,
    limits: Limits,
    /// Losses that no frame followed, for the archive.
    left: Arc<Mutex<Losses>>,
}

impl Run {
    /// How often the device is looked at from outside while nothing comes.
    const CHECK: Duration = Duration::from_millis(250);

    fn run(mut self, expected: &AtomicU64) -> Result<EndedBy, DeviceError> {
        let ended_by = self.capture();
        let device = Arc::clone(&self.capture.device);
        let frames = self.capture.tail().expected(&device);
        // A driver that ends before its camera is not answerable for what that completes later.
        let found = || {
            let books = lock(&self.capture.books);
            books.detected + books.overrun
        };
        let camera_ended = matches!(ended_by, Ok(EndedBy::Camera | EndedBy::Abandoned));
        let frames = frames.map(|frames| if camera_ended { frames } else { found() });
        expected.store(frames.unwrap_or(UNKNOWN), Ordering::Release);
        if let Some(arch) = &mut self.capture.arch {
            *self.left.lock().unwrap_or_else(PoisonError::into_inner) = arch.take_untold();
        }
        ended_by
    }

    fn capture(&mut self) -> Result<EndedBy, DeviceError> {
        let mut pause = Pause::default();
        let mut quiet_since = Moment::now();
        let mut checked = quiet_since;
        let mut last_look = None;
        let mut frames = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let now = Moment::now();
            let captured = self.capture.step(now, Moment::now)?;
            if since(checked, now) >= Self::CHECK {
                checked = now;
                self.capture.device.check()?;
            }
            if captured != Captured::Nothing {
                frames += u64::from(captured == Captured::Frame);
                if self.limits.frames.is_some_and(|limit| frames >= limit) {
                    return Ok(EndedBy::Frames);
                }
                (quiet_since, last_look) = (now, None);
                pause.reset();
                continue;
            }
            // Whatever was complete when the camera was found to be gone is read by one more step.
            let drained = self.capture.is_drained();
            if let Some(ended_by) = last_look.filter(|_| drained) {
                return Ok(ended_by);
            }
            last_look = self.gone(since(quiet_since, now));
            if self.limits.silence.is_some_and(|limit| since(quiet_since, now) >= limit) {
                return Ok(EndedBy::Silence);
            }
            if last_look.is_none() || !drained {
                pause.sleep();
            }
        }
        Ok(EndedBy::Stop)
    }

    fn gone(&self, quiet: Duration) -> Option<EndedBy> {
        let device = &self.capture.device;
        if device.has_ended() {
            return Some(EndedBy::Camera);
        }
        (quiet >= Self::CHECK && device.is_abandoned()).then_some(EndedBy::Abandoned)
    }
}

fn since(then: Moment, now: Moment) -> Duration {
    Duration::from_nanos(now.monotonic_ns.saturating_sub(then.monotonic_ns))
}

/// How long to sleep when nothing has come: not at all at first, then longer and longer up to 2 ms, in
/// which a camera at 80 MB/s writes 160 KB.
#[derive(Default)]
struct Pause {
    tries: u32,
}

impl Pause {
    const YIELDS: u32 = 20;

    fn reset(&mut self) {
        self.tries = 0;
    }

    fn sleep(&mut self) {
        self.tries = self.tries.saturating_add(1);
        match self.tries.checked_sub(Self::YIELDS) {
            None => std::thread::yield_now(),
            Some(tries) => std::thread::sleep(
                Duration::from_micros(50 << tries.min(6)).min(Duration::from_millis(2)),
            ),
        }
    }
}

impl View {
    fn snapshot(&self) -> Snapshot {
        let archive = self.archive.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let elapsed = since(self.began, Moment::now());
        let books = lock(&self.books);
        let expected = self.expected.load(Ordering::Acquire);
        let mut snapshot = Snapshot {
            schema: SCHEMA,
            elapsed_s: elapsed.as_secs_f64(),
            closes: true,
            ring: RingBook {
                bytes: self.device.ring().bytes(),
                // While it runs, frames that are complete but not found yet are nobody's loss.
                frames_expected: match (self.exact, expected) {
                    (false, _) => None,
                    (true, UNKNOWN) => Some(books.detected + books.overrun),
                    (true, frames) => Some(frames),
                },
                frames_detected: books.detected,
                passed: books.passed,
                lost: RingLost { overrun: books.overrun, torn: books.torn, corrupt: books.corrupt },
                lost_is: if self.exact { "exact" } else { "estimated" },
                headroom_bytes_min: books.headroom_bytes_min,
            },
            consumers: ConsumerBooks {
                proc: books.proc.into(),
                arch: ArchBook {
                    book: books.arch.into(),
                    bytes_written: archive.bytes_written,
                    segments: archive.segments,
                    durable: archive.durable,
                },
            },
            latency_us: Latencies {
                tail: books.tail_latency.percentiles(),
                proc: books.proc_latency.percentiles(),
                durable: books.durable_latency.percentiles(),
            },
        };
        snapshot.closes = snapshot.check_balance().is_ok();
        snapshot
    }
}
