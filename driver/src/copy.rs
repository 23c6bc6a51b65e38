//! The one pass over a frame's bytes: copy them out of the ring and look for FF FF on the way.
//!
//! There are kernels for vectors of 64 and of 32 bytes, chosen by what the processor has, and one in plain
//! integer arithmetic, eight bytes at a time.

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod vector;

use std::sync::LazyLock;

use crate::checksum::Checksum;
use crate::mapping::Mapping;

/// Finds two FF bytes in a row, also where they meet across words or calls.
#[derive(Debug, Clone, Copy, Default)]
pub struct PairScan {
    /// Bits that are set where a pair was completed.
    pairs: u64,
    /// 1 if the byte before was FF, else 0.
    carry: u64,
}

impl PairScan {
    /// Whether two FF bytes in a row have been seen.
    #[must_use]
    pub fn has_pair(&self) -> bool {
        self.pairs != 0
    }

    /// Eight bytes.
    fn feed_word(&mut self, word: u64) {
        const LOW: u64 = 0x7F7F_7F7F_7F7F_7F7F;
        const ONES: u64 = 0x0101_0101_0101_0101;
        // The top bit of a byte stays set only if it was set and the seven below were all ones: only
        // then does adding one carry into it. No carry leaves its byte.
        let ff = ((word & LOW) + ONES) & word & !LOW;
        self.pairs |= ff & (ff << 8 | self.carry << 7);
        self.carry = ff >> 63;
    }
}

/// How the copy is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stores {
    /// Into the cache: somebody will read the copy soon.
    #[default]
    Cached,
    /// Past the cache, where the target lies on a multiple of 64 and the processor can: nothing but a
    /// device will read the copy, or a processor much later.
    Streaming,
}

/// How far a frame's bytes were copied before its end.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ahead {
    /// From the payload's first byte on, a multiple of 8. More than the frame is long, if the FPGA was at
    /// the next one already.
    pub bytes: usize,
    /// What these bytes were fed to.
    pub scan: PairScan,
}

/// How a frame is copied; by default through the cache, and all of it.
#[derive(Debug, Default)]
pub struct Manner<'a> {
    /// How the copy is stored.
    pub stores: Stores,
    /// What the bytes are added to.
    pub checksum: Option<&'a mut Checksum>,
    /// What is in place already.
    pub ahead: Ahead,
}

/// A way to copy and scan. All of them do the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// Words of 8 bytes.
    Portable,
    /// Vectors of 32 bytes.
    Avx2,
    /// Vectors of 64 bytes.
    Avx512,
}

impl Kernel {
    /// Those that this processor can run, the best first.
    #[must_use]
    pub fn available() -> Vec<Kernel> {
        let can_run = |kernel: &Kernel| match kernel {
            Kernel::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => vector::of_32::is_available(),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 => vector::of_64::is_available(),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        };
        [Kernel::Avx512, Kernel::Avx2, Kernel::Portable].into_iter().filter(can_run).collect()
    }

    /// The best that this processor can run.
    #[must_use]
    pub fn best() -> Kernel {
        static BEST: LazyLock<Kernel> = LazyLock::new(|| Kernel::available()[0]);
        *BEST
    }

    /// Copies `target.len()` bytes from `offset` on, both multiples of 8, feeding them to `scan`. In a
    /// ring they may go on behind its end.
    ///
    /// # Panics
    /// If the numbers are misaligned or the bytes lie outside the mapping, or if the processor cannot run
    /// the kernel.
    pub fn copy(
        self,
        source: &Mapping,
        offset: usize,
        target: &mut [u8],
        stores: Stores,
        scan: &mut PairScan,
    ) {
        // Plain words know no other way than through the cache.
        let _ = stores;
        let copied = match self {
            Kernel::Portable => 0,
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => {
                vector::of_32::copy(source.stretch(offset, target.len()), target, stores, scan)
            }
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 => {
                vector::of_64::copy(source.stretch(offset, target.len()), target, stores, scan)
            }
            #[cfg(not(target_arch = "x86_64"))]
            _ => panic!("{self:?} on another processor"),
        };
        copy_words(source, offset + copied, &mut target[copied..], scan);
    }

    /// The same; adds the bytes to `checksum` as well.
    ///
    /// # Panics
    /// As [`Kernel::copy`].
    pub fn copy_summed(
        self,
        source: &Mapping,
        offset: usize,
        target: &mut [u8],
        stores: Stores,
        (scan, checksum): (&mut PairScan, &mut Checksum),
    ) {
        let summed = match self {
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 if vector::can_sum() => {
                let source = source.stretch(offset, target.len());
                vector::copy_summed(source, target, stores, scan, checksum)
            }
            _ => 0,
        };
        for (index, block) in target[summed..].chunks_mut(BLOCK_BYTES).enumerate() {
            let from = offset + summed + index * BLOCK_BYTES;
            // Summed at once: it has to be in the cache.
            self.copy(source, from, block, Stores::Cached, scan);
            checksum.update(block);
        }
    }
}

