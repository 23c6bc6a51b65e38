//! What can be set, on the command line, in the environment (`CIRCBUF_*`) and in a configuration file:
//! one struct a table. A flag goes before the environment, the environment before the file.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use serde::Deserialize;

use crate::parse::{
    BusRate, Bytes, DurabilityChoice, LossBudget, ProcessorChoice, Seconds, Window, one_or_more,
};
use circbuf_driver::policy::Policy;
use circbuf_emulator::fault::Fault;

/// Fills what is not set in `$high` from `$low`; switches are on if either is.
macro_rules! fill {
    ($high:expr, $low:expr; $($option:ident),*; $($switch:ident),*) => {
        $($high.$option = $high.$option.take().or($low.$option);)*
        $($high.$switch |= $low.$switch;)*
    };
}

/// Which pictures the camera takes
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[command(next_help_heading = "Pictures (embedded camera)")]
pub(crate) struct SourceArgs {
    /// synthetic (a scene that tells its frame number) | synthetic:N (N pictures in a cycle) |
    /// a folder or file of JPEG, .npy or .y4m | y4m:- (stdin) | noise:MIN[-MAX] (bytes)
    #[arg(long, env = "CIRCBUF_SOURCE", value_name = "SOURCE")]
    pub(crate) source: Option<String>,
    /// Width of synthetic pictures in pixels [default: 640]
    #[arg(long, env = "CIRCBUF_WIDTH", value_name = "PIXELS")]
    pub(crate) width: Option<u16>,
    /// Height of synthetic pictures in pixels [default: 480]
    #[arg(long, env = "CIRCBUF_HEIGHT", value_name = "PIXELS")]
    pub(crate) height: Option<u16>,
    /// JPEG quality, 1 to 100 [default: 80]
    #[arg(long, env = "CIRCBUF_QUALITY", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(crate) quality: Option<u8>,
    /// Draw synthetic pictures without colour
    #[arg(long, env = "CIRCBUF_GRAY", value_parser = BoolishValueParser::new())]
    pub(crate) gray: bool,
    /// JPEG files that the frame header cannot express: re-encode them, or refuse
    #[arg(long, env = "CIRCBUF_JPEG", value_enum)]
    pub(crate) jpeg: Option<JpegChoice>,
    /// Values of .npy files that become black and white [default: smallest and largest]
    #[arg(long, env = "CIRCBUF_WINDOW", value_name = "LOW,HIGH", allow_hyphen_values = true)]
    pub(crate) window: Option<Window>,
    /// What is random follows from this number [default: 1]
    #[arg(long, env = "CIRCBUF_SEED")]
    pub(crate) seed: Option<u64>,
}

/// What to do with JPEG files that the frame header cannot express
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum JpegChoice {
    /// Decode and compress them again, and say so
    Auto,
    /// Refuse them by name
    Verbatim,
}

/// Which ring the camera has
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[command(next_help_heading = "Ring (embedded camera)")]
pub(crate) struct RingArgs {
    /// Camera: ring size and gap behaviour follow from it [default: nc353]
    #[arg(long, env = "CIRCBUF_MODEL", value_enum)]
    pub(crate) model: Option<ModelChoice>,
    /// Ring size: a multiple of 4096 that holds four of the largest slots, such as 64MiB
    #[arg(long, env = "CIRCBUF_RING_BYTES", value_name = "BYTES")]
    #[serde(rename = "bytes")]
    pub(crate) ring_bytes: Option<Bytes>,
    /// When the gap behind a frame is zeroed [default: the model's]
    #[arg(long, env = "CIRCBUF_GAP", value_enum)]
    pub(crate) gap: Option<GapChoice>,
    /// Leave the interrupt handler out: no frame headers are stamped into the ring
    #[arg(long, env = "CIRCBUF_BARE", value_parser = BoolishValueParser::new())]
    pub(crate) bare: bool,
    /// Cameras at once, 1 to 4, each with a ring, a seed and a ledger of its own: a number is appended to
    /// the names. More than one takes --model nc393 or --ring-bytes [default: 1]
    #[arg(long, env = "CIRCBUF_CHANNELS", value_parser = clap::value_parser!(u8).range(1..=4))]
    pub(crate) channels: Option<u8>,
    /// Which of them this is.
    #[arg(skip)]
    #[serde(skip)]
    pub(crate) channel: u32,
}

