//! How the program ends when it does not end well.

use std::fmt::Display;
use std::process::ExitCode;

use circbuf_driver::device::OpenError;

use crate::channel::ChannelOf;

/// The exit codes, besides 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// It failed while running.
    Failed = 1,
    /// What was typed or configured makes no sense.
    Usage = 2,
    /// More frames were lost than `--max-lost` or `--on-loss` allows.
    LossBudget = 3,
    /// Something stored is damaged.
    Corruption = 4,
    /// There is no such device, or it cannot be used.
    NoDevice = 5,
}

/// One line for the user, and the exit code.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    code: Code,
    message: String,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Display) -> Failure {
        Failure { code, message: message.to_string() }
    }

    pub(crate) fn failed(message: impl Display) -> Failure {
        Failure::new(Code::Failed, message)
    }

    pub(crate) fn usage(message: impl Display) -> Failure {
        Failure::new(Code::Usage, message)
    }

    /// The same, of a channel.
    pub(crate) fn of(self, channel: ChannelOf) -> Failure {
        Failure { message: channel.says(&self.message), ..self }
    }

    /// All of them, with the code of the first one; `Ok` if there is none.
    pub(crate) fn together(failures: impl IntoIterator<Item = Failure>) -> Result<(), Failure> {
        let join = |mut first: Failure, next: Failure| {
            first.message = format!("{}; {}", first.message, next.message);
            first
        };
        failures.into_iter().reduce(join).map_or(Ok(()), Err)
    }

    pub(crate) fn report(&self) -> ExitCode {
        log_line(&format!("circbuf: {}", self.message));
        ExitCode::from(self.code as u8)
    }
}

/// Writes a line to stderr; a stderr that is closed is nobody's failure.
pub(crate) fn log_line(line: &str) {
    use std::io::Write;
    let _closed = writeln!(std::io::stderr(), "{line}");
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Failure {
        Failure::new(Code::NoDevice, error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::failed(format!("cannot write to stdout: {error}"))
    }
}
