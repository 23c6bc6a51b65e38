//! How a channel tells that it is over, while the thread that captured from it goes on with others.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::{EndedBy, PipelineError};

type Ended = Result<EndedBy, PipelineError>;

/// The end of a channel.
#[derive(Debug, Clone, Default)]
pub(super) struct Ending(Arc<OnceLock<Mutex<Option<Ended>>>>);

impl Ending {
    /// Whether it is over.
    pub(super) fn is_told(&self) -> bool {
        self.0.get().is_some()
    }

    /// Waits for it. Whoever asks again hears that it was stopped.
    pub(super) fn wait(&self) -> Ended {
        let mut ended = self.0.wait().lock().unwrap_or_else(PoisonError::into_inner);
        ended.take().unwrap_or(Ok(EndedBy::Stop))
    }
}

/// Tells the end when it is dropped, so that nobody waits for it in vain whatever becomes of the thread.
#[derive(Debug)]
pub(super) struct Teller {
    ending: Ending,
    /// How it ended, if it did in order.
    pub(super) ended: Option<Ended>,
}

impl Teller {
    pub(super) fn of(ending: Ending) -> Teller {
        Teller { ending, ended: None }
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        let otherwise = || match std::thread::panicking() {
            true => Err(PipelineError::Panicked { name: "capture" }),
            false => Ok(EndedBy::Stop),
        };
        let ended = self.ended.take().unwrap_or_else(otherwise);
        self.ending.0.get_or_init(|| Mutex::new(Some(ended)));
    }
}
