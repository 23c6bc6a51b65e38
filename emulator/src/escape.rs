//! Byte stuffing: every FF of a bitstream is followed by 00, so that FF FF cannot occur in it.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod x86;

const WORD_BYTES: usize = size_of::<u64>();
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;
const ONES: u64 = 0x0101_0101_0101_0101;

/// Appends `plain` to `stuffed`, a 00 behind every FF.
pub fn stuff(plain: &[u8], stuffed: &mut Vec<u8>) {
    stuffed.reserve(plain.len() + plain.len() / 64);
    #[cfg(target_arch = "x86_64")]
    let plain = &plain[x86::stuff(plain, stuffed)..];
    stuff_words(plain, stuffed);
}

/// FF is rare in what is stuffed, so stretches without one are looked for a word at a time and
/// copied whole.
fn stuff_words(plain: &[u8], stuffed: &mut Vec<u8>) {
    let mut rest = plain;
    while let Some(at) = find_ff(rest) {
        stuffed.extend_from_slice(&rest[..=at]);
        stuffed.push(0);
        rest = &rest[at + 1..];
    }
    stuffed.extend_from_slice(rest);
}

/// Whether `bytes` can stand in a ring as payload: no FF but in front of a 00, none at the end.
#[must_use]
pub fn is_stuffed(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = find_ff(rest) {
        if rest.get(at + 1) != Some(&0) {
            return false;
        }
        rest = &rest[at + 2..];
    }
    true
}

/// Place of the first FF.
#[must_use]
pub fn find_ff(bytes: &[u8]) -> Option<usize> {
    let (words, tail) = bytes.as_chunks::<WORD_BYTES>();
    let skipped = words.iter().take_while(|word| !has_ff(u64::from_le_bytes(**word))).count();
    let start = skipped * WORD_BYTES;
    if skipped == words.len() {
        return tail.iter().position(|byte| *byte == 0xFF).map(|at| start + at);
    }
    words[skipped].iter().position(|byte| *byte == 0xFF).map(|at| start + at)
}

/// The classical test for a zero byte, on the complement; it is exact as a whole, though not for
/// the single bytes above a hit.
fn has_ff(word: u64) -> bool {
    (!word).wrapping_sub(ONES) & word & HIGH_BITS != 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(super) fn stuff_naive(plain: &[u8]) -> Vec<u8> {
        let mut stuffed = Vec::new();
        for byte in plain {
            stuffed.push(*byte);
            if *byte == 0xFF {
                stuffed.push(0);
            }
        }
        stuffed
    }

    /// Bytes that are FF or nearly, some of them or many.
    pub(super) fn with_ff(bytes_max: usize) -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![Just(0xFF), Just(0xFE), Just(0x00), Just(0x7F), any::<u8>()];
        let dense = prop::collection::vec(byte, 0..bytes_max);
        prop_oneof![dense, prop::collection::vec(any::<u8>(), 0..bytes_max)]
    }

    #[test]
    fn by_hand() {
        let mut stuffed = vec![0xAA];
        stuff(&[1, 0xFF, 0xFF, 0, 0xFE, 0xFF], &mut stuffed);
        assert_eq!(stuffed, [0xAA, 1, 0xFF, 0, 0xFF, 0, 0, 0xFE, 0xFF, 0]);
    }

    #[test]
    fn what_is_not_stuffed_is_told() {
        assert!(is_stuffed(&[]) && is_stuffed(&[0xFF, 0, 1]));
        for bad in [&[0xFF][..], &[0xFF, 1], &[0xFF, 0xFF, 0], &[0, 0xFF, 0, 0xFF]] {
            assert!(!is_stuffed(bad), "{bad:02X?}");
        }
    }

    proptest! {
        #![proptest_config(crate::rebuild::seeded(1000))]

        #[test]
        fn the_same_as_the_naive_twin(plain in with_ff(200)) {
            let (mut stuffed, mut by_words) = (Vec::new(), Vec::new());
            stuff(&plain, &mut stuffed);
            prop_assert_eq!(&stuffed, &stuff_naive(&plain));
            stuff_words(&plain, &mut by_words);
            prop_assert_eq!(&by_words, &stuffed);
            prop_assert!(is_stuffed(&stuffed));
            prop_assert_eq!(find_ff(&plain), plain.iter().position(|byte| *byte == 0xFF));
        }
    }
}
