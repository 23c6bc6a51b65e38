//! Byte stuffing by vector instructions.
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

/// Plain bytes for which room is made at a time; whole blocks of either form.
const STRIP_BYTES: usize = 4096;
const WIDE_BYTES: usize = 64;
const NARROW_BYTES: usize = 32;

/// What a strip can take: a 00 for every byte, and what the last store writes in vain.
const ROOM_BYTES: usize = 2 * STRIP_BYTES + WIDE_BYTES;

/// Stuffs a strip from its beginning into a room of [`ROOM_BYTES`]. Tells how many bytes it took, all
/// but less than a block, and how many it gave.
type Strip = unsafe fn(&[u8], &mut [MaybeUninit<u8>]) -> (usize, usize);

/// Appends the first bytes of `plain`, stuffed, and tells how many those are: all but some at the
/// end, or none where the processor has neither AVX-512 VBMI2 nor AVX2.
pub(super) fn stuff(plain: &[u8], stuffed: &mut Vec<u8>) -> usize {
    stuff_wide(plain, stuffed).or_else(|| stuff_narrow(plain, stuffed)).unwrap_or(0)
}

/// By AVX-512 VBMI2: bytes with an FF among them are spread, and those kept that are wanted. `None`
/// where there is none.
fn stuff_wide(plain: &[u8], stuffed: &mut Vec<u8>) -> Option<usize> {
    let has_all = is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vbmi2")
        && is_x86_feature_detected!("popcnt");
    // SAFETY: the processor has what `wide` is compiled for.
    has_all.then(|| unsafe { by_strips(plain, stuffed, wide) })
}

/// By AVX2: copies 32 bytes, and goes on behind the first FF of them. `None` where there is none.
fn stuff_narrow(plain: &[u8], stuffed: &mut Vec<u8>) -> Option<usize> {
    // SAFETY: the processor has what `narrow` is compiled for.
    is_x86_feature_detected!("avx2").then(|| unsafe { by_strips(plain, stuffed, narrow) })
}

/// # Safety
/// The processor has what `strip` is compiled for.
unsafe fn by_strips(plain: &[u8], stuffed: &mut Vec<u8>, strip: Strip) -> usize {
    let mut taken = 0;
    loop {
        stuffed.reserve(ROOM_BYTES);
        let rest = &plain[taken..];
        let rest = &rest[..rest.len().min(STRIP_BYTES)];
        // SAFETY: as the caller promises.
        let (took, gave) = unsafe { strip(rest, stuffed.spare_capacity_mut()) };
        if took == 0 {
            return taken;
        }
        taken += took;
        let length = stuffed.len() + gave;
        // SAFETY: `strip` has written the first `gave` bytes of the room.
        unsafe { stuffed.set_len(length) };
    }
}

#[target_feature(enable = "avx512bw,avx512vbmi2,popcnt")]
fn wide(strip: &[u8], room: &mut [MaybeUninit<u8>]) -> (usize, usize) {
    let (blocks, _) = strip.as_chunks::<WIDE_BYTES>();
    let pair_of_ff = _mm512_set1_epi16(0x00FF);
    let mut given = 0;
    for block in blocks {
        // SAFETY: a block has as many bytes as are loaded.
        let bytes = unsafe { _mm512_loadu_epi8(block.as_ptr().cast()) };
        if _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(-1)) == 0 {
            put_wide(&mut room[given..], bytes);
            given += WIDE_BYTES;
            continue;
        }
        for half in [_mm512_castsi512_si256(bytes), _mm512_extracti64x4_epi64::<1>(bytes)] {
            // A 00 behind every byte, of which those behind an FF stay.
            let pairs = _mm512_cvtepu8_epi16(half);
            let ff = _mm512_cmpeq_epi16_mask(pairs, pair_of_ff);
            let kept = _mm512_movepi8_mask(_mm512_or_si512(pair_of_ff, _mm512_movm_epi16(ff)));
            put_wide(&mut room[given..], _mm512_maskz_compress_epi8(kept, pairs));
            given += WIDE_BYTES / 2 + ff.count_ones() as usize;
        }
    }
    (blocks.len() * WIDE_BYTES, given)
}

#[target_feature(enable = "avx512bw")]
fn put_wide(room: &mut [MaybeUninit<u8>], bytes: __m512i) {
    let place = room.first_chunk_mut::<WIDE_BYTES>().expect("the room is large enough");
    // SAFETY: the place has as many bytes as are stored.
    unsafe { _mm512_storeu_epi8(place.as_mut_ptr().cast(), bytes) };
}

#[target_feature(enable = "avx2")]
fn narrow(strip: &[u8], room: &mut [MaybeUninit<u8>]) -> (usize, usize) {
    let (mut taken, mut given) = (0, 0);
    while let Some(block) = strip[taken..].first_chunk::<NARROW_BYTES>() {
        // SAFETY: a block has as many bytes as are loaded.
        let bytes = unsafe { _mm256_loadu_si256(block.as_ptr().cast()) };
        let place = room[given..].first_chunk_mut::<NARROW_BYTES>();
        let place = place.expect("the room is large enough").as_mut_ptr();
        // SAFETY: the place has as many bytes as are stored.
        unsafe { _mm256_storeu_si256(place.cast(), bytes) };
        let ff = _mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(-1))) as u32;
        let plain = (ff.trailing_zeros() as usize + 1).min(NARROW_BYTES);
        (taken, given) = (taken + plain, given + plain);
        if ff != 0 {
            room[given].write(0);
            given += 1;
        }
    }
    (taken, given)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{stuff_naive, with_ff};
    use super::*;

    type Form = fn(&[u8], &mut Vec<u8>) -> Option<usize>;

    /// Each form, the portable one for what it leaves.
    fn forms(plain: &[u8]) -> Vec<Vec<u8>> {
        let stuffed = |form: Form| {
            let mut stuffed = vec![0xAA];
            let taken = form(plain, &mut stuffed)?;
            assert!(plain.len() - taken < WIDE_BYTES, "all but less than a block");
            super::super::stuff_words(&plain[taken..], &mut stuffed);
            Some(stuffed)
        };
        [stuff_wide as Form, stuff_narrow].into_iter().filter_map(stuffed).collect()
    }

    #[test]
    fn an_ff_at_every_place_of_every_length() {
        for bytes in (0..200).chain(STRIP_BYTES - 2..STRIP_BYTES + 3) {
            let places = (0..bytes).filter(|at| *at < 200 || at + 5 > bytes);
            for at in places {
                let mut plain = vec![0x7F; bytes];
                plain[at] = 0xFF;
                for stuffed in forms(&plain) {
                    assert_eq!(stuffed[1..], stuff_naive(&plain), "FF at {at} of {bytes}");
                }
            }
        }
    }

    #[test]
    fn nothing_but_ff() {
        let plain = vec![0xFF; 3 * STRIP_BYTES + 7];
        for stuffed in forms(&plain) {
            assert_eq!(stuffed[1..], [0xFF, 0].repeat(plain.len()));
        }
    }

    proptest! {
        #![proptest_config(crate::rebuild::seeded(300))]

        #[test]
        fn the_same_as_the_naive_twin(plain in with_ff(10_000), skip in 0_usize..64) {
            let plain = &plain[skip.min(plain.len())..];
            for stuffed in forms(plain) {
                prop_assert_eq!(stuffed[0], 0xAA);
                prop_assert_eq!(&stuffed[1..], &stuff_naive(plain)[..]);
            }
        }
    }
}
