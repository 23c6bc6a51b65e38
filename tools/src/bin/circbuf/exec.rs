//! `circbuf exec`: an unmodified program on an emulated camera.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::ExitCode;

use circbuf_emulator::ledger::Ledger;
use circbuf_emulator::node::Firmware;
use circbuf_tools::exec::{ExecError, Supervisor};
use clap::Args;

use crate::camera::{CameraPlan, describe_faults};
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
PROGRAM opens /dev/circbuf0 and /dev/jpeghead0 (--model nc353: also /dev/circbuf and /dev/jpeghead), \
which only it and what it starts can see. open, stat, access, read, pread, mmap of the live ring, every \
command of lseek, poll, select and the JPEG headers are as on the camera; dup, fork, exec and threads \
work. Neither root nor a kernel module is needed; PROGRAM may be static, and of any language.

The exit code is PROGRAM's, or 128 and the number of the signal that has ended it. 126 and 127: it \
cannot be executed, or there is none.

What cannot be done: epoll on a node (it refuses: EPERM), io_uring, setuid programs (they run without \
their privilege), 32-bit programs, writing into the ring (EBADF; to mmap: EACCES), symbolic links to a \
node. Linux 5.19 or later is needed.

Examples:
  circbuf exec -- sh -c 'ls -l /dev/circbuf0; head -c 64 /dev/circbuf0 | od -A d -t x1'
  circbuf exec --model nc393 --fps 30 -- ./my-camera-program /dev/circbuf0")]
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
    let firmware = match args.ring.model {
        Some(ModelChoice::Nc393) => Firmware::Nc393,
        Some(ModelChoice::Nc353) | None => Firmware::Nc353,
    };
    let plan =
        CameraPlan { source: args.source, ring: args.ring, pace: args.pace, limits: args.limits };
    check(&plan)?;
    let ledger: Ledger = open_ledger(&plan)?;
    let ready = plan.make(None, ledger, None)?;
    let supervisor = Supervisor::new(&[&ready.camera], firmware).map_err(Failure::failed)?;
    let delay = args.delay.map(Seconds::duration).unwrap_or_default();
    let camera = ready.camera.spawn_after(delay);
    let camera = camera.map_err(Failure::failed)?;
    let ended = supervisor.run(&args.program);
    camera.stop();
    let report = camera.join().map_err(Failure::failed)?;
    if let Some(faults) = describe_faults(&report.faults) {
        log_line(&format!("circbuf: {faults}"));
    }
    match (ended, report.ledger_error) {
        (Ok(_), Some(error)) => Err(Failure::failed(error)),
        (Ok(code), None) => Ok(code.into()),
        (Err(error), _) => refused(&error),
    }
}

fn check(plan: &CameraPlan) -> Result<(), Failure> {
    if plan.ring.bare {
        return Err(Failure::usage(
            "--bare leaves out the camera's interrupt handler, but the node is its work; leave out \
             --bare",
        ));
    }
    if plan.channels()?.len() > 1 {
        return Err(Failure::usage("exec has one channel; leave out --channels"));
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