/// Cameras
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ModelChoice {
    /// Elphel 353: a ring of 19791872 bytes
    Nc353,
    /// Elphel 393: a ring of 64 MiB
    Nc393,
}

/// What happens to the 32 bytes behind a frame
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum GapChoice {
    /// Zeroed with the frame, as a 393 does
    Zero,
    /// Zeroed right before the next frame, as a 353 does
    Late,
    /// Never zeroed
    Skip,
}

/// How fast the camera is
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[command(next_help_heading = "Pace (embedded camera)")]
pub(crate) struct PaceArgs {
    /// Frames a second [default: 12, or what a y4m stream says]
    #[arg(long, env = "CIRCBUF_FPS")]
    pub(crate) fps: Option<f64>,
    /// Rate of the bus into the ring in MB/s, or unlimited [default: 80]
    #[arg(long, env = "CIRCBUF_BUS_MB_S", value_name = "RATE")]
    pub(crate) bus_mb_s: Option<BusRate>,
    /// As fast as this machine: neither frame rate nor bus
    #[arg(long, env = "CIRCBUF_UNPACED", value_parser = BoolishValueParser::new())]
    #[arg(conflicts_with_all = ["fps", "bus_mb_s"])]
    pub(crate) unpaced: bool,
    /// The camera waits for the driver, as no camera does (for tests and benchmarks)
    #[arg(long, env = "CIRCBUF_LOSSLESS", value_parser = BoolishValueParser::new())]
    pub(crate) lossless: bool,
    /// Do not sleep; time is computed and begins in 2007: the same seed gives the same bytes
    #[arg(long, env = "CIRCBUF_VIRTUAL_TIME", value_parser = BoolishValueParser::new())]
    pub(crate) virtual_time: bool,
    /// Write what was emitted, frame by frame, as JSON lines
    #[arg(long, env = "CIRCBUF_LEDGER", value_name = "FILE")]
    pub(crate) ledger: Option<PathBuf>,
    /// What goes wrong
    #[arg(long, env = "CIRCBUF_FAULTS", value_name = "FILE")]
    #[arg(help_heading = "Faults (embedded camera)")]
    #[arg(help = "What goes wrong: TOML with seed = N and [[fault]] tables of kind and one of \
                  at = [frames], every = N, rate = P, at_s = [seconds]")]
    pub(crate) faults: Option<PathBuf>,
    /// One thing that goes wrong, at frame N or else every 100 frames; can be given again. sprint |
    /// aborted | no-trailer | bad-trailer | unescaped | bit-flip | time-back | time-forward |
    /// time-repeat | stall | sizes | exact-wrap | aligned-lap | gap-skip | gap-late |
    /// header-clobbered | geometry | irq-lost | irq-coalesced | pointer-off | restart
    #[arg(long, env = "CIRCBUF_FAULT", value_name = "KIND[@N]", value_delimiter = ',')]
    #[arg(help_heading = "Faults (embedded camera)")]
    #[serde(skip)]
    pub(crate) fault: Vec<Fault>,
}

/// When to end
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[command(next_help_heading = "End")]
pub(crate) struct LimitArgs {
    /// End after so long: the embedded camera, or on another device the driver
    #[arg(long, env = "CIRCBUF_SECONDS")]
    pub(crate) seconds: Option<Seconds>,
    /// End after so many frames: of the embedded camera, or on another device read whole; with several,
    /// each one
    #[arg(long, env = "CIRCBUF_FRAMES", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) frames: Option<u64>,
}

