//! `circbuf exec`: an unmodified program on an emulated camera.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::ExitCode;

use circbuf_emulator::camera::{Camera, CameraError, CameraThread};
use circbuf_emulator::ledger::Ledger;
use circbuf_emulator::node::Firmware;
use circbuf_tools::exec::{ExecError, Supervisor};
use clap::Args;

use crate::camera::{CameraPlan, describe_faults};
use crate::channel::ChannelOf;
use crate::config::Config;
use crate::failure::{Code, Failure, log_line};
use crate::options::{LimitArgs, ModelChoice, PaceArgs, RingArgs, SourceArgs};
use crate::parse::Seconds;
use crate::run::open_ledger;

/// As a shell tells that a program cannot be executed, or is not there.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// The options of `circbuf exec`.
#[derive(Debug, Args)]
#[command(after_help = "\
PROGRAM opens /dev/circbuf0 and /dev/jpeghead0 (--model nc353: also /dev/circbuf and /dev/jpeghead; \
--channels N: up to /dev/circbuf3), which only it and what it starts can see. open, stat, access, read, \
pread, mmap of the live ring, every command of lseek, poll, select and the JPEG headers are as on the \
camera; dup, fork, exec and threads work. Neither root nor a kernel module is needed; PROGRAM may be static, and of any language.

The exit code is PROGRAM's, or 128 and the number of the signal that has ended it. 126 and 127: it \
cannot be executed, or there is none.

What cannot be done: epoll on a node (it refuses: EPERM), io_uring, setuid programs (they run without \
their privilege), 32-bit programs, writing into the ring (EBADF; to mmap: EACCES), symbolic links to a \
node. Linux 5.19 or later is needed.

Examples:
  circbuf exec -- sh -c 'ls -l /dev/circbuf0; head -c 64 /dev/circbuf0 | od -A d -t x1'
  circbuf exec --model nc393 --fps 30 -- ./my-camera-program /dev/circbuf0
  circbuf exec --model nc393 --channels 2 -- circbuf run --device /dev/circbuf0 --device /dev/circbuf1")]
pub(crate) struct ExecArgs {
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
    /// The camera begins so long after the program; the ring is empty until then [default: at once]
    #[arg(long, env = "CIRCBUF_DELAY", value_name = "SECONDS")]
    #[arg(help_heading = "Pace (embedded camera)")]
    delay: Option<Seconds>,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

pub(crate) fn exec(mut args: ExecArgs) -> Result<ExitCode, Failure> {
    let config = Config::load(args.config.as_ref())?;
    args.limits.fill(config.limits);
    args.source.fill(config.source);
    args.ring.fill(config.ring);
    args.pace.fill(config.pace);
    let plan =
        CameraPlan { source: args.source, ring: args.ring, pace: args.pace, limits: args.limits };
    check(&plan)?;
    let mut cameras = Vec::new();
    let plans = plan.channels()?;
    for plan in &plans {
        let ledger: Ledger = open_ledger(plan)?;
        cameras.push(plan.make(None, ledger, None)?.camera);
    }
    let nodes: Vec<&Camera> = cameras.iter().collect();
    let supervisor =
        Supervisor::new(&nodes, firmware(&plan, plans.len())?).map_err(Failure::failed)?;
    let delay = args.delay.map(Seconds::duration).unwrap_or_default();
    let cameras: Result<Vec<CameraThread>, CameraError> =
        cameras.into_iter().map(|camera| camera.spawn_after(delay)).collect();
    let cameras = cameras.map_err(Failure::failed)?;
    let ended = supervisor.run(&args.program);
    cameras.iter().for_each(CameraThread::stop);
    let reports = cameras.into_iter().zip(ChannelOf::all(plans.len()));
    let failures = reports.filter_map(|(camera, channel)| {
        finish(camera, channel).err().map(|failure| failure.of(channel))
    });
    let kept = Failure::together(failures);
    match ended {
        Ok(code) => kept.map(|()| code.into()),
        Err(error) => refused(&error),
    }
}

/// Whose node it is. Of a ring of another size the number of channels tells.
fn firmware(plan: &CameraPlan, channels: usize) -> Result<Firmware, Failure> {
    match (plan.ring.model, channels) {
        (Some(ModelChoice::Nc393), _) | (None, 2..) => Ok(Firmware::Nc393),
        (_, 1) => Ok(Firmware::Nc353),
        _ => Err(Failure::usage(format!(
            "--channels {channels} takes --model nc393: a 353 has one channel"
        ))),
    }
}

/// The end of a camera: says what went wrong in it, and fails if its ledger is not whole.
fn finish(camera: CameraThread, channel: ChannelOf) -> Result<(), Failure> {
    let report = camera.join().map_err(Failure::failed)?;
    if let Some(faults) = describe_faults(&report.faults) {
        log_line(&format!("circbuf: {}", channel.says(&faults)));
    }
    report.ledger_error.map_or(Ok(()), |error| Err(Failure::failed(error)))
}

fn check(plan: &CameraPlan) -> Result<(), Failure> {
    if plan.ring.bare {
        return Err(Failure::usage(
            "--bare leaves out the camera's interrupt handler, but the node is its work; leave out \
             --bare",
        ));
    }
    if plan.pace.lossless {
        return Err(Failure::usage(
            "--lossless needs a driver that tells how far it is, which no program on a node does; \
             leave it out",
        ));
    }
    Ok(())
}

fn refused(error: &ExecError) -> Result<ExitCode, Failure> {
    match error {
        ExecError::Program { source, .. } => {
            log_line(&format!("circbuf: {error}"));
            Ok(match source.kind() {
                ErrorKind::NotFound => NOT_FOUND.into(),
                _ => NOT_EXECUTABLE.into(),
            })
        }
        ExecError::Filter(_) => Err(Failure::new(Code::NoDevice, error)),
        ExecError::Ring(_) | ExecError::Supervise { .. } => Err(Failure::failed(error)),
    }
}
