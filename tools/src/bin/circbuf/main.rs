//! `circbuf`: an emulated camera, the driver of its ring, and the tools around them.

mod archive;
mod camera;
mod channel;
mod config;
mod demo;
mod emulate;
mod emulate_pci;
#[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), path = "exec_elsewhere.rs")]
mod exec;
mod failure;
mod open;
mod options;
mod parse;
mod plan;
mod report;
mod run;
mod session;
mod status;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use circbuf_tools::{dump, stderr};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use nix::sys::signal::Signal;

use crate::failure::Failure;

/// A camera's circular frame buffer: emulate the camera, drive the ring, archive and inspect.
///
/// A camera's FPGA writes compressed frames into a ring in memory that it never stops overwriting. This
/// program plays that camera, reads such rings without ever handing on a torn frame, and archives
/// what it reads.
///
/// Exit codes: 0 ok, 1 failed while running, 2 wrong usage, 3 more lost than --max-lost or
/// --on-loss allows, 4 corruption found, 5 no such device or no access.
#[derive(Parser)]
#[command(name = "circbuf", version, max_term_width = 100)]
#[command(after_help = "First steps: circbuf demo; then circbuf run --help")]
struct Cli {
    /// Log more (-v: info, -vv: debug); warnings and errors are always shown
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A ten-second tour: an emulated camera, driver, archive and books, checked against the truth
    Demo(demo::DemoArgs),
    /// Drive a ring: hand its frames to a processor and to an archive
    #[command(allow_negative_numbers = true)]
    Run(Box<run::RunArgs>),
    /// Play the camera alone, into a ring file that any number of drivers can read
    #[command(allow_negative_numbers = true)]
    Emulate(Box<emulate::EmulateArgs>),
    /// Run an unmodified program on an emulated camera: it opens /dev/circbuf0 and /dev/jpeghead0
    #[command(allow_negative_numbers = true)]
    Exec(Box<exec::ExecArgs>),
    /// Show what is in a ring, as test_mmap does, and judge it
    Dump(dump::DumpArgs),
    /// Hold an archive against the ledger of the camera: was anything accepted that is damaged?
    Verify(verify::VerifyArgs),
    /// List, verify, recover or export an archive
    #[command(subcommand)]
    Archive(archive::ArchiveCommand),
}

fn main() -> ExitCode {
    let parsed = Cli::command()
        .try_get_matches()
        .and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return usage(&error),
    };
    stderr::log("circbuf", log_level(cli.verbose));
    tell_unknown_variables();
    survive_file_size_limit();
    let outcome = match cli.command {
        Command::Demo(args) => demo::demo(&args),
        Command::Run(args) => {
            run::run(*args, matches.subcommand_matches("run").expect("that is the command"))
        }
        Command::Emulate(args) => emulate::emulate(*args),
        Command::Exec(args) => {
            return exec::exec(*args).unwrap_or_else(|failure| failure.report());
        }
        Command::Dump(args) => return dump(&args),
        Command::Verify(args) => verify::verify(&args),
        Command::Archive(command) => archive::archive(&command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn dump(args: &dump::DumpArgs) -> ExitCode {
    match dump::run(args) {
        Ok(outcome) => outcome.exit_code().into(),
        Err(error) => {
            failure::log_line(&format!("circbuf: {error}"));
            error.exit_code().into()
        }
    }
}

/// What clap says about a wrong command line, in one line; help and version as they are.
fn usage(error: &clap::Error) -> ExitCode {
    let text = error.to_string();
    let Some(complaint) = text.strip_prefix("error: ") else { error.exit() };
    let paragraphs = complaint.split("\n\n");
    let said: Vec<String> = paragraphs
        .filter(|paragraph| !paragraph.starts_with("Usage:"))
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
        .map(|said| said.replace("For more information, try '--help'.", "see --help"))
        .collect();
    Failure::usage(said.join("; ")).report()
}

/// A misspelt variable would otherwise be a silent default.
fn tell_unknown_variables() {
    fn known(command: &clap::Command, names: &mut Vec<OsString>) {
        let variables = command.get_arguments().filter_map(clap::Arg::get_env);
        names.extend(variables.map(std::ffi::OsStr::to_owned));
        command.get_subcommands().for_each(|command| known(command, names));
    }
    let mut names = Vec::new();
    known(&Cli::command(), &mut names);
    let set = std::env::vars_os().map(|(name, _)| name);
    let ours = set.filter(|name| name.to_string_lossy().starts_with("CIRCBUF_"));
    for name in ours.filter(|name| !names.contains(name)) {
        log::warn!("{}: no such option; see --help for those there are", name.display());
    }
}

/// Makes a write beyond the limit of file sizes fail as one on a full disk does, where the signal
/// would end the program with all frames that it holds.
fn survive_file_size_limit() {
    let caught = Arc::new(AtomicBool::new(false));
    if let Err(error) = signal_hook::flag::register(Signal::SIGXFSZ as i32, caught) {
        log::warn!("a file that grows beyond the limit will end the program: {error}");
    }
}

fn log_level(verbose: u8) -> log::LevelFilter {
    match verbose {
        0 => log::LevelFilter::Warn,
        1 => log::LevelFilter::Info,
        _ => log::LevelFilter::Debug,
    }
}
