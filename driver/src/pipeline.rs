//! Runs the stages on threads: one that captures, the processing workers, and the archive's.
//!
//! Nothing else in the driver starts threads or sleeps.

mod intake;
mod rhythm;
mod run;
mod view;
mod workers;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::archive::{Archive, ArchiveCounters};
use crate::capture::{Capture, Origin};
use crate::clock::Moment;
use crate::device::{Device, DeviceError};
pub use crate::dispatch::Processor;
use crate::dispatch::{Inlet, Losses, Outlet};
use crate::policy::{Policy, Take, WhenFull};
use crate::slab::SlabPool;
use crate::stats::Snapshot;
use crate::tail::{StartAt, Tail};
use crate::wait::{Spin, Wait};
use intake::Intake;
use run::Run;
use view::{UNKNOWN, View};
use workers::{StopOnPanic, Workers};

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
    /// What the threads do while there is nothing to do.
    pub wait: Wait,
    /// Runs the one processor on the capturing thread: no queue, nobody is woken, and nothing is
    /// captured while it works. For small frames, and to measure.
    pub inline: bool,
}

impl Options {
    /// Frames that a consumer's queue needs to hold: never more than there are slabs.
    fn capacity(&self, consumer: &ConsumerOptions) -> usize {
        consumer.queue_frames.min(self.slab_bytes / SlabPool::class_bytes(1) + 1)
    }
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
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Limits {
    /// After so many frames were found whole.
    pub frames: Option<u64>,
    /// After no frame came for so long.
    pub silence: Option<Duration>,
    /// When more was lost, by the ring and by the consumer that lost more. What a policy leaves out is
    /// no loss.
    pub lost: Option<LossLimit>,
}

/// How much may be lost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LossLimit {
    /// So many frames.
    Frames(u64),
    /// Such a share of all frames so far, in per cent. Above 0 it allows one frame however short the
    /// run is, so that a loss at the beginning does not end it.
    Percent(f64),
}

impl LossLimit {
    /// Whether `lost` of `expected` frames are more than that.
    #[must_use]
    pub fn is_exceeded(self, lost: u64, expected: u64) -> bool {
        match self {
            LossLimit::Frames(frames) => lost > frames,
            LossLimit::Percent(percent) => {
                let is_allowed = lost <= u64::from(percent > 0.0);
                !is_allowed && lost as f64 * 100.0 > percent * expected as f64
            }
        }
    }
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
            wait: Wait::default(),
            inline: false,
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
    /// More was lost than [`Limits::lost`] allows.
    Loss,
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
    /// Several processors cannot share the capturing thread.
    #[error("{processors} processors cannot run inline, on the one capturing thread; give one")]
    Inline {
        /// How many there are.
        processors: usize,
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
    /// `None` once it was joined.
    capture: Option<JoinHandle<Result<EndedBy, DeviceError>>>,
    workers: Vec<(&'static str, JoinHandle<()>)>,
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

impl Pipeline {
    /// Attaches to the device and starts: one processing worker for each processor, unless the one
    /// processor is to run inline, and one for the archive if there is one. Without a processor, one that
    /// lets frames go by takes its place.
    ///
    /// # Errors
    /// If the device's counters contradict themselves, it cannot be started, a thread cannot be started, or several processors
    /// are to run inline.
    pub fn start(
        device: Device,
        mut processors: Vec<Processor>,
        archive: Option<Archive>,
        options: &Options,
    ) -> Result<Pipeline, PipelineError> {
        if processors.is_empty() {
            processors.push(Box::new(|_| {}));
        }
        let device = Arc::new(device);
        let tail = Tail::attach(&device, options.start)?;
        device.start()?;
        let exact = tail.is_exact();
        let (proc, proc_end, processors) = proc_outlet(processors, options)?;
        let (arch, arch_end) = archive
            .as_ref()
            .map(|_| Outlet::new(options.arch.policy, options.capacity(&options.arch)))
            .unzip();
        let pool = match archive {
            Some(_) => SlabPool::with_huge_pages(options.slab_bytes),
            None => SlabPool::new(options.slab_bytes),
        };
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
            archives: archive.is_some(),
            exact,
            expected: Arc::new(AtomicU64::new(UNKNOWN)),
        };
        let stop = Arc::new(AtomicBool::new(false));
        let stop_on_panic = options.credit.is_some().then(|| StopOnPanic(Arc::clone(&stop)));
        let threads = 2 + processors.len() + usize::from(archive.is_some());
        let (wait, spin) = (options.wait, Spin::of(threads));
        let intake = |inlet| Intake::new(inlet, wait, spin.clone());
        let mut workers = Workers::default();
        if let Some(inlet) = proc_end {
            workers.process(processors, &intake(inlet), &view, stop_on_panic.as_ref())?;
        }
        let left = Arc::new(Mutex::new(Losses::default()));
        if let (Some(archive), Some(inlet)) = (archive, arch_end) {
            workers.archive(archive, intake(inlet), &view, Arc::clone(&left), stop_on_panic)?;
        }
        let run =
            Run { capture, stop: Arc::clone(&stop), limits: options.limits, wait, spin, left };
        let expected = Arc::clone(&view.expected);
        let capture = spawn("capture", move || run.run(&expected))?;
        Ok(Pipeline { stop, view, capture: Some(capture), workers: workers.handles })
    }

    /// Asks for the end. What was found is still delivered.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether nothing will be found any more.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.capture.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// The books as they stand.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.view.snapshot()
    }

    /// Waits until the run is over and the consumers have finished.
    #[must_use]
    pub fn join(mut self) -> Finished {
        let ended_by = self.join_threads();
        let archive = self.view.archive.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let archive = self.view.archives.then_some(archive);
        Finished { ended_by, snapshot: self.view.snapshot(), archive }
    }

    fn join_threads(&mut self) -> Result<EndedBy, PipelineError> {
        let panicked = |name| PipelineError::Panicked { name };
        let mut ended_by = match self.capture.take().map(JoinHandle::join) {
            Some(Ok(ended_by)) => ended_by.map_err(PipelineError::from),
            Some(Err(_)) => Err(panicked("capture")),
            None => Ok(EndedBy::Stop),
        };
        for (name, worker) in self.workers.drain(..) {
            if worker.join().is_err() && ended_by.is_ok() {
                ended_by = Err(panicked(name));
            }
        }
        ended_by
    }
}

impl Drop for Pipeline {
    /// Stops the run and waits for the consumers, so that an archive is sealed whatever happens.
    fn drop(&mut self) {
        self.stop();
        if let Err(error) = self.join_threads() {
            log::warn!("the driver ended with an error: {error}");
        }
    }
}

/// The way to the processors, its other end, and those of them that need a thread.
fn proc_outlet(
    mut processors: Vec<Processor>,
    options: &Options,
) -> Result<(Outlet, Option<Inlet>, Vec<Processor>), PipelineError> {
    let policy = options.proc.policy;
    if !options.inline {
        let (outlet, inlet) = Outlet::new(policy, options.capacity(&options.proc));
        return Ok((outlet, Some(inlet), processors));
    }
    match processors.pop() {
        Some(processor) if processors.is_empty() => {
            Ok((Outlet::inline(policy, processor), None, processors))
        }
        _ => Err(PipelineError::Inline { processors: processors.len() + 1 }),
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
