//! One run from the first frame to the books: a camera if it is an embedded one, and the pipeline.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use circbuf_driver::device::pci::{PciOptions, PciPlace};
use circbuf_driver::device::{Device, OpenError};
use circbuf_driver::pipeline::{EndedBy, Finished, Limits, Pipeline};
use circbuf_driver::slab::SlabPool;
use circbuf_driver::stats::Snapshot;
use circbuf_emulator::camera::CameraThread;
use circbuf_emulator::ledger::Ledger;
use circbuf_emulator::report::Report;

use crate::camera::CameraPlan;
use crate::failure::{Failure, log_line};
use crate::options::FromChoice;
use crate::plan::{Decoded, DriverPlan, draw_session};
use crate::status::{StatusLine, interruption, wait};

/// How long a driver waits for a ring that does not exist yet, if `--timeout` does not tell.
const APPEARANCE: Duration = Duration::from_secs(5);

/// How long a ring may be seen with the register page of the one that takes its place. Copies stay so.
const REPLACEMENT: Duration = Duration::from_millis(200);

/// How long a driver of a foreign ring waits for a frame, if `--timeout` does not tell.
const SILENCE: Duration = Duration::from_secs(10);

/// When the driver of a foreign ring ends.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RunLimits {
    pub(crate) seconds: Option<Duration>,
    pub(crate) frames: Option<u64>,
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) finished: Finished,
    /// What the embedded camera says.
    pub(crate) camera: Option<Result<Report, Failure>>,
    pub(crate) decoded: Arc<Decoded>,
    /// By a signal.
    pub(crate) interrupted: bool,
}

/// Runs the embedded camera, its ring a file or in memory, and drives it. `announce` is told what it
/// is before the start.
pub(crate) fn run_embedded(
    camera: &CameraPlan,
    ring_file: Option<&Path>,
    ledger: Ledger,
    driver: &DriverPlan,
    announce: impl FnOnce(&str),
) -> Result<Outcome, Failure> {
    let credit = camera.pace.lossless.then(|| Arc::new(AtomicU64::new(0)));
    let ready = camera.make(ring_file, ledger, credit.clone())?;
    // Not before: opening a source may wait for data or take long, and nothing has to be saved yet.
    let interrupted = interruption()?;
    let ring = ready.camera.ring();
    let device = Device::from_fds(ring.ring_fd(), Some(ring.registers_fd()))?;
    let place = ring_file.map_or("in memory".to_owned(), |path| format!("at {}", path.display()));
    let what = format!(
        "{}, {}, ring of {} bytes {place}",
        ready.source,
        ready.pace,
        device.ring().bytes()
    );
    let silence = driver.driver.timeout.map(|timeout| timeout.duration());
    let limits = Limits { frames: None, silence, lost: driver.loss_limit() };
    let (pipeline, decoded) = start(device, driver, limits, credit)?;
    announce(&what);
    let stuck = camera.stuck_at();
    let camera = ready.camera.spawn().map_err(Failure::failed)?;
    let is_over = || {
        wait(&interrupted)
            || decoded.reader_is_gone.load(Ordering::Relaxed)
            || stuck.is_some_and(|stuck| Instant::now() >= stuck)
    };
    watch(&pipeline, is_over, || camera.stop());
    Ok(finish(pipeline, Some(camera), decoded, &interrupted))
}

/// Drives the ring of somebody else.
pub(crate) fn run_foreign(
    path: &Path,
    driver: &DriverPlan,
    limits: RunLimits,
    announce: impl FnOnce(&str),
) -> Result<Outcome, Failure> {
    let interrupted = interruption()?;
    let (device, waited) = open(path, driver, &interrupted)?;
    announce(&describe(&path.display(), &device));
    let mut driver = driver.clone();
    if waited {
        // The driver was there first: what completed between two of its looks is its own as well.
        driver.driver.from = Some(FromChoice::Oldest);
    }
    drive(device, &driver, (limits, None), &interrupted)
}

/// Drives a PCI function.
pub(crate) fn run_pci(
    place: &PciPlace,
    options: PciOptions,
    driver: &DriverPlan,
    limits: RunLimits,
    announce: impl FnOnce(&str),
) -> Result<Outcome, Failure> {
    let interrupted = interruption()?;
    let device = open_pci(place, options, driver, &interrupted)?;
    announce(&describe(place, &device));
    let credit = options.credit.then(|| Arc::new(AtomicU64::new(0)));
    drive(device, driver, (limits, credit), &interrupted)
}

