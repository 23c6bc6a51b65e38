//! `circbuf run`: the driver, with an embedded camera or on somebody else's ring.

use std::path::PathBuf;

use circbuf_driver::device::pci::PciOptions;
use circbuf_emulator::ledger::Ledger;
use circbuf_tools::stdout;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args};

use crate::camera::CameraPlan;
use crate::config::Config;
use crate::failure::{Failure, log_line};
use crate::options::{ArchArgs, DriverArgs, LimitArgs, PaceArgs, ProcArgs, RingArgs, SourceArgs};
use crate::parse::Seconds;
use crate::plan::{DriverPlan, Place, device_places};
use crate::report;
use crate::session::{Outcome, RunLimits, run_embedded, run_foreign};

/// The options of `circbuf run`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  circbuf run --seconds 20 --archive A        an emulated camera, archived
  circbuf run --device /dev/shm/ring          the ring of `circbuf emulate --ring /dev/shm/ring`
  circbuf run --device D0 --device D1         two of them
  circbuf run --device vfio-user:/tmp/cam     the function of `circbuf emulate --socket /tmp/cam`
  circbuf run --device vfio:0000:01:00.0      a PCI function that scripts/vfio-bind.sh has bound
  circbuf run pictures/ 10 --proc decode=-    a folder of JPEG or .npy, measured
  ffmpeg ... -f yuv4mpegpipe - | circbuf run --source y4m:-")]
pub(crate) struct RunArgs {
    /// Pictures, as --source
    #[arg(value_name = "SOURCE")]
    pictures: Option<String>,
    /// Seconds, as --seconds
    #[arg(value_name = "SECONDS")]
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

pub(crate) fn run(mut args: RunArgs, matches: &ArgMatches) -> Result<(), Failure> {
    for (place, option) in [("pictures", "source"), ("duration", "seconds")] {
        if is_typed(matches, place) && is_typed(matches, option) {
            return Err(Failure::usage(format!(
                "--{option} is given twice, once without its name"
            )));
        }
    }
    args.source.source = args.pictures.take().or(args.source.source.take());
    args.limits.seconds = args.duration.or(args.limits.seconds);
    if matches.value_source("device") == Some(ValueSource::EnvVariable) {
        // A variable holds one text; a path on the command line may have commas.
        let listed = args.driver.device.iter().flat_map(|list| list.split(','));
        args.driver.device = listed.map(str::to_owned).collect();
    }
    let config = Config::load(args.config.as_ref())?;
    args.driver.fill(config.driver);
    args.proc.fill(config.proc);
    args.arch.fill(config.arch);
    args.limits.fill(config.limits);
    args.source.fill(config.source);
    args.ring.fill(config.ring);
    args.pace.fill(config.pace);
    if let (None, Some(option)) = (&args.arch.dir, typed::<ArchArgs>(matches).first()) {
        return Err(Failure::usage(format!("{option} has no meaning without --archive DIR")));
    }
    let driver = DriverPlan { driver: args.driver, proc: args.proc, arch: args.arch };
    if args.json && driver.occupies_stdout() {
        return Err(Failure::usage("--json and --proc decode=- both want stdout; name a file"));
    }
    let announce = |what: &str| log_line(&format!("circbuf: {what}"));
    let places = device_places(&driver.driver)?;
    let is_pci = |place: &Place| matches!(place, Place::Pci(_));
    if driver.driver.huge_pages && !places.iter().any(is_pci) {
        return Err(Failure::usage(
            "--huge-pages is about the ring of a PCI function; name one by --device vfio:... or \
             vfio-user:..., or leave it out",
        ));
    }
    let outcomes = if places.is_empty() {
        let (source, ring, pace, limits) = (args.source, args.ring, args.pace, args.limits);
        let camera = CameraPlan { source, ring, pace, limits };
        run_embedded(&camera.channels()?, None, &driver, announce)?
    } else {
        let all_pci = places.iter().all(is_pci);
        // The ring of a PCI function is the driver's, and the function can be asked to wait.
        let but: &[&str] = if all_pci { &["--ring-bytes", "--lossless"] } else { &[] };
        refuse_camera_options(matches, but)?;
        let ring_bytes = args.ring.ring_bytes.filter(|_| all_pci).map(|bytes| bytes.0);
        let credit = all_pci && args.pace.lossless;
        let pci = PciOptions { ring_bytes, credit, huge_pages: driver.driver.huge_pages };
        let seconds = args.limits.seconds.map(|seconds| seconds.duration());
        let limits = RunLimits { seconds, frames: args.limits.frames };
        run_foreign(&places, pci, &driver, limits, announce)?
    };
    print_books(&outcomes, args.json, driver.occupies_stdout())?;
    judge(&outcomes, &driver.driver)
}

/// Whether the run as such failed, or else its measures, or else more was lost than may be: of any
/// channel, and then of which.
fn judge(outcomes: &[Outcome], driver: &DriverArgs) -> Result<(), Failure> {
    type Check<'a> = &'a dyn Fn(&Outcome) -> Result<(), Failure>;
    let checks: [Check<'_>; 3] =
        [&Outcome::check, &|outcome| report::check_measures(&outcome.decoded), &|outcome| {
            report::check_budget(&outcome.finished.snapshot, driver)
        }];
    checks.iter().try_for_each(|check| {
        let failure = |outcome| check(outcome).err().map(|failure| failure.of(outcome.channel));
        Failure::together(outcomes.iter().filter_map(failure))
    })
}

/// The ledger that the options ask for.
pub(crate) fn open_ledger(camera: &CameraPlan) -> Result<Ledger, Failure> {
    match &camera.pace.ledger {
        Some(path) => Ledger::to_file(path).map_err(Failure::failed),
        None => Ok(Ledger::none()),
    }
}

/// Options of the embedded camera say nothing to another one, but for these.
fn refuse_camera_options(matches: &ArgMatches, but: &[&str]) -> Result<(), Failure> {
    let typed = [typed::<SourceArgs>, typed::<RingArgs>, typed::<PaceArgs>];
    let mut typed = typed.into_iter().flat_map(|typed| typed(matches));
    match typed.find(|option| !but.contains(&option.as_str())) {
        None => Ok(()),
        Some(option) => Err(Failure::usage(format!(
            "{option} is about the embedded camera, but --device names another one; leave one of \
             them out"
        ))),
    }
}

/// The options of the group `A` that were typed. In the environment and in a configuration they
/// may stand for other runs.
fn typed<A: Args>(matches: &ArgMatches) -> Vec<String> {
    let group = A::augment_args(clap::Command::new("group"));
    let typed = group.get_arguments().filter(|arg| is_typed(matches, arg.get_id().as_str()));
    typed.filter_map(|arg| arg.get_long()).map(|name| format!("--{name}")).collect()
}

fn is_typed(matches: &ArgMatches, id: &str) -> bool {
    matches.value_source(id) == Some(ValueSource::CommandLine)
}

fn print_books(outcomes: &[Outcome], json: bool, stdout_is_taken: bool) -> Result<(), Failure> {
    if json {
        let object = report::json_of_all(outcomes);
        return Ok(stdout::write(|out| writeln!(out, "{object}"))?);
    }
    if stdout_is_taken {
        let _closed = report::tables(&mut std::io::stderr(), outcomes);
        return Ok(());
    }
    Ok(stdout::write(|out| report::tables(out, outcomes))?)
}
