//! One run from the first frame to the books: cameras if they are embedded, and a pipeline for each channel.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use circbuf_driver::capture::Origin;
use circbuf_driver::device::Device;
use circbuf_driver::device::pci::PciOptions;
use circbuf_driver::pipeline::{Channel, EndedBy, Finished, Limits, LossLimit, Pipeline};
use circbuf_driver::slab::SlabPool;
use circbuf_driver::stats::Snapshot;
use circbuf_driver::tail::StartAt;
use circbuf_emulator::camera::{Camera, CameraThread};
use circbuf_emulator::report::Report;

use crate::camera::{CameraPlan, ReadyCamera};
use crate::channel::ChannelOf;
use crate::failure::Failure;
use crate::open::{describe, open_all};
use crate::plan::{Decoded, DriverPlan, Place, draw_session};
use crate::run::open_ledger;
use crate::status::{StatusLine, interruption, wait};

/// How long a driver of a foreign ring waits for a frame, if `--timeout` does not tell.
const SILENCE: Duration = Duration::from_secs(10);

/// When the driver of a foreign ring ends.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RunLimits {
    pub(crate) seconds: Option<Duration>,
    pub(crate) frames: Option<u64>,
}

/// What a channel of a run came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) channel: ChannelOf,
    /// The device, as it was named.
    pub(crate) device: String,
    pub(crate) finished: Finished,
    /// What the embedded camera says.
    pub(crate) camera: Option<Result<Report, Failure>>,
    pub(crate) decoded: Arc<Decoded>,
    /// By a signal.
    pub(crate) interrupted: bool,
}

/// A device that is open, and what is its own in how it is driven.
struct Opened {
    name: String,
    device: Device,
    limits: Limits,
    from_oldest: bool,
    credit: Option<Arc<AtomicU64>>,
}

/// A channel at work.
struct Driven {
    channel: ChannelOf,
    device: String,
    pipeline: Pipeline,
    decoded: Arc<Decoded>,
}

/// Runs embedded cameras and drives them. The ring is a file only where there is one; else they are in
/// memory. `announce` is told what they are before the start.
pub(crate) fn run_embedded(
    cameras: &[CameraPlan],
    ring_file: Option<&Path>,
    driver: &DriverPlan,
    announce: impl Fn(&str),
) -> Result<Vec<Outcome>, Failure> {
    let (mut ready, mut opened, mut told) = (Vec::new(), Vec::new(), Vec::new());
    for (camera, channel) in cameras.iter().zip(ChannelOf::all(cameras.len())) {
        let credit = camera.pace.lossless.then(|| Arc::new(AtomicU64::new(0)));
        let made = camera.make(ring_file, open_ledger(camera)?, credit.clone())?;
        told.push(channel.says(&describe_camera(&made, ring_file)));
        let ring = made.camera.ring();
        let device = Device::from_fds(ring.ring_fd(), Some(ring.registers_fd()))?;
        let silence = driver.driver.timeout.map(|timeout| timeout.duration());
        let limits = Limits { frames: None, silence, lost: driver.loss_limit() };
        let name = "emu:".to_owned();
        opened.push(Opened { name, device, limits, from_oldest: false, credit });
        ready.push(made.camera);
    }
    // Not before: opening a source may wait for data or take long, and nothing has to be saved yet.
    let interrupted = interruption()?;
    let driven = start(opened, driver)?;
    told.iter().for_each(|what| announce(what));
    let stuck = cameras.first().and_then(CameraPlan::stuck_at);
    let cameras: Result<Vec<CameraThread>, _> = ready.into_iter().map(Camera::spawn).collect();
    let cameras = cameras.map_err(Failure::failed)?;
    let is_over = || wait(&interrupted) || stuck.is_some_and(|stuck| Instant::now() >= stuck);
    watch(&driven, driver, is_over, || cameras.iter().for_each(CameraThread::stop));
    Ok(finish(driven, cameras, &interrupted))
}

fn describe_camera(ready: &ReadyCamera, ring_file: Option<&Path>) -> String {
    let place = ring_file.map_or("in memory".to_owned(), |path| format!("at {}", path.display()));
    let ring_bytes = ready.camera.ring().ring_bytes();
    format!("{}, {}, ring of {ring_bytes} bytes {place}", ready.source, ready.pace)
}

/// Drives the devices of somebody else; PCI functions are brought up as `pci` says.
pub(crate) fn run_foreign(
    places: &[Place],
    pci: PciOptions,
    driver: &DriverPlan,
    limits: RunLimits,
    announce: impl Fn(&str),
) -> Result<Vec<Outcome>, Failure> {
    let interrupted = interruption()?;
    let timeout = driver.driver.timeout.map_or(SILENCE, |timeout| timeout.duration());
    let of_channel =
        Limits { frames: limits.frames, silence: Some(timeout), lost: driver.loss_limit() };
    let mut opened = Vec::new();
    let devices = open_all(places, pci, driver, &interrupted)?;
    for ((device, waited), (place, channel)) in
        devices.into_iter().zip(places.iter().zip(ChannelOf::all(places.len())))
    {
        let name = place.to_string();
        announce(&channel.says(&describe(&name, &device)));
        let is_pci = matches!(place, Place::Pci(_));
        let credit = (is_pci && pci.credit).then(|| Arc::new(AtomicU64::new(0)));
        // A driver that was there first: what completed between two of its looks is its own as well. A PCI
        // function writes nothing before it is asked to.
        let from_oldest = waited && !is_pci;
        opened.push(Opened { name, device, limits: of_channel, from_oldest, credit });
    }
    let end = limits.seconds.map(|seconds| Instant::now() + seconds);
    let driven = start(opened, driver)?;
    let is_over = || wait(&interrupted) || end.is_some_and(|end| Instant::now() >= end);
    watch(&driven, driver, is_over, || driven.iter().for_each(|driven| driven.pipeline.stop()));
    Ok(finish(driven, Vec::new(), &interrupted))
}