fn drive(
    device: Device,
    driver: &DriverPlan,
    (limits, credit): (RunLimits, Option<Arc<AtomicU64>>),
    interrupted: &AtomicBool,
) -> Result<Outcome, Failure> {
    let timeout = driver.driver.timeout.map_or(SILENCE, |timeout| timeout.duration());
    let end = limits.seconds.map(|seconds| Instant::now() + seconds);
    let lost = driver.loss_limit();
    let limits = Limits { frames: limits.frames, silence: Some(timeout), lost };
    let (pipeline, decoded) = start(device, driver, limits, credit)?;
    let is_over = || {
        wait(interrupted)
            || decoded.reader_is_gone.load(Ordering::Relaxed)
            || end.is_some_and(|end| Instant::now() >= end)
    };
    watch(&pipeline, is_over, || pipeline.stop());
    Ok(finish(pipeline, None, decoded, interrupted))
}

fn start(
    device: Device,
    driver: &DriverPlan,
    limits: Limits,
    credit: Option<Arc<AtomicU64>>,
) -> Result<(Pipeline, Arc<Decoded>), Failure> {
    let session = draw_session();
    let mut options = driver.options(session, limits)?;
    options.credit = credit;
    check_slab_bytes(&device, options.slab_bytes)?;
    let decoded = Arc::new(Decoded::default());
    let processors = driver.processors(&decoded)?;
    let archive = driver.archive(session, &device)?;
    let pipeline =
        Pipeline::start(device, processors, archive, &options).map_err(Failure::failed)?;
    Ok((pipeline, decoded))
}

/// A pool that cannot hold the largest frame loses it every time.
fn check_slab_bytes(device: &Device, slab_bytes: usize) -> Result<(), Failure> {
    let least = SlabPool::class_bytes(device.record_bytes_max());
    match slab_bytes >= least {
        true => Ok(()),
        false => Err(Failure::usage(format!(
            "--slab-bytes {slab_bytes} cannot hold the largest frame of this ring; it takes {least}"
        ))),
    }
}

/// Opens the ring, waiting for it to appear: camera and driver may be started in either order. A
/// ring that a camera left behind is not waited on, but for the one that takes its place. Also tells
/// whether it had to wait.
fn open(
    path: &Path,
    driver: &DriverPlan,
    interrupted: &AtomicBool,
) -> Result<(Device, bool), Failure> {
    let max_frame_bytes = driver.max_frame_bytes()?;
    let patience = driver.driver.timeout.map_or(APPEARANCE, |timeout| timeout.duration());
    let (end, mut told) = (Instant::now() + patience, false);
    let mut foreign_since = None;
    let from_oldest = driver.driver.from == Some(FromChoice::Oldest);
    loop {
        let opened = Device::open(path, max_frame_bytes);
        let is_foreign = opened.as_ref().is_ok_and(Device::has_foreign_page);
        foreign_since = is_foreign.then(|| foreign_since.unwrap_or_else(Instant::now));
        let waits_for = match &opened {
            Err(error) if error.is_not_found() && may_appear(path) => "there is no such ring yet",
            Ok(_) if foreign_since.is_some_and(|since| since.elapsed() < REPLACEMENT) => {
                "its register page is that of another ring"
            }
            Ok(device) if !from_oldest && (device.has_ended() || device.is_abandoned()) => {
                "the camera of this ring has ended"
            }
            _ => return Ok((opened?, told)),
        };
        if wait(interrupted) {
            return Err(Failure::failed(format!("{}: interrupted: {waits_for}", path.display())));
        }
        if Instant::now() >= end {
            return given_up(path, opened, waits_for);
        }
        if !std::mem::replace(&mut told, true) {
            let patience = patience.as_secs_f64();
            log_line(&format!(
                "circbuf: {}: {waits_for}; waiting up to {patience} s",
                path.display()
            ));
        }
    }
}

/// Brings a PCI function up, waiting for its server to appear.
fn open_pci(
    place: &PciPlace,
    options: PciOptions,
    driver: &DriverPlan,
    interrupted: &AtomicBool,
) -> Result<Device, Failure> {
    let patience = driver.driver.timeout.map_or(APPEARANCE, |timeout| timeout.duration());
    let (end, mut told) = (Instant::now() + patience, false);
    let may_come = match place {
        PciPlace::VfioUser(socket) => may_appear(socket),
        PciPlace::Vfio(_) => false,
    };
    loop {
        match Device::open_pci(place, options) {
            Err(error) if error.is_not_found() && may_come && Instant::now() < end => {
                if !std::mem::replace(&mut told, true) {
                    let patience = patience.as_secs_f64();
                    log_line(&format!(
                        "circbuf: {place}: nobody serves it yet; waiting up to {patience} s"
                    ));
                }
            }
            opened => return Ok(opened?),
        }
        if wait(interrupted) {
            return Err(Failure::failed(format!("{place}: interrupted: nobody serves it")));
        }
    }
}

fn given_up(
    path: &Path,
    opened: Result<Device, OpenError>,
    waits_for: &str,
) -> Result<(Device, bool), Failure> {
    opened?;
    Err(Failure::failed(format!(
        "{}: {waits_for}, and no new one came; use --from oldest to read what is left in it",
        path.display()
    )))
}

