//! `test_mmap`, as the camera had it: lists the frames of a ring in hex.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use circbuf_tools::dump::{self, DumpArgs};
use circbuf_tools::stderr;
use clap::Parser;
use log::LevelFilter;

/// List the frames of a ring in hex, by word address: the header, the first two rows, the last row,
/// trailer and gap of each, and where the next one starts.
///
/// {..} is the first word of a frame, <..> the length word of its trailer, [..] the word where the
/// next frame starts. `circbuf dump` does the same and more.
#[derive(Debug, Parser)]
#[command(name = "test_mmap", version)]
struct Arguments {
    /// Ring file (live ones too) or camera node
    ring: PathBuf,
    /// Only the frame with this number, counted from 0 in the order of the ring
    #[arg(long, value_name = "N")]
    frame: Option<usize>,
}

fn main() -> ExitCode {
    stderr::log("test_mmap", LevelFilter::Warn);
    let Arguments { ring, frame } = Arguments::parse();
    let args = DumpArgs { ring, frame, ..DumpArgs::default() };
    match dump::run(&args) {
        Ok(outcome) => outcome.exit_code().into(),
        Err(error) => {
            // Nothing is left to be done if stderr is closed as well.
            let _ = writeln!(std::io::stderr(), "test_mmap: {error}");
            error.exit_code().into()
        }
    }
}