fn start(opened: Vec<Opened>, driver: &DriverPlan) -> Result<Vec<Driven>, Failure> {
    let session = draw_session();
    let mut set_up = Vec::new();
    for (opened, channel) in opened.iter().zip(ChannelOf::all(opened.len())) {
        let origin = Origin { camera: channel.number(), session };
        let mut options = driver.options(origin, opened.limits)?;
        options.credit.clone_from(&opened.credit);
        if opened.from_oldest {
            options.start = StartAt::Oldest;
        }
        check_slab_bytes(&opened.device, options.slab_bytes)?;
        set_up.push((channel, options));
    }
    // Nothing is begun before everything was checked.
    let output = driver.output()?;
    let (mut channels, mut driven) = (Vec::new(), Vec::new());
    for (Opened { name, device, .. }, (channel, options)) in opened.into_iter().zip(set_up) {
        let decoded = Arc::new(Decoded::default());
        let processors = driver.processors(&decoded, output.as_ref(), channel);
        let archive = driver.archive(channel, session, &device)?;
        channels.push(Channel { device, processors, archive, options });
        driven.push((channel, name, decoded));
    }
    let pipelines = Pipeline::start_several(channels).map_err(Failure::failed)?;
    let driven = driven.into_iter().zip(pipelines);
    Ok(driven
        .map(|((channel, device, decoded), pipeline)| Driven { channel, device, pipeline, decoded })
        .collect())
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

/// Waits for the end of the run; asks for it when `is_over`, which sleeps a moment at each call, when
/// nobody reads the measures any more, or when one channel has lost more than may be.
fn watch(driven: &[Driven], driver: &DriverPlan, is_over: impl Fn() -> bool, stop: impl Fn()) {
    let snapshots = || driven.iter().map(|driven| driven.pipeline.snapshot()).collect::<Vec<_>>();
    let limit = driver.loss_limit();
    let mut line = StatusLine::new();
    let mut before = snapshots();
    while !driven.iter().all(|driven| driven.pipeline.is_finished()) {
        let is_useless = |driven: &Driven| {
            driven.decoded.reader_is_gone.load(Ordering::Relaxed)
                || limit.is_some_and(|limit| has_lost(limit, &driven.pipeline))
        };
        if is_over() || driven.iter().any(is_useless) {
            stop();
        }
        line.show(|| {
            let now = snapshots();
            let text = status(&before, &now);
            before = now;
            text
        });
    }
    line.clear();
}

/// Whether a channel has ended because it lost too much.
fn has_lost(limit: LossLimit, pipeline: &Pipeline) -> bool {
    let exceeds = |books: Snapshot| {
        limit.is_exceeded(books.lost(), books.ring.frames_detected + books.ring.lost.overrun)
    };
    pipeline.is_finished() && exceeds(pipeline.snapshot())
}

/// One line a second: what it came to so far, and the rates of the last second.
fn status(before: &[Snapshot], now: &[Snapshot]) -> String {
    let elapsed_s = |all: &[Snapshot]| all.first().map_or(0.0, |snapshot| snapshot.elapsed_s);
    let seconds = (elapsed_s(now) - elapsed_s(before)).max(1e-3);
    let sum = |all: &[Snapshot], number: fn(&Snapshot) -> u64| all.iter().map(number).sum::<u64>();
    let rate =
        |number: fn(&Snapshot) -> u64| (sum(now, number) - sum(before, number)) as f64 / seconds;
    let fps = rate(|snapshot| snapshot.ring.passed);
    let written = rate(|snapshot| snapshot.consumers.arch.bytes_written) / 1e6;
    format!(
        "{:7.1} s  {} frames, {fps:.1}/s, {} lost  proc {}  archive {}, {written:.1} MB/s",
        elapsed_s(now),
        sum(now, |snapshot| snapshot.ring.passed),
        sum(now, Snapshot::lost),
        sum(now, |snapshot| snapshot.consumers.proc.delivered),
        sum(now, |snapshot| snapshot.consumers.arch.book.delivered),
    )
}

fn finish(
    driven: Vec<Driven>,
    cameras: Vec<CameraThread>,
    interrupted: &AtomicBool,
) -> Vec<Outcome> {
    // A pipeline may have failed while its camera goes on.
    cameras.iter().for_each(CameraThread::stop);
    let joined = cameras.into_iter().map(|camera| Some(camera.join().map_err(Failure::failed)));
    let mut cameras: Vec<_> = joined.collect();
    cameras.resize_with(driven.len(), || None);
    let interrupted = interrupted.load(Ordering::Relaxed);
    let ends = driven.into_iter().zip(cameras);
    ends.map(|(Driven { channel, device, pipeline, decoded }, camera)| Outcome {
        channel,
        device,
        finished: pipeline.join(),
        camera,
        decoded,
        interrupted,
    })
    .collect()
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
    let late = snapshot.ring.pointer.filter(|pointer| pointer.lost.late_looks > 0);
    match (snapshot.ring.passed, late) {
        (0, Some(pointer)) => format!(
            "no frame could be told from others: the write pointer was looked at too late {} times, \
             later than {:.3} ms after the look before; --max-frame-bytes and --bus-mb-s-max may give it \
             more time",
            pointer.lost.late_looks, pointer.window_ms
        ),
        (0, None) => {
            "no frame came: is this a ring, and is its camera running? (--timeout sets how long to \
              wait, and with --from oldest it begins with what the ring still holds)"
                .to_owned()
        }
        (frames, _) => {
            format!("no frame came any more after {frames}; --timeout sets how long to wait")
        }
    }
}
