//! The camera: a source, the FPGA and a pace, run to an end.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::channel::Channel;
use crate::clock::{Clock, RunningClock};
use crate::dma::RegisterPage;
use crate::fault::{Faults, FaultsError};
use crate::fpga::{Fpga, FrameError, Setup, SetupError};
use crate::ledger::Ledger;
use crate::model::{Gap, Model};
use crate::pace::{Pace, PaceError};
use crate::pci::{HostRing, Vectors};
use crate::report::{Emitted, EndedBy, Report};
use crate::ring_file::RingFile;
use crate::source::{Source, SourceError};

/// How a camera behaves.
#[derive(Debug)]
pub struct Options {
    /// What happens to the gap behind a frame.
    pub gap: Gap,
    /// Leaves the interrupt handler out: no frame headers are stamped.
    pub bare: bool,
    /// Frame rate and bus.
    pub pace: Pace,
    /// Which time the camera lives in.
    pub clock: Clock,
    /// When it ends; it always ends with the source or when it is stopped.
    pub limit: Limit,
    /// Where the truth about every frame goes.
    pub ledger: Ledger,
    /// Cursor below which the driver has released the ring. With it no frame is begun before its
    /// slot is free: no camera waits like this, but tests and benchmarks want it.
    pub credit: Option<Arc<AtomicU64>>,
    /// What goes wrong.
    pub faults: Faults,
}

impl Options {
    /// As `model` behaves: its gap and its bus, real time, no frame rate, no limit, no ledger, no
    /// faults.
    #[must_use]
    pub fn of(model: Model) -> Self {
        Self {
            gap: model.gap(),
            bare: false,
            pace: Pace { fps: None, bus_bytes_per_s: Some(model.bus_bytes_per_s()) },
            clock: Clock::Real,
            limit: Limit::default(),
            ledger: Ledger::none(),
            credit: None,
            faults: Faults::default(),
        }
    }
}

impl Options {
    /// Checks them, and tells how the FPGA is to be set up for a ring of `ring_bytes`.
    fn setup(&self, source: &Source, ring_bytes: u64) -> Result<Setup, CameraError> {
        self.pace.check()?;
        self.faults.check(!self.bare)?;
        let of_source = source.payload_bytes_max();
        Ok(Setup {
            gap: self.gap,
            stamped: !self.bare,
            payload_bytes_max: self.faults.payload_bytes_max(of_source, ring_bytes),
            geometry: source.geometry(),
            frame_period_ns: self.pace.frame_period_ns(),
        })
    }
}

/// When a camera ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limit {
    /// After so many frames.
    pub frames: Option<u64>,
    /// No frame is exposed so long after the first one, or later.
    pub time: Option<Duration>,
}