/// What the driver reads, and how
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[command(next_help_heading = "Driver")]
pub(crate) struct DriverArgs {
    /// emu: (an embedded camera), the path of a ring file or of a camera's node, or a PCI function:
    /// vfio:0000:01:00.0 (behind the kernel's VFIO) or vfio-user:SOCKET. Can be given again, and one process
    /// drives them all. In the environment and in a configuration: with commas between them, and as a list
    /// [default: emu:]
    #[arg(long, env = "CIRCBUF_DEVICE")]
    #[serde(deserialize_with = "one_or_more")]
    pub(crate) device: Vec<String>,
    /// Begin with the next frame, or with the oldest in the ring [default: newest]
    #[arg(long, env = "CIRCBUF_FROM", value_enum)]
    pub(crate) from: Option<FromChoice>,
    /// Memory for frames that are being worked on, for each device [default: 64MiB]
    #[arg(long, env = "CIRCBUF_SLAB_BYTES", value_name = "BYTES")]
    pub(crate) slab_bytes: Option<Bytes>,
    /// Largest frame to be believed in, where the device does not tell [default: what a quarter of the ring holds]
    #[arg(long, env = "CIRCBUF_MAX_FRAME_BYTES", value_name = "BYTES")]
    pub(crate) max_frame_bytes: Option<Bytes>,
    /// The most that the bus of a camera's node can move, in MB/s: the slower, the later the driver may look
    /// at its pointer and still know what it missed [default: 400 for a 353's ring, 1200 for others]
    #[arg(long, env = "CIRCBUF_BUS_MB_S_MAX", value_name = "MB/S")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) bus_mb_s_max: Option<u32>,
    /// Exit with 3 if more is lost: N frames, or P% of what was expected, of one device
    #[arg(long, env = "CIRCBUF_MAX_LOST", value_name = "N|P%")]
    pub(crate) max_lost: Option<LossBudget>,
    /// At the first loss, or when more is lost than --max-lost: end the run with 3, or go on to its end
    /// [default: continue]
    #[arg(long, env = "CIRCBUF_ON_LOSS", value_enum)]
    pub(crate) on_loss: Option<OnLoss>,
    /// Exit with 1 if no frame comes for so long; other devices are driven on [default: 10 s, without an
    /// embedded camera]
    #[arg(long, env = "CIRCBUF_TIMEOUT", value_name = "SECONDS")]
    pub(crate) timeout: Option<Seconds>,
    /// Take huge pages for the ring of a PCI function. They have to be set aside before (sysctl
    /// vm.nr_hugepages=N); the ring is rounded up to whole ones, unless --ring-bytes tells its size
    #[arg(long, env = "CIRCBUF_HUGE_PAGES", value_parser = BoolishValueParser::new())]
    pub(crate) huge_pages: bool,
    /// What the driver's threads do while there is nothing to do [default: adaptive]
    #[arg(long, env = "CIRCBUF_WAIT", value_enum)]
    pub(crate) wait: Option<WaitChoice>,
}

/// What threads do while there is nothing to do
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WaitChoice {
    /// Look again at once: the shortest latency, a whole core for each thread
    Spin,
    /// Look again at once when a frame is due, sleep between
    Adaptive,
    /// Sleep: the least CPU
    Sleep,
}

/// Where to begin
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FromChoice {
    /// With the first frame that completes after attaching
    Newest,
    /// With the oldest frame that the ring still holds
    Oldest,
}

/// What a loss does to a run
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnLoss {
    /// End it in order: what was found is still processed and archived
    Stop,
    /// Count it
    Continue,
}

/// What is done with frames
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[command(next_help_heading = "Processing")]
pub(crate) struct ProcArgs {
    /// none | decode (decode and measure) | decode=FILE (and write the measures as JSON lines; - is
    /// stdout) [default: none]
    #[arg(long = "proc", env = "CIRCBUF_PROC", value_name = "PROCESSOR")]
    pub(crate) processor: Option<ProcessorChoice>,
    /// every | nth=N | fps=F, and when the queue is full :drop-newest, :drop-oldest or
    /// :latest-only [default: fps=1000:drop-newest]
    #[arg(long = "proc-policy", env = "CIRCBUF_PROC_POLICY", value_name = "POLICY")]
    #[serde(deserialize_with = "policy")]
    #[arg(id = "proc_policy")]
    pub(crate) policy: Option<Policy>,
    /// Threads [default: 1]
    #[arg(long = "proc-workers", env = "CIRCBUF_PROC_WORKERS", value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) workers: Option<u16>,
    /// Frames that may wait [default: 128]
    #[arg(long = "proc-queue", env = "CIRCBUF_PROC_QUEUE", value_name = "FRAMES")]
    #[arg(id = "proc_queue", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) queue: Option<u32>,
    /// Process on the thread that captures: without queue, and nothing is captured meanwhile (for small
    /// frames and benchmarks)
    #[arg(long, env = "CIRCBUF_INLINE", value_parser = BoolishValueParser::new())]
    pub(crate) inline: bool,
}

