//! What a run needs, checked: the options turned into the driver's own.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use circbuf_abi::ring::PAYLOAD_BYTES_MAX;
use circbuf_driver::archive::{Archive, ArchiveError, ArchiveOptions, EngineChoice, Session};
use circbuf_driver::capture::Origin;
use circbuf_driver::clock::Moment;
use circbuf_driver::device::Device;
use circbuf_driver::device::pci::PciPlace;
use circbuf_driver::dispatch::{Delivery, Losses};
use circbuf_driver::pipeline::{ConsumerOptions, Limits, LossLimit, Options, Processor};
use circbuf_driver::proc::decode::Decoder;
use circbuf_driver::proc::framecode::NumberIs;
use circbuf_driver::proc::measure::Measured;
use circbuf_driver::tail::StartAt;
use circbuf_driver::wait::Wait;
use serde::Serialize;

use crate::channel::ChannelOf;
use crate::failure::Failure;
use crate::options::{ArchArgs, DriverArgs, EngineName, FromChoice, OnLoss, ProcArgs, WaitChoice};
use crate::parse::ProcessorChoice;

/// The driver's side of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct DriverPlan {
    pub(crate) driver: DriverArgs,
    pub(crate) proc: ProcArgs,
    pub(crate) arch: ArchArgs,
}

/// Frames that a built-in processor could and could not decode.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    pub(crate) decoded: AtomicU64,
    pub(crate) undecodable: AtomicU64,
    /// Frames whose picture tells another number than the driver.
    pub(crate) misnumbered: AtomicU64,
    /// Why measures are missing from the file, if they are.
    pub(crate) write_error: Mutex<Option<String>>,
    /// Whoever read the measures has gone away, as `head` does: the end of the work, no failure.
    pub(crate) reader_is_gone: AtomicBool,
}

impl Decoded {
    /// Whether every picture decodes and shows the number that its frame has.
    pub(crate) fn check_pictures(&self) -> Result<(), Failure> {
        let wrong = [&self.undecodable, &self.misnumbered].map(|n| n.load(Ordering::Relaxed));
        match wrong {
            [0, 0] => Ok(()),
            [undecodable, misnumbered] => Err(Failure::failed(format!(
                "{undecodable} pictures do not decode, {misnumbered} show another number"
            ))),
        }
    }

    fn note(&self, error: &std::io::Error) {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return self.reader_is_gone.store(true, Ordering::Relaxed);
        }
        let mut first = self.write_error.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| error.to_string());
    }

    fn write(&self, output: &Output, line: &Line) {
        let line = serde_json::to_string(line).expect("numbers and names are JSON");
        let mut out = output.lock().unwrap_or_else(PoisonError::into_inner);
        // Flushed line by line: who follows the file wants to see the frame now.
        if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
            self.note(&error);
        }
    }

    fn count(&self, measured: &Measured) {
        self.decoded.fetch_add(1, Ordering::Relaxed);
        let told = measured.number.filter(|_| measured.number_is == Some(NumberIs::Frame));
        let agrees = told.is_none_or(|number| number == measured.sequence & u64::from(u32::MAX));
        self.misnumbered.fetch_add(u64::from(!agrees), Ordering::Relaxed);
    }
}

impl DriverPlan {
    /// The largest payload to be believed in.
    pub(crate) fn max_frame_bytes(&self) -> Result<Option<u32>, Failure> {
        let Some(bytes) = self.driver.max_frame_bytes else { return Ok(None) };
        match u32::try_from(bytes.0) {
            Ok(bytes @ 1..=PAYLOAD_BYTES_MAX) => Ok(Some(bytes)),
            _ => Err(Failure::usage(format!(
                "--max-frame-bytes {} is out of range; a frame has 1 to {PAYLOAD_BYTES_MAX} bytes",
                bytes.0
            ))),
        }
    }

    /// The device with the bus that it has, if that is told and it has a pointer.
    pub(crate) fn with_bus(&self, device: Device) -> Device {
        match self.driver.bus_mb_s_max {
            Some(mb_s) => device.with_bus_rate(u64::from(mb_s) * 1_000_000),
            None => device,
        }
    }

