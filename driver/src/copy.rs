//! The one pass over a frame's bytes: copy them out of the ring and look for FF FF on the way.
//!
//! Eight bytes at a time in plain integer arithmetic.

use std::sync::atomic::Ordering;

use crate::mapping::Mapping;

/// Finds two FF bytes in a row, also where they meet across words or calls.
#[derive(Debug, Clone, Copy, Default)]
pub struct PairScan {
    /// Bits that are set where a pair was completed.
    pairs: u64,
    /// 0x80 if the byte before was FF, else 0.
    carry: u64,
}

impl PairScan {
    /// Whether two FF bytes in a row have been seen.
    #[must_use]
    pub fn has_pair(&self) -> bool {
        self.pairs != 0
    }

    fn feed(&mut self, word: u64) {
        const LOW: u64 = 0x7F7F_7F7F_7F7F_7F7F;
        const ONES: u64 = 0x0101_0101_0101_0101;
        // The top bit of a byte stays set only if it was set and the seven below were all ones: only
        // then does adding one carry into it. No carry leaves its byte.
        let ff = ((word & LOW) + ONES) & word & !LOW;
        self.pairs |= ff & (ff << 8 | self.carry);
        self.carry = ff >> 56;
    }
}

/// Copies `target.len()` bytes from `offset` on, both multiples of 8, feeding them to `scan`.
///
/// # Panics
/// If the numbers are misaligned or the bytes lie outside the mapping.
pub fn copy_scanned(source: &Mapping, offset: usize, target: &mut [u8], scan: &mut PairScan) {
    let words = source.words(offset, target.len());
    for (bytes, word) in target.chunks_exact_mut(8).zip(words) {
        let word = u64::from_le(word.load(Ordering::Relaxed));
        scan.feed(word);
        bytes.copy_from_slice(&word.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn has_pair_naive(bytes: &[u8]) -> bool {
        bytes.windows(2).any(|pair| pair == [0xFF, 0xFF])
    }

    fn copied(bytes: &[u8], split: usize) -> (Vec<u8>, bool) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let mapping = Mapping::of(&file, bytes.len()).unwrap();
        let (mut target, mut scan) = (vec![0; bytes.len()], PairScan::default());
        let (front, back) = target.split_at_mut(split);
        copy_scanned(&mapping, 0, front, &mut scan);
        copy_scanned(&mapping, split, back, &mut scan);
        (target, scan.has_pair())
    }

    #[test]
    fn a_pair_is_found_at_every_position() {
        for at in 0..127 {
            let mut bytes = [0; 128];
            bytes[at..at + 2].fill(0xFF);
            assert_eq!(copied(&bytes, 64), (bytes.to_vec(), true), "pair at {at}");
        }
    }

    proptest! {
        #[test]
        fn the_scan_agrees_with_the_naive_one(
            mut bytes in prop::collection::vec(
                prop_oneof![Just(0xFFu8), Just(0), Just(0x7F), Just(0xFE), any::<u8>()], 192),
            split in (0usize..=24).prop_map(|words| words * 8),
            sparse in any::<bool>(),
        ) {
            if sparse {
                for index in (1..192).step_by(2) { bytes[index] &= 0xFE; }
            }
            let (copy, found) = copied(&bytes, split);
            prop_assert_eq!(&copy, &bytes);
            prop_assert_eq!(found, has_pair_naive(&bytes));
        }
    }
}
