//! CRC-32C of any stretch of a buffer that does not change, without reading it again.

use crc_fast::{CrcAlgorithm, Digest};

/// Distance in bytes of the places up to which the CRC-32C is kept.
const STEP_BYTES: usize = 64;

/// The polynomial of CRC-32C, bits reversed, as all of these numbers: the highest bit is x^0.
const POLYNOMIAL: u32 = 0x82F6_3B78;
const ONE: u32 = 1 << 31;
const X: u32 = ONE >> 1;

/// Powers of two in a length in bytes, which is below 2^32.
const POWERS: usize = 32;

/// CRC-32C of what stands in front of many places of a buffer.
#[derive(Debug)]
pub(super) struct Checksums {
    /// Of the first 0, 64, 128, ... bytes.
    fronts: Vec<u32>,
    /// What `2^k` bytes of zeros multiply by.
    powers: [u32; POWERS],
    /// The last stretch's length and what so many bytes of zeros multiply by: most frames of a source
    /// are equally long.
    last: (usize, u32),
}

impl Checksums {
    pub(super) fn of(buffer: &[u8]) -> Self {
        let mut front = 0;
        let mut fronts = vec![front];
        for step in buffer.as_chunks::<STEP_BYTES>().0 {
            front = crc32c_append(front, step);
            fronts.push(front);
        }
        Self { fronts, powers: powers(), last: (0, ONE) }
    }

    /// The CRC-32C of bytes of which `front` is that of the first ones, and `buffer[start..end]` are
    /// the others.
    pub(super) fn append(
        &mut self,
        front: u32,
        buffer: &[u8],
        (start, end): (usize, usize),
    ) -> u32 {
        // A CRC is linear: what stands in front of a stretch changes it by itself, multiplied by x as
        // often as the stretch has bits.
        let before = front ^ self.front(buffer, start);
        multiply(before, self.zeros(end - start)) ^ self.front(buffer, end)
    }

    /// CRC-32C of `buffer[..end]`.
    fn front(&self, buffer: &[u8], end: usize) -> u32 {
        let step = end / STEP_BYTES;
        crc32c_append(self.fronts[step], &buffer[step * STEP_BYTES..end])
    }

    fn zeros(&mut self, bytes: usize) -> u32 {
        if self.last.0 != bytes {
            let set = (0..POWERS).filter(|power| bytes >> power & 1 == 1);
            let zeros = set.fold(ONE, |product, power| multiply(product, self.powers[power]));
            self.last = (bytes, zeros);
        }
        self.last.1
    }
}

/// The CRC-32C of bytes of which `front` is that of all in front of `rest`.
pub(super) fn crc32c_append(front: u32, rest: &[u8]) -> u32 {
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(!front));
    digest.update(rest);
    digest.finalize() as u32
}

fn powers() -> [u32; POWERS] {
    let mut power = (0..3).fold(X, |power, _| multiply(power, power));
    std::array::from_fn(|_| {
        let this = power;
        power = multiply(power, power);
        this
    })
}

/// The product of two polynomials, modulo that of CRC-32C.
fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    for place in (0..u32::BITS).rev() {
        // Masks, because the bits are random and a processor cannot foretell them.
        product ^= b & (a >> place & 1).wrapping_neg();
        b = b >> 1 ^ POLYNOMIAL & (b & 1).wrapping_neg();
    }
    product
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_product_by_hand() {
        assert_eq!(multiply(ONE, 0x1234_5678), 0x1234_5678);
        assert_eq!(multiply(X, X), ONE >> 2);
        // x^31 * x = x^32, which is the polynomial without its highest power.
        assert_eq!(multiply(1, X), POLYNOMIAL);
    }

    proptest! {
        #![proptest_config(crate::rebuild::seeded(300))]

        #[test]
        fn the_same_as_reading_the_bytes(
            buffer in prop::collection::vec(any::<u8>(), 1..2000),
            front in prop::collection::vec(any::<u8>(), 0..40),
            ends in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        ) {
            let (a, b) = (ends.0.index(buffer.len() + 1), ends.1.index(buffer.len() + 1));
            let (start, end) = (a.min(b), a.max(b));
            let naive = crc_fast::crc32_iscsi(&[&front, &buffer[start..end]].concat());
            let mut checksums = Checksums::of(&buffer);
            for _ in 0..2 {
                let appended = checksums.append(crc_fast::crc32_iscsi(&front), &buffer, (start, end));
                prop_assert_eq!(appended, naive, "{}..{}", start, end);
            }
        }
    }
}
