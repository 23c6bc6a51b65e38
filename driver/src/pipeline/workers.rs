//! The consumers' threads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::intake::Intake;
use super::view::View;
use super::{PipelineError, spawn};
use crate::archive::{Archive, ArchiveCounters};
use crate::clock::{Moment, monotonic_ns};
use crate::dispatch::{Delivery, Losses, NoDelivery, Processor};
use crate::stats::SharedBooks;

/// The consumers' threads.
#[derive(Default)]
pub(super) struct Workers {
    pub(super) handles: Vec<(&'static str, JoinHandle<()>)>,
}

impl Workers {
    pub(super) fn process(
        &mut self,
        processors: Vec<Processor>,
        frames: &Intake,
        view: &View,
        stop_on_panic: Option<&StopOnPanic>,
    ) -> Result<(), PipelineError> {
        for processor in processors {
            let (frames, books) = (frames.clone(), Arc::clone(&view.books));
            let stop_on_panic = stop_on_panic.cloned();
            let work = move || {
                let _watched = stop_on_panic;
                process(processor, frames, &books);
            };
            self.handles.push(("proc", spawn("proc", work)?));
        }
        Ok(())
    }

    pub(super) fn archive(
        &mut self,
        archive: Archive,
        frames: Intake,
        view: &View,
        left: Arc<Mutex<Losses>>,
        stop_on_panic: Option<StopOnPanic>,
    ) -> Result<(), PipelineError> {
        let worker = ArchiveWorker {
            archive,
            books: Arc::clone(&view.books),
            published: Arc::clone(&view.archive),
            entered: ArchiveCounters::default(),
        };
        let work = move || {
            let _watched = stop_on_panic;
            worker.run(frames, &left);
        };
        self.handles.push(("arch", spawn("arch", work)?));
        Ok(())
    }
}

/// Ends a run in which the capture would wait for ever for a worker that has panicked.
#[derive(Clone)]
pub(super) struct StopOnPanic(pub(super) Arc<AtomicBool>);

impl Drop for StopOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

fn process(mut processor: Processor, mut frames: Intake, books: &SharedBooks) {
    while let Ok(delivery) = frames.next(None) {
        processor(&delivery);
        let detected_ns = delivery.detected.monotonic_ns;
        // The slab is free before the books say that the frame is done.
        drop(delivery);
        books.proc.deliver(1);
        books.proc.latency.record(monotonic_ns().saturating_sub(detected_ns));
    }
}

struct ArchiveWorker {
    archive: Archive,
    books: Arc<SharedBooks>,
    published: Arc<Mutex<ArchiveCounters>>,
    /// What has been entered in the books.
    entered: ArchiveCounters,
}

impl ArchiveWorker {
    /// How long syncs may wait when no frame comes.
    const TICK: Duration = Duration::from_millis(20);

    /// How long completions may: a slab is free only then, and the next frame may want it.
    const WRITE_TICK: Duration = Duration::from_millis(1);

    /// Frames that are appended before anybody hears of them.
    const BURST_FRAMES: usize = 16;

    fn run(mut self, mut frames: Intake, left: &Mutex<Losses>) {
        loop {
            match self.next(&mut frames) {
                Ok(delivery) => self.append_burst(delivery, &mut frames),
                Err(NoDelivery::Yet) => self.archive.poll(Moment::now()),
                Err(NoDelivery::EverAgain) => break,
            }
            self.enter();
        }
        let left = std::mem::take(&mut *left.lock().unwrap_or_else(PoisonError::into_inner));
        left.iter().for_each(|loss| self.archive.append_loss(loss, Moment::now()));
        self.archive.close(Moment::now());
        self.enter();
    }

    /// The next frame; with nothing in the archive's hands there is no need to look up in between.
    fn next(&self, frames: &mut Intake) -> Result<Delivery, NoDelivery> {
        let tick = if self.archive.is_writing() { Self::WRITE_TICK } else { Self::TICK };
        frames.next((self.entered.in_flight > 0).then_some(tick))
    }

    /// Appends what waits, so that it shares a sync where every frame is to be durable, and an entry
    /// in the books.
    fn append_burst(&mut self, first: Delivery, frames: &mut Intake) {
        let rest = frames.try_iter().take(Self::BURST_FRAMES - 1);
        for delivery in std::iter::once(first).chain(rest) {
            let now = Moment::now();
            delivery.lost.iter().for_each(|loss| self.archive.append_loss(loss, now));
            self.archive.append(delivery.frame, now);
        }
        self.archive.poll(Moment::now());
    }

    /// Enters in the books what the archive did since the last time.
    fn enter(&mut self) {
        let counters = self.archive.counters();
        let tally = &self.books.arch;
        tally.deliver(counters.frames_written - self.entered.frames_written);
        tally.lose(counters.frames_lost_io - self.entered.frames_lost_io);
        let now_ns = monotonic_ns();
        for detected_ns in self.archive.drain_durable() {
            tally.latency.record(now_ns.saturating_sub(detected_ns));
        }
        *self.published.lock().unwrap_or_else(PoisonError::into_inner) = counters.clone();
        self.entered = counters;
    }
}
