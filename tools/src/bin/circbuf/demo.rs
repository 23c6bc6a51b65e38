//! `circbuf demo`: a tour that proves what it shows.

use std::path::{Path, PathBuf};

use circbuf_emulator::fault::{Fault, FaultKind, When};
use circbuf_tools::answer_key::{RunBooks, compare};
use circbuf_tools::stdout;
use clap::Args;

use crate::camera::CameraPlan;
use crate::failure::{Failure, log_line};
use crate::options::{ArchArgs, LimitArgs, PaceArgs, ProcArgs};
use crate::parse::{ProcessorChoice, Seconds};
use crate::plan::DriverPlan;
use crate::session::run_embedded;
use crate::status::progress;
use crate::{report, verify};

/// The options of `circbuf demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// How long the camera runs
    #[arg(long, default_value = "10")]
    seconds: Seconds,
    /// Directory for ring, ledger and archive, which must not exist yet [default: one in the
    /// temporary directory]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(crate) fn demo(args: &DemoArgs) -> Result<(), Failure> {
    let dir = args.out.clone().unwrap_or_else(default_dir);
    std::fs::create_dir(&dir)
        .map_err(|error| Failure::failed(format!("{}: {error}", dir.display())))?;
    let ring = dir.join("ring");
    let ledger = dir.join("ledger.jsonl");
    let archive = dir.join("archive");
    let camera = CameraPlan {
        pace: PaceArgs {
            fps: Some(60.0),
            ledger: Some(ledger.clone()),
            fault: faults(),
            ..PaceArgs::default()
        },
        limits: LimitArgs { seconds: Some(args.seconds), frames: None },
        ..CameraPlan::default()
    };
    let driver = DriverPlan {
        proc: ProcArgs { processor: Some(ProcessorChoice::Decode(None)), ..ProcArgs::default() },
        arch: ArchArgs { dir: Some(archive.clone()), ..ArchArgs::default() },
        ..DriverPlan::default()
    };
    let outcomes = run_embedded(&[camera], Some(&ring), &driver, |what| {
        log_line(&format!("camera   {what}"));
        log_line(&format!(
            "driver   decodes and measures every frame, archives into {}",
            archive.display()
        ));
    })?;
    let outcome = &outcomes[0];
    stdout::write(|out| report::table(out, outcome))?;
    let books = RunBooks::of(report::json(outcome));
    let comparison = compare(&ledger, &archive, Some(&books), &mut progress("comparing"))
        .map_err(Failure::failed)?;
    stdout::write(|out| verify::table(out, &comparison).and_then(|()| next_steps(out, &dir)))?;
    outcome.check()?;
    outcome.decoded.check_pictures()?;
    verify::check(&comparison)
}

/// A fault every few frames, so that each kind strikes in a short tour as well. The pictures of all
/// others have to decode and to tell their number, so that none of these faults is undetectable.
fn faults() -> Vec<Fault> {
    const EVERY: [(FaultKind, u64); 8] = [
        (FaultKind::Aborted, 47),
        (FaultKind::NoTrailer, 53),
        (FaultKind::BadTrailer, 41),
        (FaultKind::Unescaped, 37),
        (FaultKind::HeaderClobbered, 43),
        (FaultKind::IrqLost, 59),
        (FaultKind::GapSkip, 31),
        (FaultKind::Restart, 211),
    ];
    EVERY.map(|(kind, frames)| Fault { kind, when: When::Every(frames) }).to_vec()
}

fn default_dir() -> PathBuf {
    std::env::temp_dir().join(format!("circbuf-demo-{}", std::process::id()))
}

fn next_steps(out: &mut dyn std::io::Write, dir: &Path) -> std::io::Result<()> {
    let dir = dir.display();
    writeln!(
        out,
        "\nnext:\n  \
         circbuf dump --check {dir}/ring           which frames the ring still holds\n  \
         test_mmap {dir}/ring --frame 0            one of them in hex\n  \
         circbuf archive ls {dir}/archive          what was archived\n  \
         circbuf archive verify {dir}/archive      whether all of it is whole\n  \
         circbuf archive export {dir}/archive --out {dir}/jpeg\n  \
         circbuf run --device /dev/circbuf0        the same on a camera\n\
         (from a checkout: cargo run --release -- in place of circbuf, and for test_mmap\n \
          cargo run --release --bin test_mmap --)"
    )
}
