//! The records between append and index, in their order in the segment.
//!
//! Writes complete in any order; the index may only name what is complete together with
//! everything in front of it.

use std::collections::VecDeque;

use super::index::IndexEntry;
use crate::loss::Loss;
use crate::record::RecordKind;

/// A record that is not confirmed yet.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) entry: IndexEntry,
    /// What a loss record tells, so that it can be told again if it could not be written.
    pub(super) loss: Option<Loss>,
    pub(super) record_bytes: u64,
    complete: bool,
}

impl Pending {
    pub(super) fn new(entry: IndexEntry, loss: Option<Loss>, record_bytes: u64) -> Pending {
        Pending { entry, loss, record_bytes, complete: false }
    }

    pub(super) fn is_frame(&self) -> bool {
        self.entry.kind == RecordKind::Frame
    }
}

/// All records that are not confirmed yet.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pending: VecDeque<Pending>,
    /// Ticket of the first one.
    first_ticket: u64,
    /// How many from the front are complete without one between that is not.
    whole: usize,
    frames: u64,
}

impl Queue {
    /// Adds a record behind all others and gives it its ticket.
    pub(super) fn push(&mut self, pending: Pending) -> u64 {
        self.frames += u64::from(pending.is_frame());
        self.pending.push_back(pending);
        self.first_ticket + self.pending.len() as u64 - 1
    }

    /// The record's write was successful.
    pub(super) fn complete(&mut self, ticket: u64) {
        let place = ticket.checked_sub(self.first_ticket).expect("a ticket completes once");
        self.pending[place as usize].complete = true;
        while self.pending.get(self.whole).is_some_and(|p| p.complete) {
            self.whole += 1;
        }
    }

    /// How many records are complete with everything in front of them.
    pub(super) fn whole(&self) -> usize {
        self.whole
    }

    pub(super) fn whole_entries(&self) -> impl Iterator<Item = &IndexEntry> {
        self.pending.iter().take(self.whole).map(|p| &p.entry)
    }

    /// Bytes of each of the whole ones.
    pub(super) fn whole_bytes(&self) -> impl Iterator<Item = u64> {
        self.pending.iter().take(self.whole).map(|p| p.record_bytes)
    }

    /// Takes the whole ones off.
    pub(super) fn take_whole(&mut self) -> impl Iterator<Item = Pending> {
        let count = std::mem::take(&mut self.whole);
        self.first_ticket += count as u64;
        let frames = self.pending.iter().take(count).filter(|p| p.is_frame()).count();
        self.frames -= frames as u64;
        self.pending.drain(..count)
    }

    /// Takes everything off; nothing may be in flight any more.
    pub(super) fn take_all(&mut self) -> VecDeque<Pending> {
        (self.whole, self.frames) = (0, 0);
        self.first_ticket += self.pending.len() as u64;
        std::mem::take(&mut self.pending)
    }

    /// Frames that are not confirmed.
    pub(super) fn frames(&self) -> u64 {
        self.frames
    }
}

#[cfg(test)]
mod tests {
    use rand_xoshiro::Xoshiro256PlusPlus;
    use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};

    use super::*;
    use crate::ring::Timestamp;

    fn pending(sequence: u64) -> Pending {
        let entry = IndexEntry {
            kind: RecordKind::Frame,
            synthesised: false,
            sequence,
            offset: 0,
            cursor: 0,
            realtime_ns: 0,
            monotonic_ns: 0,
            time: Timestamp::default(),
            length: 1,
            body_crc: 0,
        };
        Pending::new(entry, None, 4096)
    }

    #[test]
    fn only_the_contiguous_front_is_whole_in_whatever_order_writes_complete() {
        let seed = 7;
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let (mut queue, mut open, mut done) = (Queue::default(), Vec::new(), vec![false; 0]);
        let mut taken = 0;
        for _ in 0..5000 {
            match random.next_u64() % 4 {
                0 | 1 if open.len() < 8 => {
                    open.push(queue.push(pending(done.len() as u64)));
                    done.push(false);
                }
                2 if !open.is_empty() => {
                    let place = random.next_u64() as usize % open.len();
                    let ticket = open.swap_remove(place);
                    queue.complete(ticket);
                    done[ticket as usize] = true;
                }
                _ => {
                    for whole in queue.take_whole() {
                        assert_eq!(whole.entry.sequence, taken, "seed {seed}");
                        taken += 1;
                    }
                }
            }
            let naive = done[taken as usize..].iter().take_while(|d| **d).count();
            assert_eq!(queue.whole(), naive, "seed {seed}");
            assert_eq!(queue.frames(), done.len() as u64 - taken);
        }
    }
}
