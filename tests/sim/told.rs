//! What a consumer was told of every frame, by its number.

use std::ops::Range;

use circbuf_driver::dispatch::Losses;
use circbuf_driver::loss::{Loss, LossReason};
use circbuf_driver::policy::{Policy, Take};
use circbuf_driver::stats::{Account, Books};

/// What one consumer was told.
pub(crate) struct Told {
    policy: Policy,
    /// Number that the next frame has at least.
    next: u64,
    delivered: Vec<u64>,
    lost: Vec<Loss>,
}

impl Told {
    pub(crate) fn new(policy: Policy) -> Told {
        Told { policy, next: 0, delivered: Vec::new(), lost: Vec::new() }
    }

    /// A frame was delivered, and told these losses: all of them lie between it and the one before.
    pub(crate) fn note(&mut self, sequence: u64, lost: &Losses) {
        for loss in lost.iter() {
            assert!(loss.count > 0 && loss.sequence >= self.next, "order: {lost:?}");
            self.next = loss.sequence + loss.count;
        }
        assert!(sequence >= self.next, "order: {sequence} behind {lost:?}, at least {}", self.next);
        self.next = sequence + 1;
        self.delivered.push(sequence);
        self.lost.extend(lost.iter());
    }

    /// Frames delivered.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered.len() as u64
    }

    /// Frames told as lost.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.iter().map(|loss| loss.count).sum()
    }

    /// Numbers of the frames told as lost for this reason.
    fn lost_for(&self, reason: LossReason) -> impl Iterator<Item = u64> {
        let losses = self.lost.iter().filter(move |loss| loss.reason == reason);
        losses.flat_map(|loss| loss.sequence..loss.sequence + loss.count)
    }

    /// At the end every frame of these numbers was delivered, told as lost, or left by the policy.
    /// Returns how many were refused though they were good.
    pub(crate) fn check(
        &self,
        numbers: Range<u64>,
        books: &Books,
        account: &Account,
        has_faults: bool,
        is_good: impl Fn(u64) -> bool,
    ) -> u64 {
        let ring_lost = books.overrun + books.torn + books.corrupt;
        let untold = ring_lost + account.lost() - account.io - self.lost();
        let may_be_untold = self.policy.take != Take::Every || has_faults;
        assert!(untold == 0 || may_be_untold, "{untold} losses were never told");
        let unheard = numbers.end - numbers.start - self.delivered() - self.lost();
        assert_eq!(unheard, account.policy + untold, "of each frame something is known");
        let mut heard = vec![false; (numbers.end - numbers.start) as usize];
        let lost = LossReason::ALL.into_iter().flat_map(|reason| self.lost_for(reason));
        for number in self.delivered.iter().copied().chain(lost) {
            assert!(numbers.contains(&number), "frame {number} is none of {numbers:?}");
            let heard = &mut heard[(number - numbers.start) as usize];
            assert!(!std::mem::replace(heard, true), "frame {number} is told of twice");
        }
        let refused = self.lost_for(LossReason::Corrupt).chain(self.lost_for(LossReason::Torn));
        refused.filter(|number| is_good(*number)).count() as u64
    }
}
