//! Runs the stages on threads: one that captures, the processing workers, and the archive's.
//!
//! Nothing else in the driver starts threads or sleeps.

mod channel;
mod ending;
mod intake;
mod reading;
mod rhythm;
mod run;
mod turns;
mod view;
mod workers;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::archive::{Archive, ArchiveCounters};
use crate::capture::Origin;
use crate::device::{Device, DeviceError};
pub use crate::dispatch::Processor;
use crate::policy::{Policy, Take, WhenFull};
use crate::slab::SlabPool;
use crate::stats::Snapshot;
use crate::tail::StartAt;
use crate::wait::{Spin, Wait};
pub use channel::Channel;
use ending::Ending;
use run::Run;
use view::View;

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
    /// Makes the camera wait for the driver, as no camera does: see [`set_credit`](crate::capture::Capture::set_credit).
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
    ending: Ending,
    /// Shared with the other channels of the thread; `None` once it was joined.
    capture: Option<Arc<JoinHandle<()>>>,
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
        processors: Vec<Processor>,
        archive: Option<Archive>,
        options: &Options,
    ) -> Result<Pipeline, PipelineError> {
        let channel = Channel { device, processors, archive, options: options.clone() };
        let mut pipelines = Pipeline::start_several(vec![channel])?;
        Ok(pipelines.pop().expect("one channel, one pipeline"))
    }

    /// Attaches to several devices and starts; one thread captures from all of them, at each step from
    /// the one whose writer is nearest to what is read next, by the share of its ring. No channel waits longer than
    /// a few steps for each of the others. A channel's pipeline comes back in its place: it has books,
    /// consumers' threads, limits and an end of its own, while the others go on.
    ///
    /// A processor that runs inline holds all channels up. Threads that capture spin where one of the
    /// channels asks for it.
    ///
    /// # Errors
    /// As [`Pipeline::start`]; then no channel is started.
    pub fn start_several(channels: Vec<Channel>) -> Result<Vec<Pipeline>, PipelineError> {
        let spin = Spin::of(1 + channels.iter().map(Channel::threads).sum::<usize>());
        let prepared: Result<Vec<_>, _> =
            channels.into_iter().map(|channel| channel.prepare(&spin)).collect();
        let (readings, mut pipelines): (Vec<_>, Vec<_>) = prepared?.into_iter().unzip();
        let run = Run::new(readings, spin);
        let thread = Arc::new(spawn("capture", move || run.run())?);
        pipelines.iter_mut().for_each(|pipeline| pipeline.capture = Some(Arc::clone(&thread)));
        Ok(pipelines)
    }

    /// Asks for the end. What was found is still delivered.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether nothing will be found any more.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.ending.is_told()
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
        let mut ended_by = self.ending.wait();
        // Whoever is the last one of the thread sees it off.
        if let Some(Err(_)) = self.capture.take().and_then(Arc::into_inner).map(JoinHandle::join) {
            ended_by = ended_by.and(Err(PipelineError::Panicked { name: "capture" }));
        }
        for (name, worker) in self.workers.drain(..) {
            if worker.join().is_err() && ended_by.is_ok() {
                ended_by = Err(PipelineError::Panicked { name });
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

fn spawn<T: Send + 'static>(
    name: &'static str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, PipelineError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|source| PipelineError::Spawn { name, source })
}