/// Nodes do not appear because somebody starts a camera, and nothing appears in a folder that is not
/// there.
fn may_appear(path: &Path) -> bool {
    let folder = path.parent().map_or_else(PathBuf::new, Path::to_owned);
    let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder };
    folder.is_dir() && folder != Path::new("/dev")
}

fn describe(name: &dyn std::fmt::Display, device: &Device) -> String {
    let bytes = device.ring().bytes();
    let by = match device.registers() {
        Some(_) => "with counters",
        None => "without counters: what is lost is estimated, and torn frames may be accepted",
    };
    format!("{name}, ring of {bytes} bytes {by}")
}

/// Waits for the end of the run; asks for it when `is_over`, which sleeps a moment at each call.
fn watch(pipeline: &Pipeline, is_over: impl Fn() -> bool, stop: impl Fn()) {
    let mut line = StatusLine::new();
    let mut before = pipeline.snapshot();
    while !pipeline.is_finished() {
        if is_over() {
            stop();
        }
        line.show(|| {
            let now = pipeline.snapshot();
            let text = status(&before, &now);
            before = now;
            text
        });
    }
    line.clear();
}

/// One line a second: what it came to so far, and the rates of the last second.
fn status(before: &Snapshot, now: &Snapshot) -> String {
    let seconds = (now.elapsed_s - before.elapsed_s).max(1e-3);
    let fps = (now.ring.passed - before.ring.passed) as f64 / seconds;
    let arch = &now.consumers.arch;
    let lost = now.lost();
    let written = (arch.bytes_written - before.consumers.arch.bytes_written) as f64 / seconds / 1e6;
    format!(
        "{:7.1} s  {} frames, {fps:.1}/s, {lost} lost  proc {}  archive {}, {written:.1} MB/s",
        now.elapsed_s, now.ring.passed, now.consumers.proc.delivered, arch.book.delivered,
    )
}

fn finish(
    pipeline: Pipeline,
    camera: Option<CameraThread>,
    decoded: Arc<Decoded>,
    interrupted: &AtomicBool,
) -> Outcome {
    if let Some(camera) = &camera {
        // The pipeline may have failed while the camera goes on.
        camera.stop();
    }
    let camera = camera.map(|camera| camera.join().map_err(Failure::failed));
    let interrupted = interrupted.load(Ordering::Relaxed);
    Outcome { finished: pipeline.join(), camera, decoded, interrupted }
}

impl Outcome {
    fn archive_error(&self) -> String {
        let archive = self.finished.archive.as_ref();
        let error = archive.and_then(|archive| archive.last_error.as_deref());
        error.map_or(String::new(), |error| format!(": {error}"))
    }

    /// Whether the whole time of a foreign ring has gone by without a frame, and nobody cut it short.
    fn has_seen_nothing(&self) -> bool {
        let ring = &self.finished.snapshot.ring;
        let found = ring.frames_detected + ring.lost.overrun;
        self.camera.is_none() && !self.interrupted && found == 0
    }

    /// Why the run as such is a failure, whatever was lost.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match &self.camera {
            Some(Err(failure)) => return Err(failure.clone()),
            Some(Ok(Report { ledger_error: Some(error), .. })) => {
                return Err(Failure::failed(error));
            }
            Some(Ok(_)) | None => {}
        }
        match &self.finished.ended_by {
            Err(error) => return Err(Failure::failed(error)),
            Ok(EndedBy::Silence) => return Err(Failure::failed(silence(&self.finished.snapshot))),
            Ok(EndedBy::Stop) if self.has_seen_nothing() => {
                return Err(Failure::failed(silence(&self.finished.snapshot)));
            }
            Ok(EndedBy::Abandoned) => {
                return Err(Failure::failed(
                    "the camera's process is gone without having ended its ring; what it had \
                     completed was read",
                ));
            }
            Ok(EndedBy::Loss) => {
                return self.finished.snapshot.check_balance().map_err(Failure::failed);
            }
            Ok(EndedBy::Camera | EndedBy::Stop | EndedBy::Frames) => {}
        }
        self.finished.snapshot.check_balance().map_err(Failure::failed)?;
        match self.finished.snapshot.consumers.arch.book.lost.io {
            0 => Ok(()),
            lost => Err(Failure::failed(format!(
                "the archive could not be written: {lost} frames lost{}",
                self.archive_error()
            ))),
        }
    }
}

fn silence(snapshot: &Snapshot) -> String {
    match snapshot.ring.passed {
        0 => {
            "no frame came: is this a ring, and is its camera running? (--timeout sets how long to \
              wait, and with --from oldest it begins with what the ring still holds)"
                .to_owned()
        }
        frames => format!("no frame came any more after {frames}; --timeout sets how long to wait"),
    }
}