/// A camera that cannot be made or go on.
#[derive(Debug, thiserror::Error)]
pub enum CameraError {
    /// The frame rate is none.
    #[error(transparent)]
    Pace(#[from] PaceError),
    /// The ring is too small, or cannot be mapped or named.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The faults are none of this camera's.
    #[error(transparent)]
    Faults(#[from] FaultsError),
    /// The source cannot make the next picture.
    #[error("frame {number}: {source}")]
    Source {
        /// Number of the frame.
        number: u64,
        /// What is wrong.
        source: SourceError,
    },
    /// The FPGA cannot write the next picture.
    #[error("frame {number}: {source}")]
    Frame {
        /// Number of the frame.
        number: u64,
        /// What is wrong.
        source: FrameError,
    },
    /// The thread of a camera cannot be started.
    #[error("cannot start the camera's thread: {0}")]
    Thread(std::io::Error),
}

/// A camera: takes pictures from a source and writes them into a ring.
#[derive(Debug)]
pub struct Camera {
    source: Source,
    channel: Channel,
    clock: Clock,
    /// Since the first frame.
    running: Option<RunningClock>,
    limit: Limit,
}

impl Camera {
    /// Sets the FPGA up and gives the ring its name; no frame is written yet.
    ///
    /// # Errors
    /// The ring does not hold four of the source's largest slots, or cannot be mapped or named;
    /// the frame rate is none; a fault is about headers, and the ring is bare.
    pub fn new(ring: RingFile, source: Source, options: Options) -> Result<Self, CameraError> {
        let setup = options.setup(&source, ring.ring_bytes())?;
        Self::around(setup, source, options, |setup| Fpga::new(ring, setup))
    }

    /// The camera of a PCI function. It writes nothing until it is [attached](Self::attach) to a ring.
    pub(crate) fn of_function(
        registers: RegisterPage,
        vectors: Arc<Vectors>,
        ring: Arc<HostRing>,
        (source, options): (Source, Options),
    ) -> Result<Self, CameraError> {
        let setup = options.setup(&source, ring.bytes())?;
        Self::around(setup, source, options, |setup| {
            Fpga::of_function(registers, vectors, ring, setup)
        })
    }

    fn around(
        setup: Setup,
        mut source: Source,
        options: Options,
        fpga: impl FnOnce(Setup) -> Result<Fpga, SetupError>,
    ) -> Result<Self, CameraError> {
        if options.ledger.is_kept() {
            source.keep_checksums();
        }
        let channel = Channel::new(fpga(setup)?, &options.pace)
            .with_faults(&options.faults)?
            .with_ledger(options.ledger)
            .with_credit(options.credit);
        Ok(Self { source, channel, clock: options.clock, running: None, limit: options.limit })
    }

    /// Goes on in a host's memory, with or without waiting for the driver, when it is
    /// [run](Self::run_on) again.
    pub(crate) fn attach(&mut self, ring: Arc<HostRing>, credit: Option<Arc<AtomicU64>>) {
        self.channel.attach(ring, credit);
    }

    /// Tells the driver that the camera stands still, and may go on.
    pub(crate) fn rest(&mut self) {
        self.channel.rest();
    }

    /// Tells the driver that the camera has ended, as one does that comes to an end by itself.
    pub(crate) fn end(&mut self) {
        self.channel.end();
    }

    /// The flag that stops it, which ends a read of the source as well.
    pub(crate) fn stop_flag(&self) -> Arc<AtomicBool> {
        self.source.stop_flag().unwrap_or_default()
    }

    pub(crate) fn max_slot_bytes(&self) -> u64 {
        self.channel.max_slot_bytes()
    }

    /// What it did. The driver is told that it has ended.
    pub(crate) fn into_report(self, ended_by: EndedBy) -> Report {
        self.channel.report(ended_by)
    }

    /// The ring, for a driver that maps it on its own.
    #[must_use]
    pub fn ring(&self) -> &RingFile {
        self.channel.ring()
    }

    /// Counters that follow the camera while it runs.
    #[must_use]
    pub fn emitted(&self) -> Arc<Emitted> {
        self.channel.emitted()
    }

    /// Writes frames until a limit, the end of the source, or `stop`; the last frame is whole.
    /// The ring then says that the camera has ended, also after an error or a panic.
    ///
    /// # Errors
    /// The source fails, or makes a picture larger than it had promised.
    pub fn run(mut self, stop: &AtomicBool) -> Result<Report, CameraError> {
        let ended_by = self.run_on(stop)?;
        Ok(self.into_report(ended_by))
    }

    /// As [`run`](Self::run); after a stop it can go on. Its driver is told of an end that is one.
    pub(crate) fn run_on(&mut self, stop: &AtomicBool) -> Result<EndedBy, CameraError> {
        let mut clock = self.running.take().unwrap_or_else(|| self.clock.start());
        let ended_by = loop {
            if let Some(ended_by) = self.frame(&mut clock, stop).transpose() {
                break ended_by;
            }
        };
        self.running = Some(clock);
        if matches!(ended_by, Ok(EndedBy::Frames | EndedBy::Time | EndedBy::Source)) {
            self.channel.end();
        }
        ended_by
    }

    /// Runs the camera in a thread of its own.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn spawn(self) -> Result<CameraThread, CameraError> {
        self.spawn_after(Duration::ZERO)
    }

    /// As [`spawn`](Self::spawn); until `delay` is over, the ring stays empty.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn spawn_after(self, delay: Duration) -> Result<CameraThread, CameraError> {
        // The source's own flag, so that a stop also ends a read that waits.
        let stop = self.stop_flag();
        let stopped = Arc::clone(&stop);
        let delayed = move || {
            let delay_ns = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
            Clock::Real.start().sleep_until(delay_ns, &stopped);
            self.run(&stopped)
        };
        let thread = std::thread::Builder::new()
            .name("camera".to_owned())
            .spawn(delayed)
            .map_err(CameraError::Thread)?;
        Ok(CameraThread { stop, thread: Some(thread) })
    }

    /// Writes the next frame, unless there is a reason to end.
    fn frame(
        &mut self,
        clock: &mut RunningClock,
        stop: &AtomicBool,
    ) -> Result<Option<EndedBy>, CameraError> {
        let number = self.channel.frames();
        let exposure = self.channel.expose(clock);
        if let Some(ended_by) = self.limit.reached(number, self.channel.run_time(exposure), stop) {
            return Ok(Some(ended_by));
        }
        let picture = match self.source.next(number, exposure.time) {
            Ok(Some(picture)) => picture,
            Ok(None) => return Ok(Some(EndedBy::Source)),
            Err(_) if stop.load(Ordering::Relaxed) => return Ok(Some(EndedBy::Stop)),
            Err(source) => return Err(CameraError::Source { number, source }),
        };
        if exposure.is_scheduled {
            clock.sleep_until(exposure.at_ns, stop);
        }
        let frame = self.channel.make(&picture, exposure);
        let frame = frame.map_err(|source| CameraError::Frame { number, source })?;
        self.channel.wait_for_credit(&frame, stop);
        if stop.load(Ordering::Relaxed) {
            return Ok(Some(EndedBy::Stop));
        }
        self.channel.emit(&frame, exposure, clock, stop);
        Ok(None)
    }
}

impl Limit {
    fn reached(&self, frames: u64, run_time: Duration, stop: &AtomicBool) -> Option<EndedBy> {
        if stop.load(Ordering::Relaxed) {
            Some(EndedBy::Stop)
        } else if self.frames.is_some_and(|limit| frames >= limit) {
            Some(EndedBy::Frames)
        } else if self.time.is_some_and(|limit| run_time >= limit) {
            Some(EndedBy::Time)
        } else {
            None
        }
    }
}

/// A camera that runs in a thread of its own. Dropping it stops the camera and waits for it.
#[derive(Debug)]
pub struct CameraThread {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Report, CameraError>>>,
}

impl CameraThread {
    /// Asks the camera to end behind the frame that it is writing.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether the camera has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the camera's end.
    ///
    /// # Errors
    /// As [`Camera::run`].
    ///
    /// # Panics
    /// If the camera's thread did.
    pub fn join(mut self) -> Result<Report, CameraError> {
        let thread = self.thread.take().expect("only joining takes the thread");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for CameraThread {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.stop();
        match thread.join() {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => log::warn!("the camera ended with an error: {error}"),
            Err(_) => log::warn!("the camera's thread panicked"),
        }
    }
}

#[cfg(test)]
mod tests;
