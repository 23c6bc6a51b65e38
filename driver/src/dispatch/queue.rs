//! The queue between an outlet and its consumers: bounded, and what waits longest can be taken back, so
//! that the frame behind it tells that it is missing.
//!
//! The outlet alone puts frames in, each into a cell of its own, and takes no lock that anybody waits
//! for. Whoever takes one out, a consumer or the outlet that takes it back, holds the front, so that what
//! is missing is told in order. A frame and the mark that it is there share one cache line, which is all
//! that goes from core to core: whatever a consumer spins on beside it, or writes while it spins, has a
//! line of its own.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use super::{Delivery, Losses};
use crate::loss::{Loss, LossReason};

/// The consumers' end of a queue. Clones share the queue: each frame goes to one of them.
#[derive(Debug, Clone)]
pub struct Inlet {
    queue: Arc<Queue>,
}

/// Why there is no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoDelivery {
    /// None waits.
    #[error("no frame waits")]
    Yet,
    /// None waits, and none will come: the outlet is gone.
    #[error("no frame will come any more")]
    EverAgain,
}

/// The outlet's end. When it is dropped, no frame will come any more.
#[derive(Debug)]
pub(super) struct Back {
    queue: Arc<Queue>,
}

/// Room for one frame, on cache lines of its own: the one that is fetched along with it included.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Cell {
    /// Whose it is: the front's while it is full, else the outlet's.
    is_full: AtomicBool,
    /// Locked by its owner alone, and so never waited for; but that the owner before may not have let go
    /// of it yet.
    delivery: Mutex<Option<Delivery>>,
}

/// What has cache lines of its own in the same way.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Line<T>(T);

const _: () = assert!(size_of::<Cell>() == 128);

#[derive(Debug)]
struct Queue {
    cells: Box<[Cell]>,
    /// Frames that were put in so far. Changed by the outlet alone.
    put: Line<AtomicUsize>,
    /// Consumers that sleep and have not been called. Changes under the lock of the front alone; the
    /// outlet looks at it without, so that a frame for a consumer that is awake costs no system call.
    asleep: Line<AtomicUsize>,
    front: Line<Mutex<Front>>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Front {
    /// Frames that were taken out so far.
    taken: usize,
    /// What was taken back, for the next frame that is taken to tell.
    untold: Losses,
    /// Sleepers that were called and have not heard it yet: nobody calls them a second time.
    called: usize,
    closed: bool,
}

/// A queue of `capacity` frames, all of its memory allocated: its two ends.
pub(super) fn queue(capacity: usize) -> (Back, Inlet) {
    let queue = Arc::new(Queue {
        cells: (0..capacity).map(|_| Cell::default()).collect(),
        put: Line::default(),
        asleep: Line::default(),
        front: Line::default(),
        changed: Condvar::new(),
    });
    (Back { queue: Arc::clone(&queue) }, Inlet { queue })
}

impl Inlet {
    /// Waits for the next frame; `None` when no frame will come any more.
    #[must_use]
    pub fn recv(&self) -> Option<Delivery> {
        self.queue.take(&mut self.queue.sleep(None)).ok()
    }

    /// Waits for the next frame, at most for so long.
    ///
    /// # Errors
    /// If none came.
    pub fn recv_timeout(&self, patience: Duration) -> Result<Delivery, NoDelivery> {
        self.queue.take(&mut self.queue.sleep(Instant::now().checked_add(patience)))
    }

    /// The next frame, if one waits.
    ///
    /// # Errors
    /// If none does.
    pub fn try_recv(&self) -> Result<Delivery, NoDelivery> {
        self.queue.take(&mut self.queue.lock())
    }

    /// The next frame, if one waits and nobody else is taking one at this moment: for a loop that looks
    /// again, and never makes the outlet or another consumer wait.
    pub(crate) fn look(&self) -> Result<Delivery, NoDelivery> {
        match self.queue.front.0.try_lock() {
            Ok(mut front) => self.queue.take(&mut front),
            Err(TryLockError::Poisoned(poisoned)) => self.queue.take(&mut poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(NoDelivery::Yet),
        }
    }

    /// The frames that wait, and those that come meanwhile.
    pub fn try_iter(&self) -> impl Iterator<Item = Delivery> + '_ {
        std::iter::from_fn(|| self.try_recv().ok())
    }

    /// Frames that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.waiting(&self.queue.lock())
    }