/// Where frames are kept
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[command(next_help_heading = "Archive")]
pub(crate) struct ArchArgs {
    /// Archive frames in this directory, which must not hold an archive yet; of several devices in its
    /// folders channel0, channel1...
    #[arg(long = "archive", env = "CIRCBUF_ARCHIVE", value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// As --proc-policy [default: fps=200:drop-newest]
    #[arg(long = "arch-policy", env = "CIRCBUF_ARCH_POLICY", value_name = "POLICY")]
    #[serde(deserialize_with = "policy")]
    #[arg(id = "arch_policy")]
    pub(crate) policy: Option<Policy>,
    /// Frames that may wait [default: 128]
    #[arg(long = "arch-queue", env = "CIRCBUF_ARCH_QUEUE", value_name = "FRAMES")]
    #[arg(id = "arch_queue", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) queue: Option<u32>,
    /// Begin a new segment before one exceeds this size [default: 4GiB]
    #[arg(long, env = "CIRCBUF_SEGMENT_BYTES", value_name = "BYTES")]
    pub(crate) segment_bytes: Option<Bytes>,
    /// Begin a new segment after so many seconds
    #[arg(long, env = "CIRCBUF_SEGMENT_SECONDS", value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) segment_seconds: Option<u64>,
    /// Write no index files (recover can make them later)
    #[arg(long, env = "CIRCBUF_NO_INDEX", value_parser = BoolishValueParser::new())]
    pub(crate) no_index: bool,
    /// What survives a power cut: none (segments once complete) | interval=MS | frame
    /// [default: interval=1000]
    #[arg(long, env = "CIRCBUF_DURABILITY", value_name = "WHEN")]
    pub(crate) durability: Option<DurabilityChoice>,
    /// How to write [default: auto]
    #[arg(long, env = "CIRCBUF_ENGINE", value_enum)]
    pub(crate) engine: Option<EngineName>,
}

/// How bytes go to disk
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EngineName {
    /// io_uring where the system allows it, otherwise pwrite
    Auto,
    /// io_uring, or fail
    Uring,
    /// One write after the other
    Pwrite,
}

fn policy<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Policy>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

impl SourceArgs {
    pub(crate) fn fill(&mut self, low: SourceArgs) {
        fill!(self, low; source, width, height, quality, jpeg, window, seed; gray);
    }
}

impl RingArgs {
    pub(crate) fn fill(&mut self, low: RingArgs) {
        fill!(self, low; model, ring_bytes, gap, channels; bare);
    }
}

impl PaceArgs {
    pub(crate) fn fill(&mut self, low: PaceArgs) {
        // --unpaced goes before a rate in the file, a rate on the command line before its unpaced.
        let paced_here = self.fps.is_some() || self.bus_mb_s.is_some();
        let unpaced = self.unpaced || (low.unpaced && !paced_here);
        fill!(self, low; fps, bus_mb_s, ledger, faults; lossless, virtual_time);
        self.unpaced = unpaced;
    }
}

impl LimitArgs {
    pub(crate) fn fill(&mut self, low: LimitArgs) {
        fill!(self, low; seconds, frames;);
    }
}

impl DriverArgs {
    pub(crate) fn fill(&mut self, low: DriverArgs) {
        if self.device.is_empty() {
            self.device = low.device;
        }
        fill!(self, low; from, slab_bytes, max_frame_bytes, bus_mb_s_max, max_lost, on_loss, timeout, wait; huge_pages);
    }
}

impl ProcArgs {
    pub(crate) fn fill(&mut self, low: ProcArgs) {
        fill!(self, low; processor, policy, workers, queue; inline);
    }
}

impl ArchArgs {
    pub(crate) fn fill(&mut self, low: ArchArgs) {
        fill!(self, low; dir, policy, queue, segment_bytes, segment_seconds, durability, engine; no_index);
    }
}
