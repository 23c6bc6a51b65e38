//! Hands frames to consumers through bounded queues. A slow consumer loses frames, and is told;
//! neither the tail nor another consumer waits for it.

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::clock::Moment;
use crate::frame::Frame;
use crate::loss::{Loss, LossReason};
use crate::policy::{Policy, Sieve, WhenFull};
use crate::ring::Timestamp;

/// A frame for a consumer, and what it missed since the one before.
#[derive(Debug)]
pub struct Delivery {
    /// The frame.
    pub frame: Frame,
    /// What was lost for this consumer before it; not what its own policy left out.
    pub lost: Losses,
    /// When the driver found the frame.
    pub detected: Moment,
}

/// Losses that have not been told yet, in order, bounded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Losses(Vec<Loss>);

/// Stretches that are kept apart; with more of them, counts are added to the last of the same reason.
const STRETCHES_MAX: usize = 64;

impl Losses {
    /// Adds a stretch.
    pub fn push(&mut self, loss: Loss) {
        let Some(loss) = self.0.last_mut().map_or(Some(loss), |last| last.join(loss).err()) else {
            return;
        };
        if self.0.len() < STRETCHES_MAX {
            self.0.push(loss);
            return;
        }
        match self.0.iter_mut().rfind(|known| known.reason == loss.reason) {
            Some(known) => {
                known.count += loss.count;
                known.exact &= loss.exact;
                known.refusal = known.refusal.filter(|_| known.refusal == loss.refusal);
                known.last = loss.last.or(known.last);
            }
            None => self.0.push(loss),
        }
    }

    /// The stretches, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Loss> {
        self.0.iter()
    }

    /// Frames lost in all.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.0.iter().map(|loss| loss.count).sum()
    }

    /// Whether nothing was lost.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What became of a frame that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offered {
    /// It stands in the queue.
    pub queued: bool,
    /// Frames that had to give way, itself included.
    pub dropped: u64,
}

/// The way to one consumer.
#[derive(Debug)]
pub struct Outlet {
    sieve: Sieve,
    when_full: WhenFull,
    sender: Sender<Delivery>,
    /// The consumers' end as well, to take back what gives way.
    receiver: Receiver<Delivery>,
    untold: Losses,
}

impl Outlet {
    /// An outlet with a queue of `capacity` frames, and the consumers' end of it.
    ///
    /// # Panics
    /// If the capacity is 0.
    #[must_use]
    pub fn new(policy: Policy, capacity: usize) -> (Outlet, Receiver<Delivery>) {
        assert!(capacity > 0, "a queue for at least one frame");
        let (sender, receiver) = bounded(capacity);
        let outlet = Outlet {
            sieve: Sieve::new(policy.take),
            when_full: policy.when_full,
            sender,
            receiver: receiver.clone(),
            untold: Losses::default(),
        };
        (outlet, receiver)
    }

    /// Whether the consumer's policy takes the frame of this time. To be asked once a frame.
    pub fn takes(&mut self, time: Timestamp) -> bool {
        self.sieve.takes(time)
    }

