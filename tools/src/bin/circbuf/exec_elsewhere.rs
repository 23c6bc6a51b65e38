//! `circbuf exec` where the numbers of the system calls are not known to it.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;

use crate::failure::{Code, Failure};

/// The options of `circbuf exec`.
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

pub(crate) fn exec(args: ExecArgs) -> Result<ExitCode, Failure> {
    let program = args.program.last().map(|program| program.display().to_string());
    Err(Failure::new(
        Code::NoDevice,
        format!(
            "exec {}: a program is supervised on x86-64 and aarch64 only; run it there",
            program.unwrap_or_default()
        ),
    ))
}
