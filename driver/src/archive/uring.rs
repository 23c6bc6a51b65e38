//! Writing with io_uring.
//!
//! The kernel reads a record's memory until the write's completion is reaped, whatever happens to
//! the frame elsewhere. So the table here owns each write, and with it the slab and the file, from
//! before its submission until its completion; a ring that is dropped waits for them, and where it
//! cannot, it leaks the table rather than give the memory back.

mod registered;

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use io_uring::{IoUring, opcode, squeue, types};

use super::engine::{Completion, Progress, Reap, Write};
use registered::Registered;

/// Calls that the kernel may refuse in a row for want of means, and the pause behind each.
const REFUSED_MAX: u32 = 1000;
const REFUSED_PAUSE: Duration = Duration::from_millis(1);

/// An io_uring with the writes it has in flight.
pub(super) struct Uring {
    ring: IoUring,
    registered: Registered,
    /// Indexed by the user data of a submission.
    table: Vec<Option<Write>>,
    in_flight: usize,
    /// Calls in a row that the kernel had no means for.
    refused: u32,
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring").field("in_flight", &self.in_flight).finish_non_exhaustive()
    }
}

impl Uring {
    /// A ring for `depth` writes, if the system allows one that can write.
    pub(super) fn new(depth: usize) -> io::Result<Uring> {
        // Completions interrupt nobody: they are seen at the next call of the system, whichever.
        let quiet = IoUring::builder().setup_coop_taskrun().build(depth as u32);
        // Kernels before 5.19 cannot do so.
        let ring = quiet.or_else(|_| IoUring::new(depth as u32))?;
        let mut probe = io_uring::Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::Write::CODE) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let registered = Registered::new(&ring.submitter());
        let table = std::iter::repeat_with(|| None).take(depth).collect();
        let mut uring = Uring { ring, registered, table, in_flight: 0, refused: 0 };
        uring.try_out()?;
        Ok(uring)
    }

    /// Sends an order to do nothing on its way: a filter may allow a ring, and refuse its use.
    fn try_out(&mut self) -> io::Result<()> {
        // SAFETY: it refers to no memory.
        let pushed = unsafe { self.ring.submission().push(&opcode::Nop::new().build()) };
        pushed.expect("the queue is empty");
        self.ring.submit_and_wait(1)?;
        self.ring.completion().next().map(drop).ok_or(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// From here on the kernel knows this ring no more.
    #[cfg(test)]
    pub(super) fn break_down(&self) {
        let null = std::fs::File::open("/dev/null").expect("every system has it");
        // SAFETY: both are open; the ring owns its number and closes it when it is dropped, and its
        // mapped memory stays whatever becomes of the number.
        let replaced = unsafe { libc::dup2(null.as_raw_fd(), self.ring.as_raw_fd()) };
        assert!(replaced >= 0, "a descriptor can be replaced");
    }

    /// Queues a write. The kernel hears of it when a [`Uring::reap`] says so, one call for several
    /// writes; or when half of what may be in flight is queued and the disk has nothing to do.
    pub(super) fn submit(&mut self, write: Write) {
        let free = self.table.iter().position(Option::is_none);
        let place = free.expect("fewer writes are in flight than the depth");
        self.table[place] = Some(write);
        self.in_flight += 1;
        self.push(place);
        let queued = self.ring.submission().len();
        if queued < self.in_flight || queued * 2 < self.table.len() {
            return;
        }
        // An error here leaves the entries in the queue; the next reap submits them or tells.
        if let Err(error) = self.ring.submit() {
            log::debug!("io_uring submit: {error}");
        }
    }

    /// Puts what is left of a write into the submission queue.
    fn push(&mut self, place: usize) {
        let write = self.table[place].as_ref().expect("the place is taken");
        let (submitter, alone) = (self.ring.submitter(), self.in_flight == 1);
        let buffer = self.registered.buffer(write.region(), alone, &submitter);
        let registered = self.registered.has_file(write.file(), alone, &submitter);
        let entry = entry(write, registered, buffer).user_data(place as u64);
        // SAFETY: the table owns the write until this entry's completion is reaped: its record
        // keeps the bytes mapped and unchanged, its file keeps the descriptor open.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.expect("the queue holds as many entries as the table");
    }

    /// Takes in what is complete.
    ///
    /// # Errors
    /// If the ring does not work any more.
    pub(super) fn reap(&mut self, how: Reap, completions: &mut Vec<Completion>) -> io::Result<()> {
        let before = completions.len();
        loop {
            if how != Reap::Seen {
                self.enter(how == Reap::Wait)?;
            }
            self.take_completions(completions);
            if how != Reap::Wait || self.in_flight == 0 || completions.len() > before {
                return Ok(());
            }
        }
    }

    /// Hands the kernel what is queued, and waits for one completion if asked to.
    fn enter(&mut self, wait: bool) -> io::Result<()> {
        let queued = !self.ring.submission().is_empty();
        // Being woken for each of many costs more than the writes; the other half keeps the disk busy.
        let wanted = match wait && self.ring.completion().is_empty() {
            true => self.in_flight.div_ceil(2),
            false => 0,
        };
        if !queued && wanted == 0 {
            return Ok(());
        }
        let Err(error) = self.ring.submit_and_wait(wanted) else {
            self.refused = 0;
            return Ok(());
        };
        match error.raw_os_error() {
            Some(libc::EINTR) => Ok(()),
            // Short of memory, or of room for completions: that passes, if it is what it says.
            Some(libc::EAGAIN | libc::EBUSY) if self.refused < REFUSED_MAX => {
                self.refused += 1;
                std::thread::sleep(REFUSED_PAUSE);
                Ok(())
            }
            _ => Err(error),
        }
    }

    fn take_completions(&mut self, completions: &mut Vec<Completion>) {
        while let Some((place, result)) = self.next_completion() {
            let write = self.table[place].as_mut().expect("only submitted writes complete");
            let ticket = write.ticket;
            let result = match write.advance(result) {
                Progress::Again => {
                    self.push(place);
                    continue;
                }
                Progress::Done => Ok(()),
                Progress::Failed(error) => Err(error),
            };
            self.table[place] = None;
            self.in_flight -= 1;
            completions.push(Completion { ticket, result });
        }
    }

    /// Where in the table the next completed write stands, and what the kernel said of it.
    fn next_completion(&mut self) -> Option<(usize, io::Result<usize>)> {
        let entry = self.ring.completion().next()?;
        let result = match entry.result() {
            negative @ ..0 => Err(io::Error::from_raw_os_error(-negative)),
            bytes => Ok(bytes as usize),
        };
        Some((entry.user_data() as usize, result))
    }
}

/// The kernel's order for what is left of a write.
fn entry(write: &Write, registered: bool, buffer: Option<u16>) -> squeue::Entry {
    let ((bytes, offset), own) = (write.rest(), types::Fd(write.file().as_raw_fd()));
    let (fd, flags) = match registered {
        true => (types::Fd(0), squeue::Flags::FIXED_FILE),
        false => (own, squeue::Flags::empty()),
    };
    let (at, len) = (bytes.as_ptr(), bytes.len() as u32);
    let entry = match buffer {
        Some(buffer) => opcode::WriteFixed::new(fd, at, len, buffer).offset(offset).build(),
        None => opcode::Write::new(fd, at, len).offset(offset).build(),
    };
    entry.flags(flags)
}

impl Drop for Uring {
    fn drop(&mut self) {
        let mut completions = Vec::new();
        while self.in_flight > 0 {
            if let Err(error) = self.reap(Reap::Wait, &mut completions) {
                log::error!("io_uring: {error}; memory of {} writes is leaked", self.in_flight);
                std::mem::forget(std::mem::take(&mut self.table));
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;

    use super::super::engine::Record;
    use super::super::scripted::frame;
    use super::*;
    use crate::slab::SlabPool;

    #[test]
    fn a_ring_that_is_dropped_has_written_everything_and_given_the_slabs_back() {
        for pool in [SlabPool::new(1 << 20), SlabPool::with_huge_pages(8 << 20)] {
            // Where containers forbid io_uring, there is nothing to be tested.
            let Ok(mut uring) = Uring::new(3) else { return };
            let file = tempfile::tempfile().unwrap();
            let written = Arc::new(file.try_clone().unwrap().into());
            let frames: Vec<_> = (0..3).map(|n| frame(&pool, n, 40_000)).collect();
            let record_bytes = frames[0].record().len();
            for (ticket, frame) in frames.iter().enumerate() {
                let record = Record::Frame(frame.clone());
                let offset = (ticket * record_bytes) as u64;
                uring.submit(Write::new(ticket as u64, record, Arc::clone(&written), offset));
            }
            drop(uring);
            for (place, frame) in frames.iter().enumerate() {
                let mut bytes = vec![0; record_bytes];
                file.read_exact_at(&mut bytes, (place * record_bytes) as u64).unwrap();
                assert!(bytes == frame.record(), "frame {place}");
            }
            drop(frames);
            assert_eq!(pool.taken(), 0);
        }
    }

    #[test]
    fn what_is_queued_goes_to_its_own_file_whichever_is_registered_later() {
        let Ok(mut uring) = Uring::new(8) else { return };
        let pool = SlabPool::new(1 << 20);
        let files = [(); 3].map(|()| tempfile::tempfile().unwrap());
        for round in 0..4 {
            for (place, file) in files.iter().enumerate() {
                let written = Arc::new(file.try_clone().unwrap().into());
                let record = Record::Frame(frame(&pool, place as u64, 10_000));
                uring.submit(Write::new(place as u64, record, written, 0));
            }
            let mut completions = Vec::new();
            while uring.in_flight() > 0 {
                uring.reap(Reap::Wait, &mut completions).unwrap();
            }
            assert!(completions.iter().all(|completion| completion.result.is_ok()), "{round}");
            for (place, file) in files.iter().enumerate() {
                let frame = frame(&pool, place as u64, 10_000);
                let mut bytes = vec![0; frame.record().len()];
                file.read_exact_at(&mut bytes, 0).unwrap();
                assert!(bytes == frame.record(), "file {place}, round {round}");
                file.set_len(0).unwrap();
            }
        }
    }
}