    /// Whether no frame waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Cell {
    fn put(&self, delivery: Delivery) -> Result<(), Delivery> {
        // Locked before it is looked at: so the line comes here once, and for writing.
        let mut cell = self.lock();
        if cell.is_some() {
            return Err(delivery);
        }
        *cell = Some(delivery);
        self.is_full.store(true, Ordering::Release);
        Ok(())
    }

    fn take(&self) -> Option<Delivery> {
        if !self.is_full.load(Ordering::Acquire) {
            return None;
        }
        let mut cell = self.lock();
        self.is_full.store(false, Ordering::Release);
        cell.take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Delivery>> {
        // Whatever was to be changed in it is.
        self.delivery.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn cell(&self, number: usize) -> &Cell {
        &self.cells[number % self.cells.len()]
    }

    fn waiting(&self, front: &Front) -> usize {
        // A consumer may have taken the frame that is being put.
        self.put.0.load(Ordering::Acquire).saturating_sub(front.taken)
    }

    fn is_idle(&self, front: &Front) -> bool {
        !self.cell(front.taken).is_full.load(Ordering::Acquire) && !front.closed
    }

    fn pop(&self, front: &mut Front) -> Option<Delivery> {
        let delivery = self.cell(front.taken).take()?;
        front.taken += 1;
        Some(delivery)
    }

    fn take(&self, front: &mut Front) -> Result<Delivery, NoDelivery> {
        let none = if front.closed { NoDelivery::EverAgain } else { NoDelivery::Yet };
        let mut delivery = self.pop(front).ok_or(none)?;
        if !front.untold.is_empty() {
            let later = std::mem::replace(&mut delivery.lost, std::mem::take(&mut front.untold));
            delivery.lost.append(later);
        }
        Ok(delivery)
    }

    /// Sleeps until there is a frame, or never will be, or `until`.
    fn sleep(&self, until: Option<Instant>) -> MutexGuard<'_, Front> {
        let mut front = self.lock();
        loop {
            self.asleep.0.fetch_add(1, Ordering::Relaxed);
            // Whoever puts a frame looks for sleepers behind a fence as well: one of us sees the other.
            fence(Ordering::SeqCst);
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if !self.is_idle(&front) || left == Some(Duration::ZERO) {
                self.asleep.0.fetch_sub(1, Ordering::Relaxed);
                return front;
            }
            front = match left {
                None => self.changed.wait(front).unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    let woken = self.changed.wait_timeout(front, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            self.wake_up(&mut front);
        }
    }

    /// Who wakes up without having been called was counted as a sleeper until now.
    fn wake_up(&self, front: &mut Front) {
        match front.called {
            0 => drop(self.asleep.0.fetch_sub(1, Ordering::Relaxed)),
            _ => front.called -= 1,
        }
    }

    fn call(&self) {
        let mut front = self.lock();
        if self.asleep.0.load(Ordering::Relaxed) > 0 {
            self.asleep.0.fetch_sub(1, Ordering::Relaxed);
            front.called += 1;
            drop(front);
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Front> {
        // Nothing between lock and unlock leaves the front half changed.
        self.front.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Back {
    pub(super) fn waiting(&self) -> usize {
        self.queue.waiting(&self.queue.lock())
    }

    pub(super) fn has_room(&self) -> bool {
        let put = self.queue.put.0.load(Ordering::Relaxed);
        !self.queue.cell(put).is_full.load(Ordering::Acquire)
    }

    /// Puts a frame at the end, and calls a consumer if one sleeps; gives it back if the queue is full.
    pub(super) fn put(&mut self, delivery: Delivery) -> Result<(), Delivery> {
        let put = self.queue.put.0.load(Ordering::Relaxed);
        self.queue.cell(put).put(delivery)?;
        self.queue.put.0.store(put + 1, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.queue.asleep.0.load(Ordering::Relaxed) > 0 {
            self.queue.call();
        }
        Ok(())
    }

    /// Takes back the frame that has waited longest. That it is missing, and what it would have told,
    /// is told by the next one that is taken. False if none waits.
    pub(super) fn take_back(&mut self, reason: LossReason) -> bool {
        let mut front = self.queue.lock();
        let Some(Delivery { frame, lost, .. }) = self.queue.pop(&mut front) else { return false };
        front.untold.append(lost);
        front.untold.push(Loss::of_frame(&frame, reason));
        true
    }

    /// What was taken back and no frame that waits will tell.
    pub(super) fn take_untold(&mut self) -> Losses {
        let mut front = self.queue.lock();
        match self.queue.waiting(&front) {
            0 => std::mem::take(&mut front.untold),
            _ => Losses::default(),
        }
    }
}

impl Drop for Back {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.changed.notify_all();
    }
}
