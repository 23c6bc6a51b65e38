//! `circbuf emulate`: the camera alone.

use std::path::{Path, PathBuf};
use std::time::Instant;

use circbuf_emulator::report::Report;
use clap::Args;

use crate::camera::{CameraPlan, describe_faults};
use crate::config::Config;
use crate::emulate_pci;
use crate::failure::{Failure, log_line};
use crate::options::{LimitArgs, PaceArgs, RingArgs, SourceArgs};
use crate::run::open_ledger;
use crate::status::{StatusLine, interruption, wait};

/// The options of `circbuf emulate`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  circbuf emulate --ring /dev/shm/ring --seconds 60 &
  circbuf run --device /dev/shm/ring
  circbuf emulate --socket /tmp/cam &         the camera as a PCI function
  circbuf run --device vfio-user:/tmp/cam")]
pub(crate) struct EmulateArgs {
    /// The ring file to make, best on tmpfs such as /dev/shm; its register page stands beside it as
    /// FILE.regs. Both stay when the camera ends
    #[arg(long = "ring", env = "CIRCBUF_RING", value_name = "FILE")]
    #[arg(id = "ring_file", conflicts_with = "socket")]
    ring_file: Option<PathBuf>,
    /// Instead of a ring file: the socket at which the camera is a PCI function over vfio-user, for
    /// `run --device vfio-user:SOCKET` or a QEMU. Each connection has a camera of its own, which writes into
    /// the client's memory; it ends with the connection
    #[arg(long, env = "CIRCBUF_SOCKET", value_name = "SOCKET")]
    socket: Option<PathBuf>,
    /// Serves the connection that is the standard output
    #[arg(long, hide = true, requires = "socket")]
    serve_stdout: bool,
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
            "--lossless needs a driver that tells how far it is: use circbuf run --lossless, with \
             --device vfio-user:SOCKET for a driver in another process",
        ));
    }
    let plan =
        CameraPlan { source: args.source, ring: args.ring, pace: args.pace, limits: args.limits };
    match (args.socket, args.ring_file) {
        (Some(_), _) if args.serve_stdout => emulate_pci::serve_stdout(&plan),
        (Some(socket), _) => emulate_pci::listen(&plan, &socket),
        (None, Some(ring_file)) => emulate_ring(&plan, &ring_file),
        (None, None) => Err(Failure::usage(
            "where is the ring? --ring FILE, or --socket SOCKET for a PCI function",
        )),
    }
}

fn emulate_ring(plan: &CameraPlan, ring_file: &Path) -> Result<(), Failure> {
    let ledger = open_ledger(plan)?;
    let ready = plan.make(Some(ring_file), ledger, None)?;
    let ring_bytes = ready.camera.ring().ring_bytes();
    log_line(&format!(
        "circbuf: {}, {}, ring of {ring_bytes} bytes at {}",
        ready.source,
        ready.pace,
        ring_file.display()
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
    tell(&camera.join().map_err(Failure::failed)?)
}

/// Says what the camera did.
pub(crate) fn tell(report: &Report) -> Result<(), Failure> {
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
    match &report.ledger_error {
        Some(error) => Err(Failure::failed(error)),
        None => Ok(()),
    }
}
