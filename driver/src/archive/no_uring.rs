//! In the place of io_uring on 32-bit systems, for which the crate has no definitions: archives are written
//! with plain writes there.

use std::io;

use super::engine::{Completion, Reap, Write};

/// An io_uring, which there is none of.
#[derive(Debug)]
pub(super) enum Uring {}

impl Uring {
    /// Says that there is none.
    pub(super) fn new(_depth: usize) -> io::Result<Uring> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn in_flight(&self) -> usize {
        match *self {}
    }

    #[cfg(test)]
    pub(super) fn break_down(&self) {
        match *self {}
    }

    pub(super) fn submit(&mut self, _write: Write) {
        match *self {}
    }

    pub(super) fn reap(&mut self, _how: Reap, _into: &mut Vec<Completion>) -> io::Result<()> {
        match *self {}
    }
}
