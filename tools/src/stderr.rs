//! The log, on stderr as all that is no data.

use std::io::{IsTerminal, Write};

use log::LevelFilter;

/// Writes each message from `level` on as a line of its own: the program's name, the level, the message.
pub fn log(program: &'static str, level: LevelFilter) {
    // On a terminal a status line may stand where the message goes.
    let begin = if std::io::stderr().is_terminal() { "\r\x1b[K" } else { "" };
    env_logger::Builder::new()
        .filter_level(level)
        .format(move |out, record| {
            let level = record.level().as_str().to_lowercase();
            writeln!(out, "{begin}{program}: {level}: {}", record.args())
        })
        .init();
}
