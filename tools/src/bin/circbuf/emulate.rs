//! `circbuf emulate`: the camera alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use circbuf_emulator::camera::{Camera, CameraError, CameraThread};
use circbuf_emulator::report::{Emitted, Report};
use clap::Args;

use crate::camera::{CameraPlan, ReadyCamera, describe_faults};
use crate::channel::ChannelOf;
use crate::config::Config;
use crate::emulate_pci::{self, Connection};
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
  circbuf emulate --ring /dev/shm/ring --model nc393 --channels 2 --seconds 60 &
  circbuf run --device /dev/shm/ring0 --device /dev/shm/ring1
  circbuf emulate --socket /tmp/cam &         the camera as a PCI function
  circbuf run --device vfio-user:/tmp/cam")]
pub(crate) struct EmulateArgs {
    /// The ring file to make, best on tmpfs such as /dev/shm; its register page stands beside it as
    /// FILE.regs. Both stay when the camera ends. Several --channels have FILE0, FILE1...
    #[arg(long = "ring", env = "CIRCBUF_RING", value_name = "FILE")]
    #[arg(id = "ring_file", conflicts_with = "socket")]
    ring_file: Option<PathBuf>,
    /// Instead of a ring file: the socket at which the camera is a PCI function over vfio-user, for
    /// `run --device vfio-user:SOCKET` or a QEMU. Each connection has a camera of its own, which writes into
    /// the client's memory; it ends with the connection. --seconds counts from now on and ends them all, and
    /// this program with them (by --virtual-time each counts its own); --frames is for each camera, and the program ends when one has had its frames
    /// and everybody is gone. --ledger FILE is that of the first connection; the second one's has -2 behind
    /// its name (FILE-2, or in front of an extension), and so on
    #[arg(long, env = "CIRCBUF_SOCKET", value_name = "SOCKET")]
    socket: Option<PathBuf>,
    /// Serves the connection that is the standard output: its number, and the process that accepted it
    #[arg(long, hide = true, requires = "socket", value_name = "NUMBER:PID")]
    serve_stdout: Option<Connection>,
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
        (Some(_), _) if plan.channels()?.len() > 1 => Err(Failure::usage(
            "--socket has one channel for each connection; leave out --channels",
        )),
        (Some(socket), _) => match args.serve_stdout {
            Some(connection) => emulate_pci::serve_stdout(&plan, connection),
            None => emulate_pci::listen(&plan, &socket),
        },
        (None, Some(ring_file)) => emulate_rings(&plan, &ring_file),
        (None, None) => Err(Failure::usage(
            "where is the ring? --ring FILE, or --socket SOCKET for a PCI function",
        )),
    }
}

fn emulate_rings(plan: &CameraPlan, ring_file: &Path) -> Result<(), Failure> {
    let plans = plan.channels()?;
    let channels: Vec<ChannelOf> = ChannelOf::all(plans.len()).collect();
    let mut cameras = Vec::new();
    for (plan, channel) in plans.iter().zip(&channels) {
        let ring_file = channel.file(ring_file);
        let ready = plan.make(Some(&ring_file), open_ledger(plan)?, None)?;
        announce(&ready, &ring_file);
        cameras.push(ready.camera);
    }
    let interrupted = interruption()?;
    let emitted: Vec<Arc<Emitted>> = cameras.iter().map(Camera::emitted).collect();
    let stuck = plan.stuck_at();
    let cameras: Result<Vec<CameraThread>, CameraError> =
        cameras.into_iter().map(Camera::spawn).collect();
    let cameras = cameras.map_err(Failure::failed)?;
    let is_over = || wait(&interrupted) || stuck.is_some_and(|stuck| Instant::now() >= stuck);
    watch(&cameras, &emitted, is_over);
    let reports = cameras.into_iter().map(CameraThread::join);
    let ends = channels.into_iter().zip(reports);
    let failures = ends.filter_map(|(channel, end)| {
        let told = end.map_err(Failure::failed).and_then(|report| tell(&report, Some(channel)));
        told.err().map(|failure| failure.of(channel))
    });
    Failure::together(failures)
}

fn announce(ready: &ReadyCamera, ring_file: &Path) {
    let ring_bytes = ready.camera.ring().ring_bytes();
    log_line(&format!(
        "circbuf: {}, {}, ring of {ring_bytes} bytes at {}",
        ready.source,
        ready.pace,
        ring_file.display()
    ));
}

/// Waits for the end of all cameras; asks for it when `is_over`.
fn watch(cameras: &[CameraThread], emitted: &[Arc<Emitted>], is_over: impl Fn() -> bool) {
    let mut line = StatusLine::new();
    while !cameras.iter().all(CameraThread::is_finished) {
        if is_over() {
            cameras.iter().for_each(CameraThread::stop);
        }
        line.show(|| {
            let frames: u64 = emitted.iter().map(|emitted| emitted.frames()).sum();
            let bytes: u64 = emitted.iter().map(|emitted| emitted.payload_bytes()).sum();
            format!("{frames} frames, {:.1} MB", bytes as f64 / 1e6)
        });
    }
    line.clear();
}

/// Says what a camera did.
pub(crate) fn tell(report: &Report, channel: Option<ChannelOf>) -> Result<(), Failure> {
    let says = |what: &str| channel.map_or(what.to_owned(), |channel| channel.says(what));
    let say = |what: &str| log_line(&format!("circbuf: {}", says(what)));
    say(&format!(
        "camera ended after {} frames, {:.1} MB; {} began late, by up to {:.1} ms",
        report.frames,
        report.payload_bytes as f64 / 1e6,
        report.late_frames,
        report.slip_max.as_secs_f64() * 1e3
    ));
    if let Some(faults) = describe_faults(&report.faults) {
        say(&faults);
    }
    match &report.ledger_error {
        Some(error) => Err(Failure::failed(error)),
        None => Ok(()),
    }
}
