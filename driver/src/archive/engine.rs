//! How records get onto the disk: writes are submitted, and reaped when they are complete.

use std::io;
use std::sync::Arc;

use super::error::ArchiveError;
use super::options::{EngineChoice, Session};
use super::store::DiskFile;
use super::uring::Uring;
use crate::clock::Moment;
use crate::frame::Frame;
use crate::loss::Loss;
use crate::record::{
    LOSS_BODY_BYTES, RECORD_ALIGN, RECORD_HEADER_BYTES, RecordHeader, RecordKind, record_bytes,
};
use crate::slab::{Region, Slab};

/// Bytes of a loss record.
pub(super) const LOSS_RECORD_BYTES: usize = record_bytes(LOSS_BODY_BYTES);

/// A record in memory. Nobody changes its bytes while it exists.
#[derive(Debug)]
pub(super) enum Record {
    Frame(Frame),
    Loss(Slab),
}

impl Record {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Record::Frame(frame) => frame.record(),
            Record::Loss(slab) => &slab[..LOSS_RECORD_BYTES],
        }
    }

    fn region(&self) -> &Arc<Region> {
        match self {
            Record::Frame(frame) => frame.region(),
            Record::Loss(slab) => slab.region(),
        }
    }
}

/// Makes a loss record in a slab.
pub(super) fn seal_loss(
    slab: &mut [u8],
    loss: &Loss,
    session: &Session,
    now: Moment,
) -> RecordHeader {
    let header = RecordHeader {
        kind: RecordKind::Loss,
        synthesised: false,
        camera: session.camera,
        length: LOSS_BODY_BYTES as u32,
        sequence: loss.sequence,
        epoch: 0,
        cursor: 0,
        realtime_ns: now.realtime_ns,
        monotonic_ns: now.monotonic_ns,
        lost_before: 0,
        session: session.session,
    };
    let body = &mut slab[RECORD_HEADER_BYTES..LOSS_RECORD_BYTES];
    body.fill(0);
    loss.encode(body);
    header.seal(slab);
    header
}

/// A record on its way to the disk. Whoever owns it keeps the memory and the file alive.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) ticket: u64,
    record: Record,
    file: Arc<DiskFile>,
    offset: u64,
    written: usize,
}

/// What is to be done after a write call came back.
#[derive(Debug)]
pub(super) enum Progress {
    Done,
    Again,
    Failed(io::Error),
}

/// A write that is over.
#[derive(Debug)]
pub(super) struct Completion {
    pub(super) ticket: u64,
    pub(super) result: io::Result<()>,
}

impl Write {
    pub(super) fn new(ticket: u64, record: Record, file: Arc<DiskFile>, offset: u64) -> Write {
        Write { ticket, record, file, offset, written: 0 }
    }

    pub(super) fn file(&self) -> &Arc<DiskFile> {
        &self.file
    }

    /// The mapping in which the record lies.
    pub(super) fn region(&self) -> &Arc<Region> {
        self.record.region()
    }

    /// What is left to write, and where in the file.
    pub(super) fn rest(&self) -> (&[u8], u64) {
        (&self.record.bytes()[self.written..], self.offset + self.written as u64)
    }

    /// Takes in what a write call said.
    pub(super) fn advance(&mut self, result: io::Result<usize>) -> Progress {
        let bytes = match result {
            Ok(bytes) => bytes,
            Err(error) => {
                let passing = [io::ErrorKind::Interrupted, io::ErrorKind::WouldBlock];
                let again = passing.contains(&error.kind());
                return if again { Progress::Again } else { Progress::Failed(error) };
            }
        };
        let reached = self.written + bytes;
        if reached == self.record.bytes().len() {
            return Progress::Done;
        }
        // A write past the page cache has to go on from an aligned place.
        let aligned = reached & !(RECORD_ALIGN - 1);
        if aligned == self.written {
            return Progress::Failed(io::ErrorKind::WriteZero.into());
        }
        self.written = aligned;
        Progress::Again
    }

    fn complete(self, result: io::Result<()>) -> Completion {
        Completion { ticket: self.ticket, result }
    }

    /// Writes all of it with plain calls.
    pub(super) fn perform(mut self) -> Completion {
        loop {
            let (bytes, offset) = self.rest();
            let result = self.file.write_at(bytes, offset);
            match self.advance(result) {
                Progress::Again => {}
                Progress::Done => return self.complete(Ok(())),
                Progress::Failed(error) => return self.complete(Err(error)),
            }
        }
    }
}

/// How far one goes for completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reap {
    /// Takes in those that can be seen, without a call of the system.
    Seen,
    /// Begins every write first that is only queued.
    Begin,
    /// The same, and waits for at least one completion if any write is in flight.
    Wait,
}

