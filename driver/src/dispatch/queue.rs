//! The queue between an outlet and its consumers: bounded, and what waits longest can be taken back, so
//! that the frame behind it tells that it is missing.
//!
//! The outlet alone puts frames in and never takes a lock for it. Whoever takes one out, a consumer or
//! the outlet that takes it back, holds the front, so that what is missing is told in order.

use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use rtrb::{Consumer, Producer, PushError, RingBuffer};

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
    frames: Producer<Delivery>,
    queue: Arc<Queue>,
}

#[derive(Debug)]
struct Queue {
    front: Mutex<Front>,
    changed: Condvar,
    /// Consumers that sleep and have not been called. Changes under the lock alone; the outlet looks at
    /// it without, so that a frame for a consumer that is awake costs no lock and no system call.
    asleep: AtomicUsize,
}

#[derive(Debug)]
struct Front {
    frames: Consumer<Delivery>,
    /// What was taken back, for the next frame that is taken to tell.
    untold: Losses,
    /// Sleepers that were called and have not heard it yet: nobody calls them a second time.
    called: usize,
    closed: bool,
}

/// A queue of `capacity` frames, all of its memory allocated: its two ends.
pub(super) fn queue(capacity: usize) -> (Back, Inlet) {
    let (back, front) = RingBuffer::new(capacity);
    let front = Front { frames: front, untold: Losses::default(), called: 0, closed: false };
    let queue =
        Queue { front: Mutex::new(front), changed: Condvar::new(), asleep: AtomicUsize::new(0) };
    let queue = Arc::new(queue);
    (Back { frames: back, queue: Arc::clone(&queue) }, Inlet { queue })
}

impl Inlet {
    /// Waits for the next frame; `None` when no frame will come any more.
    #[must_use]
    pub fn recv(&self) -> Option<Delivery> {
        self.queue.sleep(None).take().ok()
    }

    /// Waits for the next frame, at most for so long.
    ///
    /// # Errors
    /// If none came.
    pub fn recv_timeout(&self, patience: Duration) -> Result<Delivery, NoDelivery> {
        self.queue.sleep(Instant::now().checked_add(patience)).take()
    }

    /// The next frame, if one waits.
    ///
    /// # Errors
    /// If none does.
    pub fn try_recv(&self) -> Result<Delivery, NoDelivery> {
        self.queue.lock().take()
    }

    /// The next frame, if one waits and nobody else is taking one at this moment: for a loop that looks
    /// again, and never makes the outlet or another consumer wait.
    pub(crate) fn look(&self) -> Result<Delivery, NoDelivery> {
        match self.queue.front.try_lock() {
            Ok(mut front) => front.take(),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().take(),
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
        self.queue.lock().frames.slots()
    }

    /// Whether no frame waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Front {
    fn is_idle(&self) -> bool {
        self.frames.is_empty() && !self.closed
    }

    fn take(&mut self) -> Result<Delivery, NoDelivery> {
        let none = if self.closed { NoDelivery::EverAgain } else { NoDelivery::Yet };
        let mut delivery = self.frames.pop().map_err(|_| none)?;
        if !self.untold.is_empty() {
            let later = std::mem::replace(&mut delivery.lost, std::mem::take(&mut self.untold));
            delivery.lost.append(later);
        }
        Ok(delivery)
    }
}

impl Queue {
    /// Sleeps until there is a frame, or never will be, or `until`.
    fn sleep(&self, until: Option<Instant>) -> MutexGuard<'_, Front> {
        let mut front = self.lock();
        loop {
            self.asleep.fetch_add(1, Ordering::Relaxed);
            // Whoever puts a frame looks for sleepers behind a fence as well: one of us sees the other.
            fence(Ordering::SeqCst);
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if !front.is_idle() || left == Some(Duration::ZERO) {
                self.asleep.fetch_sub(1, Ordering::Relaxed);
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
            0 => drop(self.asleep.fetch_sub(1, Ordering::Relaxed)),
            _ => front.called -= 1,
        }
    }

    fn call(&self) {
        let mut front = self.lock();
        if self.asleep.load(Ordering::Relaxed) > 0 {
            self.asleep.fetch_sub(1, Ordering::Relaxed);
            front.called += 1;
            drop(front);
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Front> {
        // Nothing between lock and unlock leaves the front half changed.
        self.front.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Back {
    pub(super) fn waiting(&self) -> usize {
        self.frames.buffer().capacity() - self.frames.slots()
    }

    pub(super) fn has_room(&self) -> bool {
        !self.frames.is_full()
    }

    /// Puts a frame at the end, and calls a consumer if one sleeps; gives it back if the queue is full.
    pub(super) fn put(&mut self, delivery: Delivery) -> Result<(), Delivery> {
        self.frames.push(delivery).map_err(|PushError::Full(delivery)| delivery)?;
        fence(Ordering::SeqCst);
        if self.queue.asleep.load(Ordering::Relaxed) > 0 {
            self.queue.call();
        }
        Ok(())
    }

    /// Takes back the frame that has waited longest. That it is missing, and what it would have told,
    /// is told by the next one that is taken. False if none waits.
    pub(super) fn take_back(&mut self, reason: LossReason) -> bool {
        if self.waiting() == 0 {
            return false;
        }
        let mut front = self.queue.lock();
        let Ok(Delivery { frame, lost, .. }) = front.frames.pop() else { return false };
        front.untold.append(lost);
        front.untold.push(Loss::of_frame(&frame, reason));
        true
    }

    /// What was taken back and no frame that waits will tell.
    pub(super) fn take_untold(&mut self) -> Losses {
        let mut front = self.queue.lock();
        match front.frames.is_empty() {
            true => std::mem::take(&mut front.untold),
            false => Losses::default(),
        }
    }
}

impl Drop for Back {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.changed.notify_all();
    }
}