/// What is copied before it is summed: it fits the nearest cache.
const BLOCK_BYTES: usize = 8 << 10;

/// The kernel in plain arithmetic.
fn copy_words(source: &Mapping, offset: usize, target: &mut [u8], scan: &mut PairScan) {
    let words = source.words(offset, target.len());
    for (bytes, word) in target.chunks_exact_mut(8).zip(words) {
        let word = u64::from_le(word);
        scan.feed_word(word);
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

    /// Bit by bit.
    fn crc32c_naive(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |register, &byte| {
            (0..8).fold(register ^ u32::from(byte), |register, _| {
                (register >> 1) ^ (0x82F6_3B78 & (register & 1).wrapping_neg())
            })
        })
    }

    const RING: usize = 4096;

    /// A ring of these bytes, over and over.
    fn ring(bytes: &[u8]) -> Mapping {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes.iter().copied().cycle().take(RING).collect::<Vec<_>>()).unwrap();
        Mapping::ring(&file, RING).unwrap()
    }

    /// A copy in two steps to a place `misaligned` by so many bytes.
    fn copied(
        (kernel, stores): (Kernel, Stores),
        source: (&Mapping, usize),
        (length, split, misaligned): (usize, usize, usize),
    ) -> (Vec<u8>, bool) {
        let (mapping, offset) = source;
        let mut target = vec![0x55; length + 128];
        let at = target.as_ptr().align_offset(64) + misaligned;
        let mut scan = PairScan::default();
        let (front, back) = target[at..at + length].split_at_mut(split);
        kernel.copy(mapping, offset, front, stores, &mut scan);
        kernel.copy(mapping, offset + split, back, stores, &mut scan);
        let is_untouched = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0x55);
        assert!(is_untouched(&target[..at]) && is_untouched(&target[at + length..]));
        (target[at..at + length].to_vec(), scan.has_pair())
    }

    fn ways() -> impl Iterator<Item = (Kernel, Stores)> {
        let with = |kernel| [(kernel, Stores::Cached), (kernel, Stores::Streaming)];
        Kernel::available().into_iter().flat_map(with)
    }

    #[test]
    fn a_pair_is_found_at_every_position_and_across_calls() {
        for at in 0..255 {
            let mut bytes = [0; 256];
            bytes[at..at + 2].fill(0xFF);
            let ring = ring(&bytes);
            for way in ways() {
                let copy = copied(way, (&ring, 0), (256, 128, 0));
                assert_eq!(copy, (bytes.to_vec(), true), "pair at {at}, {way:?}");
            }
        }
    }

    #[test]
    fn every_machine_has_a_kernel_and_the_best_is_chosen() {
        assert_eq!(Kernel::available().last(), Some(&Kernel::Portable));
        assert_eq!(Kernel::best(), Kernel::available()[0]);
    }

    proptest! {
        #[test]
        fn every_kernel_agrees_with_the_naive_one(
            mut bytes in prop::collection::vec(
                prop_oneof![Just(0xFFu8), Just(0), Just(0x7F), Just(0xFE), any::<u8>()], 512),
            offset in 0..RING / 8,
            length in 0usize..=1500 / 8,
            split in any::<prop::sample::Index>(),
            misaligned in prop_oneof![Just(0usize), 0usize..64],
            sparse in any::<bool>(),
        ) {
            if sparse {
                for index in (1..512).step_by(2) { bytes[index] &= 0xFE; }
            }
            let (offset, length) = (8 * offset, 8 * length);
            let ring = ring(&bytes);
            let expected: Vec<u8> =
                bytes.iter().copied().cycle().skip(offset % 512).take(length).collect();
            let split = 8 * split.index(length / 8 + 1);
            for (kernel, stores) in ways() {
                let (mut target, mut scan) = (vec![0; length], PairScan::default());
                let mut checksum = Checksum::new();
                let (front, back) = target.split_at_mut(split);
                let sums = (&mut scan, &mut checksum);
                kernel.copy_summed(&ring, offset, front, stores, sums);
                let sums = (&mut scan, &mut checksum);
                kernel.copy_summed(&ring, offset + split, back, stores, sums);
                prop_assert_eq!(&target, &expected);
                prop_assert_eq!(scan.has_pair(), has_pair_naive(&expected));
                prop_assert_eq!(checksum.finish(), crc32c_naive(&expected), "{:?}", kernel);
            }
            for way in ways() {
                let (copy, found) = copied(way, (&ring, offset), (length, split, misaligned));
                prop_assert_eq!(&copy, &expected);
                prop_assert_eq!(found, has_pair_naive(&expected), "{:?}", way);
            }
        }
    }
}