/// The ways of writing.
#[derive(Debug)]
pub(super) enum Engine {
    Uring(Box<Uring>),
    /// Writes when a write is submitted; the results wait to be reaped.
    Pwrite(Vec<Completion>),
    #[cfg(test)]
    Scripted(super::scripted::Scripted),
}

impl Engine {
    pub(super) fn new(choice: EngineChoice, depth: usize) -> Result<Engine, ArchiveError> {
        if choice == EngineChoice::Pwrite {
            return Ok(Engine::plain());
        }
        match Uring::new(depth) {
            Ok(uring) => Ok(Engine::Uring(Box::new(uring))),
            Err(source) if choice == EngineChoice::Uring => Err(ArchiveError::Engine { source }),
            Err(error) => {
                log::info!("io_uring is not available ({error}); writing with pwrite");
                Ok(Engine::plain())
            }
        }
    }

    pub(super) fn plain() -> Engine {
        Engine::Pwrite(Vec::new())
    }

    /// Breaks an io_uring.
    #[cfg(test)]
    pub(super) fn break_down(&self) {
        let Engine::Uring(uring) = self else { panic!("{} does not break", self.name()) };
        uring.break_down();
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Engine::Uring(_) => "io_uring",
            Engine::Pwrite(_) => "pwrite",
            #[cfg(test)]
            Engine::Scripted(_) => "scripted",
        }
    }

    /// Writes submitted and not reaped.
    pub(super) fn in_flight(&self) -> usize {
        match self {
            Engine::Uring(uring) => uring.in_flight(),
            Engine::Pwrite(complete) => complete.len(),
            #[cfg(test)]
            Engine::Scripted(scripted) => scripted.in_flight(),
        }
    }

    /// Begins a write, or queues it until the next reap but [`Reap::Seen`]. There must be fewer in
    /// flight than the depth allows.
    pub(super) fn submit(&mut self, write: Write) {
        match self {
            Engine::Uring(uring) => uring.submit(write),
            Engine::Pwrite(complete) => complete.push(write.perform()),
            #[cfg(test)]
            Engine::Scripted(scripted) => scripted.submit(write),
        }
    }

    /// Adds what is complete to `completions`.
    ///
    /// # Errors
    /// If the engine itself is broken and has to be given up.
    pub(super) fn reap(&mut self, how: Reap, completions: &mut Vec<Completion>) -> io::Result<()> {
        match self {
            Engine::Uring(uring) => return uring.reap(how, completions),
            Engine::Pwrite(complete) => completions.append(complete),
            #[cfg(test)]
            Engine::Scripted(scripted) => return scripted.reap(how, completions),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::slab::SlabPool;

    fn write(file: File) -> Write {
        let slab = SlabPool::new(1 << 20).take(LOSS_RECORD_BYTES).unwrap();
        Write::new(0, Record::Loss(slab), Arc::new(file.into()), 8192)
    }

    fn large_write(bytes: u32) -> Write {
        let pool = SlabPool::new(1 << 20);
        let frame = super::super::scripted::frame(&pool, 0, bytes);
        Write::new(0, Record::Frame(frame), Arc::new(tempfile::tempfile().unwrap().into()), 4096)
    }

    #[test]
    fn a_short_write_goes_on_where_it_ended_or_at_the_aligned_place_before() {
        let mut write = large_write(20_000);
        assert!(matches!(write.advance(Ok(8192)), Progress::Again));
        assert_eq!((write.rest().0.len(), write.rest().1), (20_480 - 8192, 4096 + 8192));
        assert!(matches!(write.advance(Ok(5000)), Progress::Again));
        assert_eq!(write.rest().1, 4096 + 12_288);
        assert!(matches!(write.advance(Ok(8192)), Progress::Done));
    }

    #[test]
    fn a_write_that_gets_nowhere_fails_and_one_that_was_interrupted_does_not() {
        let mut write = write(tempfile::tempfile().unwrap());
        assert!(matches!(write.advance(Err(io::ErrorKind::Interrupted.into())), Progress::Again));
        assert!(matches!(write.advance(Err(io::ErrorKind::WouldBlock.into())), Progress::Again));
        assert!(matches!(write.advance(Ok(0)), Progress::Failed(_)));
        assert!(matches!(write.advance(Ok(512)), Progress::Failed(_)));
    }

    #[test]
    fn a_full_device_fails_the_write_on_either_engine() {
        for choice in [EngineChoice::Pwrite, EngineChoice::Auto] {
            let mut engine = Engine::new(choice, 2).unwrap();
            engine.submit(write(File::options().write(true).open("/dev/full").unwrap()));
            let mut completions = Vec::new();
            engine.reap(Reap::Wait, &mut completions).unwrap();
            let error = completions.pop().unwrap().result.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{}", engine.name());
            assert_eq!(engine.in_flight(), 0);
        }
    }
}