    /// Whether the queue has room.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.sender.is_full()
    }

    /// Notes a loss, to be told with the next frame.
    pub fn lose(&mut self, loss: Loss) {
        self.untold.push(loss);
    }

    /// What has not been told, for the end of a run.
    pub fn take_untold(&mut self) -> Losses {
        std::mem::take(&mut self.untold)
    }

    /// Queues a frame; with a full queue the policy says what gives way.
    pub fn offer(&mut self, frame: Frame, detected: Moment) -> Offered {
        let mut dropped = self.make_room();
        let lost = std::mem::take(&mut self.untold);
        match self.sender.try_send(Delivery { frame, lost, detected }) {
            Ok(()) => Offered { queued: true, dropped },
            Err(TrySendError::Full(back) | TrySendError::Disconnected(back)) => {
                dropped += 1;
                self.take_back(back, LossReason::QueueFull);
                Offered { queued: false, dropped }
            }
        }
    }

    /// Frames that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.receiver.len()
    }

    /// Gives up the frame that has waited longest, because all slabs are taken. False if none waits.
    pub fn give_way(&mut self) -> bool {
        match self.receiver.try_recv() {
            Ok(oldest) => {
                self.take_back(oldest, LossReason::NoSlab);
                true
            }
            Err(_) => false,
        }
    }

    fn make_room(&mut self) -> u64 {
        let mut dropped = 0;
        let goal = match self.when_full {
            WhenFull::DropNewest => return 0,
            WhenFull::DropOldest => 1,
            WhenFull::LatestOnly => usize::MAX,
        };
        if self.has_room() {
            return 0;
        }
        while dropped < goal as u64 {
            let Ok(oldest) = self.receiver.try_recv() else { break };
            self.take_back(oldest, LossReason::QueueFull);
            dropped += 1;
        }
        dropped
    }

    /// What a delivery that gives way would have told is still to be told, and that it gave way.
    fn take_back(&mut self, delivery: Delivery, reason: LossReason) {
        let later = std::mem::replace(&mut self.untold, delivery.lost);
        let time = Some(delivery.frame.time());
        self.untold.push(Loss {
            reason,
            refusal: None,
            sequence: delivery.frame.sequence(),
            count: 1,
            exact: true,
            first: time,
            last: time,
        });
        later.0.into_iter().for_each(|loss| self.untold.push(loss));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{RecordHeader, RecordKind, frame_body_bytes, record_bytes};
    use crate::slab::SlabPool;

    fn frame(pool: &SlabPool, sequence: u64) -> Frame {
        let header = RecordHeader {
            kind: RecordKind::Frame,
            synthesised: false,
            camera: 0,
            length: 1,
            sequence,
            epoch: 0,
            cursor: 64 * sequence,
            realtime_ns: 0,
            monotonic_ns: 0,
            lost_before: 0,
            session: 0,
        };
        let slab = pool.take(record_bytes(frame_body_bytes(1))).unwrap();
        Frame::seal(slab, header, Timestamp { sec: sequence as u32, usec: 0 })
    }

    /// Offers eight frames to a queue of three that nobody reads; what is queued at the end, what
    /// each of them was told, and how many gave way.
    fn offered(policy: &str) -> (Vec<u64>, Vec<u64>, u64) {
        let pool = SlabPool::new(1 << 20);
        let (mut outlet, queue) = Outlet::new(policy.parse().unwrap(), 3);
        let dropped =
            (0..8).map(|n| outlet.offer(frame(&pool, n), Moment::default()).dropped).sum();
        let untold = outlet.take_untold().frames();
        let deliveries: Vec<Delivery> = queue.try_iter().collect();
        let told: u64 = deliveries.iter().map(|delivery| delivery.lost.frames()).sum();
        assert_eq!(told + untold, dropped, "every loss is told once");
        let sequences = deliveries.iter().map(|delivery| delivery.frame.sequence()).collect();
        let told = deliveries.iter().map(|delivery| delivery.lost.frames()).collect();
        drop(deliveries);
        assert_eq!(pool.taken(), 0, "what gave way gave its slab back");
        (sequences, told, dropped)
    }

    #[test]
    fn a_full_queue_drops_the_newest() {
        assert_eq!(offered("every:drop-newest"), (vec![0, 1, 2], vec![0, 0, 0], 5));
    }

    #[test]
    fn a_full_queue_drops_the_oldest_and_the_next_one_queued_tells() {
        assert_eq!(offered("every:drop-oldest"), (vec![5, 6, 7], vec![1, 2, 2], 5));
    }

    #[test]
    fn latest_only_empties_the_queue() {
        assert_eq!(offered("every:latest-only"), (vec![6, 7], vec![6, 0], 6));
    }

    #[test]
    fn losses_of_one_stretch_are_one_and_their_number_is_bounded() {
        let loss = |sequence, reason| Loss {
            reason,
            refusal: None,
            sequence,
            count: 1,
            exact: true,
            first: None,
            last: None,
        };
        let mut losses = Losses::default();
        (0..10).for_each(|n| losses.push(loss(n, LossReason::Torn)));
        assert_eq!((losses.iter().count(), losses.frames()), (1, 10));
        (0..1000).for_each(|n| losses.push(loss(20 + 2 * n, LossReason::QueueFull)));
        losses.push(loss(5000, LossReason::Overrun));
        assert_eq!(losses.frames(), 1011);
        assert!(losses.iter().count() <= STRETCHES_MAX + LossReason::ALL.len());
    }
}
