//! A channel before it runs: a device joined to its consumers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::ending::{Ending, Teller};
use super::intake::Intake;
use super::reading::{Reading, Shared};
use super::view::{UNKNOWN, View};
use super::workers::{StopOnPanic, Workers};
use super::{Options, Pipeline, PipelineError, Processor};
use crate::archive::Archive;
use crate::capture::Capture;
use crate::clock::Moment;
use crate::device::Device;
use crate::dispatch::{Inlet, Outlet};
use crate::slab::SlabPool;
use crate::tail::Tail;
use crate::wait::Spin;

/// A device and what is done with its frames: what [`Pipeline::start`] takes.
pub struct Channel {
    /// The ring.
    pub device: Device,
    /// A processing worker for each; without any, one that lets frames go by.
    pub processors: Vec<Processor>,
    /// Where frames are kept, if they are.
    pub archive: Option<Archive>,
    /// How it runs. What counts or limits is for this channel alone.
    pub options: Options,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("device", &self.device)
            .field("archive", &self.archive)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Channel {
    /// Threads that may spin besides the one that captures, the camera's included.
    pub(super) fn threads(&self) -> usize {
        let processors = if self.options.inline { 0 } else { self.processors.len().max(1) };
        1 + processors + usize::from(self.archive.is_some())
    }

    /// Attaches to the device and starts the consumers' threads.
    pub(super) fn prepare(self, spin: &Spin) -> Result<(Reading, Pipeline), PipelineError> {
        let Channel { device, mut processors, archive, options } = self;
        if processors.is_empty() {
            processors.push(Box::new(|_| {}));
        }
        let tail = Tail::attach(&device, options.start)?;
        device.start()?;
        let (proc, proc_end, processors) = proc_outlet(processors, &options)?;
        let (arch, arch_end) = archive
            .as_ref()
            .map(|_| Outlet::new(options.arch.policy, options.capacity(&options.arch)))
            .unzip();
        let capture = capture(device, tail, (proc, arch), &options);
        let view = View {
            device: Arc::clone(&capture.device),
            books: Arc::clone(&capture.books),
            archive: Arc::default(),
            began: Moment::now(),
            archives: archive.is_some(),
            expected: Arc::new(AtomicU64::new(UNKNOWN)),
        };
        let shared = Shared {
            stop: Arc::default(),
            expected: Arc::clone(&view.expected),
            left: Arc::default(),
        };
        let intake = |inlet| Intake::new(inlet, options.wait, spin.clone());
        let consumers = Consumers {
            proc: proc_end.map(|inlet| (processors, intake(inlet))),
            arch: archive.zip(arch_end.map(intake)),
        };
        let workers = consumers.start(&view, &shared, &options)?;
        let ending = Ending::default();
        let (stop, teller) = (Arc::clone(&shared.stop), Teller::of(ending.clone()));
        let reading = Reading::new(capture, (options.limits, options.wait), shared, teller);
        let workers = workers.handles;
        Ok((reading, Pipeline { stop, view, ending, capture: None, workers }))
    }
}

fn capture(
    device: Device,
    tail: Tail,
    outlets: (Outlet, Option<Outlet>),
    options: &Options,
) -> Capture {
    let pool = match outlets.1 {
        Some(_) => SlabPool::with_huge_pages(options.slab_bytes),
        None => SlabPool::new(options.slab_bytes),
    };
    let mut capture = Capture::new(Arc::new(device), tail, pool, options.origin, outlets);
    if let Some(credit) = &options.credit {
        capture.set_credit(Arc::clone(credit));
    }
    capture
}

/// Consumers and the queues that they work at.
struct Consumers {
    proc: Option<(Vec<Processor>, Intake)>,
    arch: Option<(Archive, Intake)>,
}

impl Consumers {
    fn start(
        self,
        view: &View,
        shared: &Shared,
        options: &Options,
    ) -> Result<Workers, PipelineError> {
        let waits_for_them = options.credit.is_some();
        let stop_on_panic = waits_for_them.then(|| StopOnPanic(Arc::clone(&shared.stop)));
        let mut workers = Workers::default();
        if let Some((processors, frames)) = self.proc {
            workers.process(processors, &frames, view, stop_on_panic.as_ref())?;
        }
        if let Some((archive, frames)) = self.arch {
            let slabs = options.slab_bytes / SlabPool::class_bytes(view.device.record_bytes_max());
            let frames = frames.unhurried(slabs.min(options.arch.queue_frames));
            workers.archive(archive, frames, view, Arc::clone(&shared.left), stop_on_panic)?;
        }
        Ok(workers)
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
