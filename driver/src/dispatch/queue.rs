//! The queue between an outlet and its consumers: bounded, and what waits longest can be taken back, so
//! that the frame behind it tells that it is missing.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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

#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    capacity: usize,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Delivery>,
    /// Consumers that wait for a frame: a wake-up is a system call, so that nobody is woken for nothing.
    sleepers: usize,
    closed: bool,
}

impl Inlet {
    pub(super) fn new(queue: Arc<Queue>) -> Inlet {
        Inlet { queue }
    }

    /// Waits for the next frame; `None` when no frame will come any more.
    #[must_use]
    pub fn recv(&self) -> Option<Delivery> {
        let mut state = self.queue.lock();
        state.sleepers += 1;
        let state = self.queue.changed.wait_while(state, |state| state.is_idle());
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        state.sleepers -= 1;
        state.waiting.pop_front()
    }

    /// Waits for the next frame, at most for so long.
    ///
    /// # Errors
    /// If none came.
    pub fn recv_timeout(&self, patience: Duration) -> Result<Delivery, NoDelivery> {
        let mut state = self.queue.lock();
        state.sleepers += 1;
        let waited =
            self.queue.changed.wait_timeout_while(state, patience, |state| state.is_idle());
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.sleepers -= 1;
        state.take()
    }

    /// The next frame, if one waits.
    ///
    /// # Errors
    /// If none does.
    pub fn try_recv(&self) -> Result<Delivery, NoDelivery> {
        self.queue.lock().take()
    }

    /// The frames that wait, and those that come meanwhile.
    pub fn try_iter(&self) -> impl Iterator<Item = Delivery> + '_ {
        std::iter::from_fn(|| self.try_recv().ok())
    }

    /// Frames that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.waiting()
    }

    /// Whether no frame waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl State {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && !self.closed
    }

    fn take(&mut self) -> Result<Delivery, NoDelivery> {
        let none = if self.closed { NoDelivery::EverAgain } else { NoDelivery::Yet };
        self.waiting.pop_front().ok_or(none)
    }
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Queue {
        Queue { state: Mutex::default(), changed: Condvar::new(), capacity }
    }

    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    pub(super) fn has_room(&self) -> bool {
        self.waiting() < self.capacity
    }

    /// Puts a frame at the end; gives it back if the queue is full.
    pub(super) fn put(&self, delivery: Delivery) -> Result<(), Delivery> {
        let mut state = self.lock();
        if state.waiting.len() >= self.capacity {
            return Err(delivery);
        }
        state.waiting.push_back(delivery);
        let is_awaited = state.sleepers > 0;
        drop(state);
        if is_awaited {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Takes back the frame that has waited longest. That it is missing, and what it would have told,
    /// is told by the next one, or else joins `untold`. False if none waits.
    pub(super) fn take_back(&self, reason: LossReason, untold: &mut Losses) -> bool {
        let mut state = self.lock();
        let Some(Delivery { frame, lost: mut losses, .. }) = state.waiting.pop_front() else {
            return false;
        };
        losses.push(Loss::of_frame(&frame, reason));
        let later = state.waiting.front_mut().map_or(untold, |next| &mut next.lost);
        losses.append(std::mem::take(later));
        *later = losses;
        true
    }

    /// No frame will come any more.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing between lock and unlock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
