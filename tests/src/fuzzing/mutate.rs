//! Mutations of inputs where nobody looks at coverage.

use crate::Random;

const BYTES_MAX: usize = 1 << 16;
const WORDS: [u32; 8] = [0, 1, 31, 32, 0x00FF_FFFF, 0xFFFF_FFFF, 0x8000_0000, 0xFF00_0010];

/// An input with a few changes, some of them pieces of `other`.
#[must_use]
pub fn mutate(random: &mut Random, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    (0..1 + random.below(6)).for_each(|_| change(random, &mut bytes, other));
    bytes.truncate(BYTES_MAX);
    bytes
}

fn change(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    if bytes.is_empty() {
        return bytes.extend(other);
    }
    let length = bytes.len() as u64;
    let at = random.below(length) as usize;
    // Small steps more often than large ones.
    let steps = random.below(9);
    let reach = 1 + random.below(1 << steps).min(length - at as u64 - 1) as usize;
    match random.below(9) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.any() as u8,
        2 => bytes[at] = bytes[at].wrapping_add_signed(random.any() as i8 / 16),
        3 => drop(bytes.drain(at..at + reach)),
        4 => {
            let copied = bytes[at..at + reach].to_vec();
            bytes.splice(at..at, copied);
        }
        5 => {
            let word = random.one_of(&WORDS).to_le_bytes();
            bytes.iter_mut().skip(at).zip(word).for_each(|(byte, new)| *byte = new);
        }
        6 => bytes.truncate(at),
        7 => {
            let from = random.below(other.len().max(1) as u64) as usize;
            let piece = other[from.min(other.len())..].iter().copied().take(reach);
            bytes.splice(at..at, piece);
        }
        _ => (0..reach).for_each(|step| bytes[at + step] = random.any() as u8),
    }
}
