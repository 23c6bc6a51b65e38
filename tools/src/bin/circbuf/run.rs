//! `circbuf run`: the driver, with an embedded camera or on somebody else's ring.

use std::path::PathBuf;

use circbuf_emulator::ledger::Ledger;
use circbuf_tools::stdout;
use clap::Args;

use crate::camera::CameraPlan;
use crate::config::Config;
use crate::failure::{Failure, log_line};
use crate::options::{ArchArgs, DriverArgs, LimitArgs, PaceArgs, ProcArgs, RingArgs, SourceArgs};
use crate::parse::Seconds;
use crate::plan::{DriverPlan, device_path};
use crate::session::{Outcome, run_embedded, run_foreign};
use crate::{report, session};

/// The options of `circbuf run`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  circbuf run --seconds 20 --archive A        an emulated camera, archived
  circbuf run --device /dev/shm/ring          the ring of `circbuf emulate --ring /dev/shm/ring`
  circbuf run pictures/ 10 --proc decode=-    a folder of JPEG or .npy, measured
  ffmpeg ... -f yuv4mpegpipe - | circbuf run --source y4m:-")]
pub(crate) struct RunArgs {
    /// Pictures, as --source
    #[arg(value_name = "SOURCE", conflicts_with = "source")]
    pictures: Option<String>,
    /// Seconds, as --seconds
    #[arg(value_name = "SECONDS", conflicts_with = "seconds")]
    duration: Option<Seconds>,
    /// TOML file with tables named source, ring, pace, limits, driver, proc, arch
    #[arg(long, env = "CIRCBUF_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the books as one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    driver: DriverArgs,
    #[command(flatten)]
    proc: ProcArgs,
    #[command(flatten)]
    arch: ArchArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    ring: RingArgs,
    #[command(flatten)]
    pace: PaceArgs,
}

pub(crate) fn run(mut args: RunArgs) -> Result<(), Failure> {
    args.source.source = args.source.source.take().or(args.pictures.take());
    args.limits.seconds = args.limits.seconds.or(args.duration);
    let archive_option = archive_option(&args.arch);
    let camera_option = camera_option(&args.source, &args.ring, &args.pace);
    let config = Config::load(args.config.as_ref())?;
    args.driver.fill(config.driver);
    args.proc.fill(config.proc);
    args.arch.fill(config.arch);
    args.limits.fill(config.limits);
    args.source.fill(config.source);
    args.ring.fill(config.ring);
    args.pace.fill(config.pace);
    if let (None, Some(option)) = (&args.arch.dir, archive_option) {
        return Err(Failure::usage(format!("{option} has no meaning without --archive DIR")));
    }
    let driver = DriverPlan { driver: args.driver, proc: args.proc, arch: args.arch };
    if args.json && driver.occupies_stdout() {
        return Err(Failure::usage("--json and --proc decode=- both want stdout; name a file"));
    }
    let announce = |what: &str| log_line(&format!("circbuf: {what}"));
    let outcome = match device_path(&driver.driver)? {
        None => {
            let camera = CameraPlan {
                source: args.source,
                ring: args.ring,
                pace: args.pace,
                limits: args.limits,
            };
            let ledger = open_ledger(&camera)?;
            run_embedded(&camera, None, ledger, &driver, announce)?
        }
        Some(path) => {
            if let Some(option) = camera_option {
                return Err(Failure::usage(format!(
                    "{option} is about the embedded camera, but --device names another one; leave \
                     one of them out"
                )));
            }
            let seconds = args.limits.seconds.map(|seconds| seconds.duration());
            let limits = session::RunLimits { seconds, frames: args.limits.frames };
            run_foreign(&path, &driver, limits, announce)?
        }
    };
    print_books(&outcome, args.json, driver.occupies_stdout())?;
    outcome.check()?;
    report::check_measures(&outcome.decoded)?;
    report::check_budget(&outcome.finished.snapshot, driver.driver.max_lost)
}

/// The ledger that the options ask for.
pub(crate) fn open_ledger(camera: &CameraPlan) -> Result<Ledger, Failure> {
    match &camera.pace.ledger {
        Some(path) => Ledger::to_file(path).map_err(Failure::failed),
        None => Ok(Ledger::none()),
    }
}

/// The first option, of those typed or in the environment, that is about the embedded camera. In a
/// configuration they may stand for other runs.
fn camera_option(source: &SourceArgs, ring: &RingArgs, pace: &PaceArgs) -> Option<&'static str> {
    let set = [
        ("--source", source.source.is_some()),
        ("--width", source.width.is_some()),
        ("--height", source.height.is_some()),
        ("--quality", source.quality.is_some()),
        ("--gray", source.gray),
        ("--jpeg", source.jpeg.is_some()),
        ("--window", source.window.is_some()),
        ("--seed", source.seed.is_some()),
        ("--model", ring.model.is_some()),
        ("--ring-bytes", ring.ring_bytes.is_some()),
        ("--gap", ring.gap.is_some()),
        ("--bare", ring.bare),
        ("--fps", pace.fps.is_some()),
        ("--bus-mb-s", pace.bus_mb_s.is_some()),
        ("--unpaced", pace.unpaced),
        ("--lossless", pace.lossless),
        ("--virtual-time", pace.virtual_time),
        ("--ledger", pace.ledger.is_some()),
    ];
    set.into_iter().find_map(|(option, is_set)| is_set.then_some(option))
}

/// The first option, of those typed or in the environment, that is about the archive.
fn archive_option(arch: &ArchArgs) -> Option<&'static str> {
    let set = [
        ("--arch-policy", arch.policy.is_some()),
        ("--arch-queue", arch.queue.is_some()),
        ("--segment-bytes", arch.segment_bytes.is_some()),
        ("--segment-seconds", arch.segment_seconds.is_some()),
        ("--no-index", arch.no_index),
        ("--durability", arch.durability.is_some()),
        ("--engine", arch.engine.is_some()),
    ];
    set.into_iter().find_map(|(option, is_set)| is_set.then_some(option))
}

fn print_books(outcome: &Outcome, json: bool, stdout_is_taken: bool) -> Result<(), Failure> {
    if json {
        let object = report::json(outcome);
        return Ok(stdout::write(|out| writeln!(out, "{object}"))?);
    }
    if stdout_is_taken {
        let _closed = report::table(&mut std::io::stderr(), outcome);
        return Ok(());
    }
    Ok(stdout::write(|out| report::table(out, outcome))?)
}