    /// What may be lost before the run ends.
    pub(crate) fn loss_limit(&self) -> Option<LossLimit> {
        let stops = self.driver.on_loss == Some(OnLoss::Stop);
        let budget = || self.driver.max_lost.map_or(LossLimit::Frames(0), |budget| budget.0);
        stops.then(budget)
    }

    /// The pipeline's options. `origin` has the number of the channel and of this run.
    pub(crate) fn options(&self, origin: Origin, limits: Limits) -> Result<Options, Failure> {
        let mut options = Options { limits, origin, ..Options::default() };
        if self.driver.from == Some(FromChoice::Oldest) {
            options.start = StartAt::Oldest;
        }
        if let Some(bytes) = self.driver.slab_bytes {
            options.slab_bytes =
                usize::try_from(bytes.0).ok().filter(|&bytes| bytes >= 16 << 10).ok_or_else(
                    || Failure::usage("--slab-bytes is out of range; it takes 16KiB or more"),
                )?;
        }
        options.wait = match self.driver.wait {
            Some(WaitChoice::Spin) => Wait::Spin,
            Some(WaitChoice::Sleep) => Wait::Sleep,
            Some(WaitChoice::Adaptive) | None => Wait::Adaptive,
        };
        options.inline = self.proc.inline;
        if let (true, Some(workers @ 2..)) = (self.proc.inline, self.proc.workers) {
            return Err(Failure::usage(format!(
                "--inline processes on the one thread that captures, but --proc-workers asks for \
                 {workers}; leave one of them out"
            )));
        }
        set(&mut options.proc, self.proc.policy, self.proc.queue);
        set(&mut options.arch, self.arch.policy, self.arch.queue);
        Ok(options)
    }

    /// Begins the channel's archive, if there is to be one.
    pub(crate) fn archive(
        &self,
        channel: ChannelOf,
        session: u64,
        device: &Device,
    ) -> Result<Option<Archive>, Failure> {
        let Some(dir) = &self.arch.dir else { return Ok(None) };
        let dir = channel.folder(dir);
        let mut options =
            ArchiveOptions { index: !self.arch.no_index, ..ArchiveOptions::default() };
        if let Some(bytes) = self.arch.segment_bytes {
            options.segment_bytes = bytes.0;
        }
        options.segment_seconds = self.arch.segment_seconds;
        if let Some(durability) = self.arch.durability {
            options.durability = durability.0;
        }
        options.engine = match self.arch.engine {
            Some(EngineName::Uring) => EngineChoice::Uring,
            Some(EngineName::Pwrite) => EngineChoice::Pwrite,
            Some(EngineName::Auto) | None => EngineChoice::Auto,
        };
        let session = Session {
            session,
            camera: channel.number(),
            geometry: device.geometry(),
            ring_bytes: device.ring().bytes(),
        };
        Archive::create(&dir, session, options, Moment::now()).map(Some).map_err(refused_archive)
    }

    /// Where all channels' measures go, if they go anywhere.
    pub(crate) fn output(&self) -> Result<Option<Output>, Failure> {
        match &self.proc.processor {
            Some(ProcessorChoice::Decode(Some(file))) => open_output(file).map(Some),
            _ => Ok(None),
        }
    }

    /// The processing workers of a channel.
    pub(crate) fn processors(
        &self,
        decoded: &Arc<Decoded>,
        output: Option<&Output>,
        channel: ChannelOf,
    ) -> Vec<Processor> {
        match &self.proc.processor {
            None | Some(ProcessorChoice::None) => self.workers(|| Box::new(|_| {})),
            Some(ProcessorChoice::Decode(_)) => {
                self.workers(|| decoder(Arc::clone(decoded), output.cloned(), channel.shown()))
            }
        }
    }

    /// Whether measures go to stdout, so that nothing else may.
    pub(crate) fn occupies_stdout(&self) -> bool {
        self.proc.processor == Some(ProcessorChoice::Decode(Some("-".to_owned())))
    }

    fn workers(&self, mut worker: impl FnMut() -> Processor) -> Vec<Processor> {
        (0..self.proc.workers.unwrap_or(1)).map(|_| worker()).collect()
    }
}

