//! Makes the emulated camera that the options describe.

use circbuf_emulator::camera::{Camera, CameraError, Limit, Options};
use circbuf_emulator::clock::Clock;
use circbuf_emulator::fault::{Fault, Faults, Tally};
use circbuf_emulator::fpga::SetupError;
use circbuf_emulator::ledger::Ledger;
use circbuf_emulator::model::{Gap, Model, RING_BYTES_MAX, RingSizeError};
use circbuf_emulator::pace::Pace;
use circbuf_emulator::pci::{Function, FunctionError};
use circbuf_emulator::ring_file::RingFile;
use circbuf_emulator::source::{JpegMode, Source, SourceError, SourceOptions, SourceSpec};
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use crate::channel::ChannelOf;
use crate::failure::{Code, Failure, log_line};
use crate::options::{
    GapChoice, JpegChoice, LimitArgs, ModelChoice, PaceArgs, RingArgs, SourceArgs,
};
use crate::parse::BusRate;

/// Frames a second, if nothing else tells.
const FPS: f64 = 12.0;

/// How much later than asked a camera may end before it is stopped.
const GRACE: Duration = Duration::from_secs(2);

/// Everything that makes a camera.
#[derive(Debug, Clone, Default)]
pub(crate) struct CameraPlan {
    pub(crate) source: SourceArgs,
    pub(crate) ring: RingArgs,
    pub(crate) pace: PaceArgs,
    pub(crate) limits: LimitArgs,
}

/// A camera that is ready to run.
pub(crate) struct ReadyCamera {
    pub(crate) camera: Camera,
    /// Which source, for people.
    pub(crate) source: String,
    /// How fast, for people.
    pub(crate) pace: String,
}

/// A camera that is a PCI function, ready to be served.
pub(crate) struct ReadyFunction {
    pub(crate) function: Function,
    /// Which source and how fast, for people.
    pub(crate) what: String,
}

impl CameraPlan {
    /// The cameras that are asked for, one a channel, each with what is its own.
    pub(crate) fn channels(&self) -> Result<Vec<CameraPlan>, Failure> {
        let channels = self.ring.channels.unwrap_or(1);
        if channels == 1 {
            return Ok(vec![self.clone()]);
        }
        if self.ring.ring_bytes.is_none() && self.ring.model != Some(ModelChoice::Nc393) {
            return Err(Failure::usage(format!(
                "--channels {channels} takes --model nc393, or --ring-bytes: a 353 has one channel"
            )));
        }
        if self.source.source.as_deref() == Some("y4m:-") {
            return Err(Failure::usage(format!(
                "--channels {channels} cameras cannot share stdin; name a file in place of y4m:-"
            )));
        }
        Ok(ChannelOf::all(channels.into()).map(|channel| self.channel(channel)).collect())
    }

    fn channel(&self, channel: ChannelOf) -> CameraPlan {
        let mut camera = self.clone();
        camera.ring.channel = channel.number();
        camera.pace.ledger = self.pace.ledger.as_deref().map(|ledger| channel.file(ledger));
        camera
    }

    /// Opens the source and makes the ring, a file at `path` or else a memfd. What the source has to
    /// say is printed.
    pub(crate) fn make(
        &self,
        path: Option<&Path>,
        ledger: Ledger,
        credit: Option<Arc<AtomicU64>>,
    ) -> Result<ReadyCamera, Failure> {
        let (source, options) =
            self.parts(Options { ledger, credit, ..self.standard() }, log_line)?;
        let pace = describe(&options.pace);
        let ring = self.ring_file(path, self.model().ring_bytes())?;
        let camera = Camera::new(ring, source, options).map_err(refused_camera)?;
        Ok(ReadyCamera { camera, source: self.source_name(), pace })
    }

    /// Opens the source and makes a PCI function. What the source has to say is told.
    pub(crate) fn make_function(
        &self,
        ledger: Ledger,
        tell: impl Fn(&str),
    ) -> Result<ReadyFunction, Failure> {
        let (source, options) = self.parts(Options { ledger, ..self.standard() }, tell)?;
        let ring_bytes = self.model().ring_bytes();
        let pace = describe(&options.pace);
        let what = format!("{}, {pace}, ring of {ring_bytes} bytes", self.source_name());
        let function = Function::new(source, options, ring_bytes).map_err(|error| match error {
            FunctionError::Camera(error) => refused_camera(error),
            error => Failure::failed(error),
        })?;
        Ok(ReadyFunction { function, what })
    }

    fn source_name(&self) -> String {
        self.source.source.clone().unwrap_or_else(|| "synthetic".to_owned())
    }

    fn standard(&self) -> Options {
        Options::of(self.model())
    }

    /// Opens the source, and fills in what these options ask for.
    fn parts(&self, options: Options, tell: impl Fn(&str)) -> Result<(Source, Options), Failure> {
        let spec: SourceSpec = self.source_name().parse().map_err(Failure::usage)?;
        let fps = self.fps();
        self.pace(fps).check().map_err(Failure::usage)?;
        let faults = self.faults(&tell)?;
        let source = Source::open(&spec, &self.source_options(fps)).map_err(refused_source)?;
        source.notes().iter().for_each(|note| tell(&format!("note: {note}")));
        let pace = self.pace(self.pace.fps.is_none().then(|| source.fps_hint()).flatten().or(fps));
        pace.check().map_err(Failure::failed)?;
        let options = Options {
            gap: self.gap().unwrap_or(options.gap),
            bare: self.ring.bare,
            pace,
            clock: if self.pace.virtual_time { Clock::Virtual } else { Clock::Real },
            limit: Limit {
                frames: self.limits.frames,
                time: self.limits.seconds.map(|seconds| seconds.duration()),
            },
            faults,
            ..options
        };
        Ok((source, options))
    }

