//! `circbuf emulate`: the camera alone.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;

use crate::camera::{CameraPlan, describe_faults};
use crate::config::Config;
use crate::failure::{Failure, log_line};
use crate::options::{LimitArgs, PaceArgs, RingArgs, SourceArgs};
use crate::run::open_ledger;
use crate::status::{StatusLine, interruption, wait};

/// The options of `circbuf emulate`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  circbuf emulate --ring /dev/shm/ring --seconds 60 &
  circbuf run --device /dev/shm/ring")]
pub(crate) struct EmulateArgs {
    /// The ring file to make, best on tmpfs such as /dev/shm; its register page stands beside it as
    /// FILE.regs. Both stay when the camera ends
    #[arg(long = "ring", env = "CIRCBUF_RING", value_name = "FILE")]
    #[arg(id = "ring_file")]
    ring_file: PathBuf,
    /// TOML file with tables named source, ring, pace, limits; others are left to `run`
    #[arg(long, env = "CIRCBUF_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    ring: RingArgs,
    #[command(flatten)]
    pace: PaceArgs,
}

pub(crate) fn emulate(mut args: EmulateArgs) -> Result<(), Failure> {
    let config = Config::load(args.config.as_ref())?;
    args.limits.fill(config.limits);
    args.source.fill(config.source);
    args.ring.fill(config.ring);
    args.pace.fill(config.pace);
    if args.pace.lossless {
        return Err(Failure::usage(
            "--lossless needs a driver that tells how far it is, which one in another process does \
             not: use circbuf run --lossless",
        ));
    }
    let plan =
        CameraPlan { source: args.source, ring: args.ring, pace: args.pace, limits: args.limits };
    let ledger = open_ledger(&plan)?;
    let ready = plan.make(Some(&args.ring_file), ledger, None)?;
    let ring_bytes = ready.camera.ring().ring_bytes();
    log_line(&format!(
        "circbuf: {}, {}, ring of {ring_bytes} bytes at {}",
        ready.source,
        ready.pace,
        args.ring_file.display()
    ));
    let interrupted = interruption()?;
    let (emitted, stuck) = (ready.camera.emitted(), plan.stuck_at());
    let camera = ready.camera.spawn().map_err(Failure::failed)?;
    let mut line = StatusLine::new();
    while !camera.is_finished() {
        if wait(&interrupted) || stuck.is_some_and(|stuck| Instant::now() >= stuck) {
            camera.stop();
        }
        line.show(|| {
            let megabytes = emitted.payload_bytes() as f64 / 1e6;
            format!("{} frames, {megabytes:.1} MB", emitted.frames())
        });
    }
    line.clear();
    let report = camera.join().map_err(Failure::failed)?;
    log_line(&format!(
        "circbuf: camera ended after {} frames, {:.1} MB; {} began late, by up to {:.1} ms",
        report.frames,
        report.payload_bytes as f64 / 1e6,
        report.late_frames,
        report.slip_max.as_secs_f64() * 1e3
    ));
    if let Some(faults) = describe_faults(&report.faults) {
        log_line(&format!("circbuf: {faults}"));
    }
    match report.ledger_error {
        Some(error) => Err(Failure::failed(error)),
        None => Ok(()),
    }
}
