//! Hands frames to consumers through bounded queues. A slow consumer loses frames, and is told;
//! neither the tail nor another consumer waits for it.

mod queue;

use std::collections::BTreeMap;
use std::fmt;

use crate::clock::Moment;
use crate::frame::Frame;
use crate::loss::{Loss, LossReason};
use crate::policy::{Policy, Sieve, WhenFull};
use crate::ring::Timestamp;

use queue::Back;
pub use queue::{Inlet, NoDelivery};

/// A frame for a consumer, and what it missed since the one before.
#[derive(Debug)]
pub struct Delivery {
    /// The frame.
    pub frame: Frame,
    /// What was lost for this consumer between the frame that it was given before and this one, oldest
    /// first; not what its own policy left out. The ring's part of it, the same for all consumers,
    /// stands in the frame's record header as well
    /// ([`RecordHeader::lost_before`](crate::record::RecordHeader::lost_before)): there counted since the
    /// frame that was found whole before, whoever took that.
    pub lost: Losses,
    /// When the driver found the frame.
    pub detected: Moment,
}

/// Stretches of missing frames, in order.
///
/// They are kept apart by reason, so that their numbers fill the gaps between frames exactly. Behind
/// 65,536 stretches without a frame between (5 MB; no consumer that takes frames comes near) whatever
/// follows is added to the last one: how many are missing stays exact.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Losses(Vec<Loss>);

/// Stretches that are kept apart.
const STRETCHES_MAX: usize = 1 << 16;

impl Losses {
    /// Adds a stretch.
    pub fn push(&mut self, loss: Loss) {
        let is_full = self.0.len() >= STRETCHES_MAX;
        let Some(last) = self.0.last_mut() else { return self.0.push(loss) };
        match last.join(loss) {
            Ok(()) => {}
            Err(loss) if is_full => last.absorb(loss),
            Err(loss) => self.0.push(loss),
        }
    }

    /// Adds the stretches of `later`.
    pub fn append(&mut self, later: Losses) {
        later.0.into_iter().for_each(|loss| self.push(loss));
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

    /// Frames lost for each reason that there is, by its name.
    #[must_use]
    pub fn by_reason(&self) -> BTreeMap<&'static str, u64> {
        self.0.iter().fold(BTreeMap::new(), |mut counts, loss| {
            *counts.entry(loss.reason.name()).or_default() += loss.count;
            counts
        })
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
    /// The consumer is done with it: it works on the thread that offers.
    pub done: bool,
    /// Frames that had to give way, itself included.
    pub dropped: u64,
}

/// What a consumer does with each frame that it is given.
pub type Processor = Box<dyn FnMut(&Delivery) + Send>;

/// The way to one consumer. When it is dropped, the consumer is given what waits, and nothing more.
#[derive(Debug)]
pub struct Outlet {
    sieve: Sieve,
    when_full: WhenFull,
    way: Way,
    untold: Losses,
}

enum Way {
    Queue(Back),
    Inline(Processor),
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Way::Queue(back) => back.fmt(f),
            Way::Inline(_) => f.write_str("Inline"),
        }
    }
}

impl Outlet {
    /// An outlet with a queue of `capacity` frames, and the consumers' end of it.
    ///
    /// # Panics
    /// If the capacity is 0.
    #[must_use]
    pub fn new(policy: Policy, capacity: usize) -> (Outlet, Inlet) {
        assert!(capacity > 0, "a queue for at least one frame");
        let (back, inlet) = queue::queue(capacity);
        (Outlet::to(policy, Way::Queue(back)), inlet)
    }

    /// An outlet whose consumer works on the thread that offers: without queue, so that nothing gives
    /// way, and without waking anybody. As long as it works, that thread does nothing else.
    #[must_use]
    pub fn inline(policy: Policy, processor: Processor) -> Outlet {
        Outlet::to(policy, Way::Inline(processor))
    }

    fn to(policy: Policy, way: Way) -> Outlet {
        let (sieve, when_full) = (Sieve::new(policy.take), policy.when_full);
        Outlet { sieve, when_full, way, untold: Losses::default() }
    }

    /// Whether the consumer works on the thread that offers.
    #[must_use]
    pub fn is_inline(&self) -> bool {
        matches!(self.way, Way::Inline(_))
    }

    /// Whether the consumer's policy takes the frame of this time. To be asked once a frame.
    pub fn takes(&mut self, time: Timestamp) -> bool {
        self.sieve.takes(time)
    }

    /// What [`Outlet::takes`] would say of a frame of this time.
    #[must_use]
    pub fn would_take(&self, time: Timestamp) -> bool {
        self.sieve.would_take(time)
    }

    /// Whether the queue has room.
    #[must_use]
    pub fn has_room(&self) -> bool {
        match &self.way {
            Way::Queue(back) => back.has_room(),
            Way::Inline(_) => true,
        }
    }

    /// Notes a loss, to be told with the next frame.
    pub fn lose(&mut self, loss: Loss) {
        self.untold.push(loss);
    }

    /// What has not been told, for the end of a run.
    pub fn take_untold(&mut self) -> Losses {
        let mut untold = match &mut self.way {
            Way::Queue(back) => back.take_untold(),
            Way::Inline(_) => Losses::default(),
        };
        untold.append(std::mem::take(&mut self.untold));
        untold
    }

