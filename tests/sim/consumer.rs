//! A consumer that takes what it is given when it is asked to, and keeps it for a while.

use circbuf_driver::dispatch::{Delivery, Inlet, Outlet};
use circbuf_driver::policy::{Policy, Take, WhenFull};
use circbuf_driver::stats::Account;
use circbuf_tests::Random;

use crate::told::Told;
use crate::truths::Truths;

/// The consumer.
pub(crate) struct Consumer {
    pub(crate) queue: Inlet,
    pub(crate) in_hands: Vec<Delivery>,
    pub(crate) told: Told,
}

/// Any policy and queue, and its two ends.
pub(crate) fn outlet(random: &mut Random) -> (Outlet, Inlet, Policy) {
    let takes = [Take::Every, Take::Every, Take::Nth(3.try_into().unwrap()), Take::Fps(30.0)];
    let gives_way = [WhenFull::DropNewest, WhenFull::DropOldest, WhenFull::LatestOnly];
    let policy = Policy { take: random.one_of(&takes), when_full: random.one_of(&gives_way) };
    let (outlet, queue) = Outlet::new(policy, 1 + random.below(6) as usize);
    (outlet, queue, policy)
}

impl Consumer {
    pub(crate) fn of(random: &mut Random) -> (Outlet, Consumer) {
        let (outlet, queue, policy) = outlet(random);
        (outlet, Consumer { queue, in_hands: Vec::new(), told: Told::new(policy) })
    }

    pub(crate) fn take(&mut self, truths: &Truths<'_>) {
        let Ok(delivery) = self.queue.try_recv() else { return };
        truths.check(&delivery.frame);
        self.told.note(delivery.frame.sequence(), &delivery.lost);
        self.in_hands.push(delivery);
    }

    /// Is done with what it has in its hands.
    pub(crate) fn finish(&mut self, account: &mut Account) {
        // The slabs are free before the books say so.
        let frames = self.in_hands.drain(..).count() as u64;
        account.deliver(frames);
    }

    /// Frames in the queue and in its hands.
    pub(crate) fn holds(&self) -> u64 {
        (self.in_hands.len() + self.queue.len()) as u64
    }
}
