//! The status line, once a second on a terminal, and the signals that end a run.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::failure::Failure;

/// Exit code of a run that was interrupted twice.
const INTERRUPTED_TWICE: i32 = 130;

/// Becomes true with the first SIGHUP, SIGINT or SIGTERM. A second one ends the process at once.
pub(crate) fn interruption() -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        // In this order: the shutdown looks at the flag before the same signal sets it.
        signal_hook::flag::register_conditional_shutdown(
            signal,
            INTERRUPTED_TWICE,
            Arc::clone(&flag),
        )
        .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag)))
        .map_err(|error| Failure::failed(format!("cannot catch signals: {error}")))?;
    }
    Ok(flag)
}

/// A line on stderr that is written over and over, if stderr is a terminal.
#[derive(Debug)]
pub(crate) struct StatusLine {
    is_terminal: bool,
    next: Instant,
    shown: bool,
}

impl StatusLine {
    pub(crate) fn new() -> StatusLine {
        let is_terminal = std::io::stderr().is_terminal();
        StatusLine { is_terminal, next: Instant::now() + Duration::from_secs(1), shown: false }
    }

    /// Shows `line` if a second has gone by.
    pub(crate) fn show(&mut self, line: impl FnOnce() -> String) {
        if !self.is_terminal || Instant::now() < self.next {
            return;
        }
        self.next += Duration::from_secs(1);
        self.shown = true;
        let _closed = write!(std::io::stderr(), "\r\x1b[K{}", line());
    }

    /// Takes the line away.
    pub(crate) fn clear(&mut self) {
        if self.shown {
            let _closed = write!(std::io::stderr(), "\r\x1b[K");
            self.shown = false;
        }
    }
}

/// A progress line for work on so many bytes.
pub(crate) fn progress(what: &'static str) -> impl FnMut(u64, u64) {
    let mut line = StatusLine::new();
    move |done, total| {
        if done >= total {
            line.clear();
            return;
        }
        let percent = done * 100 / total.max(1);
        line.show(|| format!("{what} {percent} % of {:.1} GB", total as f64 / 1e9));
    }
}

/// Sleeps a moment while a run goes on, and tells whether it was interrupted.
pub(crate) fn wait(interrupted: &AtomicBool) -> bool {
    std::thread::sleep(Duration::from_millis(20));
    interrupted.load(Ordering::Relaxed)
}
