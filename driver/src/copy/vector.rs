//! Copy and scan by vectors, and sum as well.
//!
//! The source is loaded by assembler instructions: another party may write it at the same time, which
//! no load that the compiler knows of may meet.

use std::arch::asm;
use std::arch::x86_64::*;

use super::{PairScan, Stores};
use crate::checksum::Checksum;
use crate::mapping::Stretch;

/// Vectors that are loaded before the first of them is stored, so that many loads are under way, and
/// non-temporal stores come in bursts (into cold slabs 1.35 of memcpy; four vectors 1.25; AMD EPYC).
const GROUP: usize = 8;

/// What is summed at a time, in as many chains of multiplications as it has vectors.
const SUMMED_BYTES: usize = 256;

/// How far ahead the source is prefetched where bytes are summed as well: the arithmetic leaves too few loads
/// under way. Of 64 bytes to 16 KiB the best (`benches/kernels.rs`, AMD EPYC: 1.10 of memcpy, 0.80
/// without; 2 to 24 slabs in turns). Where it only copies nothing is gained, and into slabs that are cold it
/// is lost (0.85 for 1.10).
const AHEAD_BYTES: usize = 8 << 10;

/// Makes a module for one kind of vector. Its functions copy whole vectors or groups, and tell how many
/// bytes that were.
macro_rules! vectors {
    ($name:ident, $features:literal, has: $has:expr, $bytes:literal of $vector:ty,
     load: $load:literal in $register:ident, store: $store:ident, $stream:ident,
     set: $set:ident, which_equal: $which_equal:expr) => {
        pub(super) mod $name {
            use super::*;

            pub(in super::super) fn is_available() -> bool {
                $has
            }

            /// # Panics
            /// If the processor cannot, or source and target are not of the same length.
            pub(in super::super) fn copy(
                source: Stretch,
                target: &mut [u8],
                stores: Stores,
                scan: &mut PairScan,
            ) -> usize {
                assert!(is_available() && source.bytes() == target.len());
                let first = source.as_ptr();
                let is_aligned = target.as_ptr().align_offset($bytes) == 0;
                match stores {
                    // SAFETY: the processor has the features, as asserted.
                    Stores::Streaming if is_aligned => unsafe { run::<true>(first, target, scan) },
                    // SAFETY: as above.
                    _ => unsafe { run::<false>(first, target, scan) },
                }
            }

            #[target_feature(enable = $features)]
            fn run<const STREAMING: bool>(
                first: *const u8,
                target: &mut [u8],
                scan: &mut PairScan,
            ) -> usize {
                let grouped = groups::<GROUP, STREAMING>(first, target, scan, |_, _| {});
                let rest = &mut target[grouped..];
                let from = first.wrapping_add(grouped);
                let whole = grouped + groups::<1, STREAMING>(from, rest, scan, |_, _| {});
                if STREAMING {
                    // Such stores are not ordered with those that hand the copy on.
                    _mm_sfence();
                }
                whole
            }

            /// `N` vectors at a time; each is shown to `see` with its place among them.
            #[inline]
            #[target_feature(enable = $features)]
            pub(super) fn groups<const N: usize, const STREAMING: bool>(
                first: *const u8,
                target: &mut [u8],
                scan: &mut PairScan,
                mut see: impl FnMut(usize, $vector),
            ) -> usize {
                let ff = $set(-1);
                let PairScan { mut pairs, mut carry } = *scan;
                let group_bytes = N * $bytes;
                for (index, group) in target.chunks_exact_mut(group_bytes).enumerate() {
                    let from = first.wrapping_add(index * group_bytes);
                    let vectors: [$vector; N] =
                        std::array::from_fn(|n| load(from.wrapping_add(n * $bytes)));
                    let places = group.chunks_exact_mut($bytes);
                    for (n, (vector, bytes)) in vectors.into_iter().zip(places).enumerate() {
                        let to = bytes.as_mut_ptr().cast();
                        if STREAMING {
                            // SAFETY: `to` is our own, one vector long, and aligned to one, as `copy`
                            // asks.
                            unsafe { $stream(to, vector) };
                        } else {
                            // SAFETY: `to` is our own, and one vector long.
                            unsafe { $store(to, vector) };
                        }
                        let is_ff: u64 = $which_equal(vector, ff);
                        pairs |= is_ff & (is_ff << 1 | carry);
                        carry = is_ff >> ($bytes - 1);
                        see(n, vector);
                    }
                }
                *scan = PairScan { pairs, carry };
                target.len() / group_bytes * group_bytes
            }

            #[inline]
            #[target_feature(enable = $features)]
            fn load(at: *const u8) -> $vector {
                let vector: $vector;
                // SAFETY: it loads one vector and changes nothing. The bytes are mapped: the target is
                // as long as the source.
                unsafe {
                    asm!(concat!($load, " {vector}, [{at}]"),
                        vector = lateout($register) vector, at = in(reg) at,
                        options(nostack, preserves_flags, readonly));
                }
                vector
            }
        }
    };
}