    /// Queues a frame, or has it worked on; with a full queue the policy says what gives way.
    pub fn offer(&mut self, frame: Frame, detected: Moment) -> Offered {
        let lost = std::mem::take(&mut self.untold);
        let delivery = Delivery { frame, lost, detected };
        let back = match &mut self.way {
            Way::Queue(back) => back,
            Way::Inline(processor) => {
                processor(&delivery);
                return Offered { done: true, ..Offered::default() };
            }
        };
        let (dropped, put) = match back.put(delivery) {
            Ok(()) => (0, Ok(())),
            Err(delivery) => (make_room(back, self.when_full), back.put(delivery)),
        };
        match put {
            Ok(()) => Offered { queued: true, dropped, ..Offered::default() },
            Err(Delivery { frame, lost, .. }) => {
                self.untold = lost;
                self.untold.push(Loss::of_frame(&frame, LossReason::QueueFull));
                Offered { dropped: dropped + 1, ..Offered::default() }
            }
        }
    }

    /// Frames that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        match &self.way {
            Way::Queue(back) => back.waiting(),
            Way::Inline(_) => 0,
        }
    }

    /// Gives up the frame that has waited longest, because all slabs are taken. False if none waits.
    pub fn give_way(&mut self) -> bool {
        match &mut self.way {
            Way::Queue(back) => back.take_back(LossReason::NoSlab),
            Way::Inline(_) => false,
        }
    }
}

/// Takes back what has to give way to the next frame; how many frames that is.
fn make_room(back: &mut Back, when_full: WhenFull) -> u64 {
    let goal = match when_full {
        WhenFull::DropNewest => 0,
        WhenFull::DropOldest => 1,
        WhenFull::LatestOnly => usize::MAX,
    };
    (0..goal).take_while(|_| back.take_back(LossReason::QueueFull)).count() as u64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand_xoshiro::Xoshiro256PlusPlus;
    use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};

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
        Frame::seal(slab, header, Timestamp { sec: sequence as u32, usec: 0 }, None)
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
    fn a_full_queue_drops_the_oldest_and_the_one_behind_them_tells() {
        assert_eq!(offered("every:drop-oldest"), (vec![5, 6, 7], vec![5, 0, 0], 5));
    }

    #[test]
    fn latest_only_empties_the_queue() {
        assert_eq!(offered("every:latest-only"), (vec![6, 7], vec![6, 0], 6));
    }

    /// Frames that the consumer was given, each behind what it was told is missing.
    #[derive(Default)]
    struct Consumer {
        next: u64,
        frames: u64,
    }

    impl Consumer {
        fn told(&mut self, lost: &Losses) {
            for loss in lost.iter() {
                assert_eq!(loss.sequence, self.next, "no hole, no overlap, in order: {loss:?}");
                self.next += loss.count;
            }
        }

        fn take(&mut self, delivery: &Delivery) {
            self.told(&delivery.lost);
            assert_eq!(delivery.frame.sequence(), self.next);
            self.next += 1;
            self.frames += 1;
        }
    }

    #[test]
    fn frames_and_losses_follow_each_other_without_hole_whatever_gives_way() {
        let policies = ["every:drop-newest", "every:drop-oldest", "every:latest-only"];
        for (seed, policy) in (0..60).zip(policies.into_iter().cycle()) {
            let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
            let pool = SlabPool::new(1 << 20);
            let capacity = 1 + random.next_u64() as usize % 5;
            let (mut outlet, queue) = Outlet::new(policy.parse().unwrap(), capacity);
            let (mut consumer, mut dropped, frames) = (Consumer::default(), 0, 2000);
            for sequence in 0..frames {
                let reason = LossReason::ALL[random.next_u64() as usize % 4];
                match random.next_u64() % 8 {
                    0 | 1 => outlet.lose(Loss::of_frame(&frame(&pool, sequence), reason)),
                    _ => {
                        let offered = outlet.offer(frame(&pool, sequence), Moment::default());
                        dropped += offered.dropped;
                    }
                }
                dropped += u64::from(random.next_u64() % 16 == 0 && outlet.give_way());
                if random.next_u64() % 3 == 0 {
                    queue.try_iter().take(2).for_each(|delivery| consumer.take(&delivery));
                }
            }
            queue.try_iter().for_each(|delivery| consumer.take(&delivery));
            consumer.told(&outlet.take_untold());
            assert_eq!(consumer.next, frames, "seed {seed}, {policy}");
            assert!(dropped > 0 && consumer.frames > 0, "seed {seed}, {policy}");
        }
    }

    #[test]
    fn a_consumer_hears_of_frames_and_of_the_end_while_it_waits() {
        let pool = SlabPool::new(1 << 20);
        let (mut outlet, queue) = Outlet::new("every".parse().unwrap(), 2);
        assert_eq!(queue.try_recv().err(), Some(NoDelivery::Yet));
        assert_eq!(queue.recv_timeout(Duration::ZERO).err(), Some(NoDelivery::Yet));
        let consumer = std::thread::spawn(move || {
            std::iter::from_fn(|| queue.recv())
                .map(|delivery| delivery.frame.sequence())
                .sum::<u64>()
        });
        while !outlet.offer(frame(&pool, 7), Moment::default()).queued {}
        while !outlet.offer(frame(&pool, 8), Moment::default()).queued {}
        drop(outlet);
        assert_eq!(consumer.join().unwrap(), 15);
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
        assert_eq!((losses.iter().count(), losses.frames()), (1001, 1010));
        let reasons = [LossReason::QueueFull, LossReason::Torn];
        (3000..100_000).for_each(|n| losses.push(loss(n, reasons[n as usize % 2])));
        assert_eq!((losses.iter().count(), losses.frames()), (STRETCHES_MAX, 98_010));
        let last = losses.iter().last().unwrap();
        assert_eq!(last.sequence + last.count, 100_000, "what is contiguous stays so");
    }
}
