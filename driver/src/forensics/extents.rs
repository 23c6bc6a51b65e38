//! The parts of a ring that are taken, each by one owner.

use std::collections::BTreeMap;

/// Disjoint stretches of a ring.
#[derive(Debug)]
pub(super) struct Extents {
    ring_bytes: u64,
    /// By its first offset: the offset behind it and its owner. None reaches beyond the ring's end.
    pieces: BTreeMap<u64, (u64, u64)>,
}

impl Extents {
    pub(super) fn new(ring_bytes: u64) -> Extents {
        Extents { ring_bytes, pieces: BTreeMap::new() }
    }

    /// Takes a stretch, which may wrap. Its owner is the offset of its start.
    pub(super) fn insert(&mut self, start: u64, bytes: u64) {
        for (first, behind) in self.split(start, bytes) {
            if first < behind {
                self.pieces.insert(first, (behind, start));
            }
        }
    }

    /// The owner of a stretch that has a byte in common with this one.
    pub(super) fn overlapping(&self, start: u64, bytes: u64) -> Option<u64> {
        self.split(start, bytes).into_iter().find_map(|(first, behind)| {
            let (_, &(end, owner)) = self.pieces.range(..behind).next_back()?;
            (end > first && first < behind).then_some(owner)
        })
    }

    /// In front of the ring's end, and behind it; either may be empty.
    fn split(&self, start: u64, bytes: u64) -> [(u64, u64); 2] {
        let end = start + bytes;
        [(start, end.min(self.ring_bytes)), (0, end.saturating_sub(self.ring_bytes))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_meet_where_a_map_of_bytes_says_so() {
        let mut extents = Extents::new(100);
        let mut owners = [None; 100];
        for (start, bytes) in [(90, 15), (10, 5), (20, 30), (50, 1)] {
            extents.insert(start, bytes);
            (start..start + bytes).for_each(|at| owners[at as usize % 100] = Some(start));
        }
        for start in 0..100u64 {
            for bytes in 1..=100 {
                let met = (start..start + bytes).filter_map(|at| owners[at as usize % 100]);
                let met: Vec<u64> = met.collect();
                match extents.overlapping(start, bytes) {
                    Some(owner) => assert!(met.contains(&owner), "{start} + {bytes}"),
                    None => assert!(met.is_empty(), "{start} + {bytes}"),
                }
            }
        }
    }
}