vectors!(
    of_64, "avx512f,avx512bw",
    has: is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw"),
    64 of __m512i,
    load: "vmovdqu64" in zmm_reg, store: _mm512_storeu_si512, _mm512_stream_si512,
    set: _mm512_set1_epi8, which_equal: |a, b| _mm512_cmpeq_epi8_mask(a, b)
);

vectors!(
    of_32, "avx2",
    has: is_x86_feature_detected!("avx2"),
    32 of __m256i,
    load: "vmovdqu" in ymm_reg, store: _mm256_storeu_si256, _mm256_stream_si256,
    set: _mm256_set1_epi8,
    which_equal: |a, b| u64::from(_mm256_movemask_epi8(_mm256_cmpeq_epi8(a, b)).cast_unsigned())
);

/// Whether the processor can sum in the same pass.
pub(super) fn can_sum() -> bool {
    of_64::is_available() && is_x86_feature_detected!("vpclmulqdq")
}

/// Copies whole groups of 64-byte vectors, and adds them to `checksum` while they are in registers.
///
/// # Panics
/// If the processor cannot, or source and target are not of the same length.
pub(super) fn copy_summed(
    source: Stretch,
    target: &mut [u8],
    stores: Stores,
    scan: &mut PairScan,
    checksum: &mut Checksum,
) -> usize {
    assert!(can_sum() && source.bytes() == target.len());
    let first = source.as_ptr();
    let is_aligned = target.as_ptr().align_offset(64) == 0;
    match stores {
        // SAFETY: the processor has the features, as asserted.
        Stores::Streaming if is_aligned => unsafe { sum::<true>(first, target, scan, checksum) },
        // SAFETY: as above.
        _ => unsafe { sum::<false>(first, target, scan, checksum) },
    }
}

/// All groups of [`SUMMED_BYTES`] are folded into the last one: to multiply what was seen by a power of x, modulo the CRC's
/// polynomial, is to move it on by as many bits, and changes nothing in the sum. (Gopal et al., "Fast CRC
/// Computation for Generic Polynomials Using PCLMULQDQ Instruction", Intel 2009.)
#[target_feature(enable = "avx512f,avx512bw,vpclmulqdq")]
fn sum<const STREAMING: bool>(
    first: *const u8,
    target: &mut [u8],
    scan: &mut PairScan,
    checksum: &mut Checksum,
) -> usize {
    const BITS: u32 = 8 * SUMMED_BYTES as u32;
    const LOW: i64 = power_of_x(BITS + 32);
    const HIGH: i64 = power_of_x(BITS - 32);
    if target.len() < SUMMED_BYTES {
        return 0;
    }
    let powers = _mm512_set_epi64(HIGH, LOW, HIGH, LOW, HIGH, LOW, HIGH, LOW);
    let mut folded = [_mm512_setzero_si512(); SUMMED_BYTES / 64];
    // The register is added to the first four bytes.
    let register = i64::from(checksum.register());
    let mut added = _mm512_set_epi64(0, 0, 0, 0, 0, 0, 0, register);
    let end = first.wrapping_add(target.len());
    let mut ahead = first.wrapping_add(AHEAD_BYTES);
    let copied =
        of_64::groups::<{ SUMMED_BYTES / 64 }, STREAMING>(first, target, scan, |n, vector| {
            if !STREAMING && ahead < end {
                _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                ahead = ahead.wrapping_add(64);
            }
            let low = _mm512_clmulepi64_epi128::<0x00>(folded[n], powers);
            let high = _mm512_clmulepi64_epi128::<0x11>(folded[n], powers);
            // 0x96: exclusive or of three.
            let moved = _mm512_ternarylogic_epi64::<0x96>(low, high, vector);
            folded[n] = _mm512_xor_si512(moved, added);
            added = _mm512_setzero_si512();
        });
    if STREAMING {
        _mm_sfence();
    }
    let mut bytes = [0; SUMMED_BYTES];
    for (vector, bytes) in folded.into_iter().zip(bytes.chunks_exact_mut(64)) {
        // SAFETY: the place is our own, and one vector long.
        unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), vector) };
    }
    *checksum = Checksum::of_folded(&bytes);
    copied
}

/// x to a power, modulo the polynomial of CRC-32C, as carry-less multiplication of reflected bits wants
/// it.
const fn power_of_x(power: u32) -> i64 {
    const POLYNOMIAL: u32 = 0x1EDC_6F41;
    let mut remainder = 1u32;
    let mut n = 0;
    while n < power {
        let carry = remainder >> 31;
        remainder = (remainder << 1) ^ (carry * POLYNOMIAL);
        n += 1;
    }
    (remainder.reverse_bits() as i64) << 1
}