    /// What goes wrong: the file's faults go before those of the command line. They are told aloud.
    fn faults(&self, tell: &impl Fn(&str)) -> Result<Faults, Failure> {
        let mut faults = match &self.pace.faults {
            Some(path) => read_faults(path)?,
            None => Faults::default(),
        };
        faults.faults.extend_from_slice(&self.pace.fault);
        faults.seed = faults.seed.wrapping_add(self.ring.channel.into());
        if !faults.faults.is_empty() {
            let told: Vec<_> = faults.faults.iter().map(Fault::to_string).collect();
            tell(&format!("note: faults of seed {}: {}", faults.seed, told.join("; ")));
        }
        Ok(faults)
    }

    /// When a camera that has not ended by itself waits for a source that sends nothing: some time
    /// after its end. In virtual time nobody can tell.
    pub(crate) fn stuck_at(&self) -> Option<Instant> {
        self.ends_at().map(|end| end + GRACE)
    }

    /// When a camera that begins now has had its time, if it has a limit and lives in ours.
    pub(crate) fn ends_at(&self) -> Option<Instant> {
        let seconds = self.limits.seconds.filter(|_| !self.pace.virtual_time)?;
        Some(Instant::now() + seconds.duration())
    }

    fn ring_file(&self, path: Option<&Path>, ring_bytes: u64) -> Result<RingFile, Failure> {
        // Before the system is asked for it: what it says of sizes is no help.
        if ring_bytes > RING_BYTES_MAX {
            return Err(Failure::usage(RingSizeError::TooLarge { ring_bytes }));
        }
        let made = match path {
            Some(path) => RingFile::create(path, ring_bytes),
            None => RingFile::memfd(ring_bytes),
        };
        made.map_err(|error| Failure::new(Code::NoDevice, error))
    }

    fn fps(&self) -> Option<f64> {
        (!self.pace.unpaced).then(|| self.pace.fps.unwrap_or(FPS))
    }

    fn pace(&self, fps: Option<f64>) -> Pace {
        if self.pace.unpaced {
            return Pace::UNPACED;
        }
        let bus_bytes_per_s = match self.pace.bus_mb_s {
            Some(BusRate::Unlimited) => None,
            Some(BusRate::MegabytesPerSecond(rate)) => NonZeroU64::new((rate * 1e6) as u64),
            None => Some(self.model().bus_bytes_per_s()),
        };
        Pace { fps, bus_bytes_per_s }
    }

    fn model(&self) -> Model {
        match (self.ring.ring_bytes, self.ring.model) {
            (Some(bytes), _) => Model::Custom { ring_bytes: bytes.0 },
            (None, Some(ModelChoice::Nc393)) => Model::Nc393,
            (None, _) => Model::Nc353,
        }
    }

    fn gap(&self) -> Option<Gap> {
        self.ring.gap.map(|gap| match gap {
            GapChoice::Zero => Gap::Zero,
            GapChoice::Late => Gap::Late,
            GapChoice::Skip => Gap::Skip,
        })
    }

    fn source_options(&self, fps: Option<f64>) -> SourceOptions {
        let standard = SourceOptions::default();
        SourceOptions {
            width: self.source.width.unwrap_or(standard.width),
            height: self.source.height.unwrap_or(standard.height),
            quality: self.source.quality.unwrap_or(standard.quality),
            seed: self.source.seed.unwrap_or(standard.seed).wrapping_add(self.ring.channel.into()),
            fps,
            gray: self.source.gray,
            jpeg: match self.source.jpeg {
                Some(JpegChoice::Verbatim) => JpegMode::Verbatim,
                _ => JpegMode::Auto,
            },
            window: self.source.window.map(|window| (window.0, window.1)),
        }
    }
}

fn read_faults(path: &Path) -> Result<Faults, Failure> {
    let refuse = |why: String| Failure::usage(format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    Faults::from_toml(&text).map_err(|error| refuse(error.to_string()))
}

/// What went wrong, if anything did.
pub(crate) fn describe_faults(tally: &Tally) -> Option<String> {
    let kinds: Vec<_> = tally.by_kind().map(|(kind, faults)| format!("{faults} {kind}")).collect();
    (tally.faults() > 0).then(|| {
        format!(
            "{} faults in {} frames ({}): {} damaged, {} of them undetectable",
            tally.faults(),
            tally.frames(),
            kinds.join(", "),
            tally.damaged(),
            tally.undetectable()
        )
    })
}

/// What was asked for is wrong, or what it was asked of.
fn refused_source(error: SourceError) -> Failure {
    match error {
        SourceError::Spec { .. } | SourceError::Options(_) => Failure::usage(error),
        _ => Failure::failed(error),
    }
}

fn refused_camera(error: CameraError) -> Failure {
    match error {
        CameraError::Setup(SetupError::RingSize(_)) | CameraError::Faults(_) => {
            Failure::usage(error)
        }
        CameraError::Setup(SetupError::RingFile(_)) => Failure::new(Code::NoDevice, error),
        _ => Failure::failed(error),
    }
}

fn describe(pace: &Pace) -> String {
    let fps = pace.fps.map_or("as fast as possible".to_owned(), |fps| format!("{fps} fps"));
    let bus = pace.bus_bytes_per_s.map_or("an unlimited bus".to_owned(), |rate| {
        format!("a bus of {} MB/s", rate.get() as f64 / 1e6)
    });
    format!("{fps} over {bus}")
}