fn refused_archive(error: ArchiveError) -> Failure {
    match error {
        ArchiveError::Options { .. } => Failure::usage(error),
        _ => Failure::failed(error),
    }
}

fn set(
    consumer: &mut ConsumerOptions,
    policy: Option<circbuf_driver::policy::Policy>,
    queue: Option<u32>,
) {
    consumer.policy = policy.unwrap_or(consumer.policy);
    consumer.queue_frames = queue.map_or(consumer.queue_frames, |frames| frames as usize);
}

pub(crate) type Output = Arc<Mutex<BufWriter<Box<dyn Write + Send>>>>;

fn open_output(file: &str) -> Result<Output, Failure> {
    let out: Box<dyn Write + Send> = match file {
        "-" => Box::new(std::io::stdout()),
        _ => Box::new(create(Path::new(file))?),
    };
    Ok(Arc::new(Mutex::new(BufWriter::new(out))))
}

fn create(path: &Path) -> Result<File, Failure> {
    File::create(path).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))
}

/// One line of measures.
#[derive(Serialize)]
struct Line {
    /// Of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<u32>,
    #[serde(flatten)]
    measured: Measured,
    /// Frames that were lost between this worker's line before and this one.
    lost_before: u64,
    /// Why: names of reasons, and how many frames each.
    lost: BTreeMap<&'static str, u64>,
}

/// A worker that decodes and measures.
fn decoder(decoded: Arc<Decoded>, output: Option<Output>, channel: Option<u32>) -> Processor {
    let (mut decoder, mut lost) = (Decoder::new(), Losses::default());
    Box::new(move |delivery: &Delivery| {
        lost.append(delivery.lost.clone());
        match decoder.measure(&delivery.frame) {
            Ok(measured) => {
                decoded.count(&measured);
                let lost = std::mem::take(&mut lost);
                let Some(output) = &output else { return };
                let (lost_before, lost) = (lost.frames(), lost.by_reason());
                decoded.write(output, &Line { channel, measured, lost_before, lost });
            }
            Err(error) => {
                if decoded.undecodable.fetch_add(1, Ordering::Relaxed) == 0 {
                    log::info!("frame {} does not decode: {error}", delivery.frame.sequence());
                }
            }
        }
    })
}

/// A number for this run that no other run is likely to have.
pub(crate) fn draw_session() -> u64 {
    Moment::now().realtime_ns ^ u64::from(std::process::id()).rotate_left(40)
}

/// A device that is not embedded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A ring file, or a camera's node.
    Path(PathBuf),
    /// A PCI function.
    Pci(PciPlace),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Path(path) => path.display().fmt(f),
            Place::Pci(place) => place.fmt(f),
        }
    }
}

/// What `--device` names; nothing if the embedded camera is meant.
pub(crate) fn device_places(driver: &DriverArgs) -> Result<Vec<Place>, Failure> {
    let names = &driver.device;
    let places: Result<Vec<_>, _> = names.iter().map(|name| device_place(name)).collect();
    let places = places?;
    if let [_, _, ..] = &places[..] {
        if places.iter().any(Option::is_none) {
            return Err(Failure::usage(
                "--device emu: is an embedded camera, and cannot be driven together with others; \
                 --channels N makes several of it",
            ));
        }
        if let Some(twice) = names.iter().enumerate().find(|(n, name)| names[..*n].contains(name)) {
            return Err(Failure::usage(format!("--device {} is given twice", twice.1)));
        }
    }
    Ok(places.into_iter().flatten().collect())
}

/// What a name means, unless it is the embedded camera.
fn device_place(name: &str) -> Result<Option<Place>, Failure> {
    match name {
        "emu:" | "emu" => Ok(None),
        "" => Err(Failure::usage(
            "--device is empty; emu:, the path of a ring, vfio:... or vfio-user:...",
        )),
        name if name.starts_with("vfio") => {
            name.parse().map(|place| Some(Place::Pci(place))).map_err(Failure::usage)
        }
        path => Ok(Some(Place::Path(PathBuf::from(path)))),
    }
}
