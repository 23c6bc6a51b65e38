//! Random bitstreams: load without pictures.
use circbuf_abi::header::COLOR_MODE_COLOR;
use circbuf_abi::ring::PAYLOAD_BYTES_MAX;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};

use super::SourceError;
use super::checksum::{Checksums, crc32c_append};
use crate::escape::stuff;
use crate::model::Picture;

/// Random bytes that payloads are cut from: few enough to stay in a processor's cache while frames go
/// by, so that a camera without a pace is as fast a load as it can be.
const POOL_BYTES: usize = 256 << 10;
/// The frame number in front of a payload.
const STAMP_BYTES: usize = 16;
/// Shorter payloads are left without a stamp.
const STAMPED_BYTES_MIN: usize = 32;
/// 2^64 by the golden ratio: numbers that follow each other get seeds far apart.
const NUMBER_STRIDE: u64 = 0x9E37_79B9_7F4A_7C15;

/// Payloads of random length and content, each a function of seed and frame number.
#[derive(Debug)]
pub struct Noise {
    bytes_min: u32,
    bytes_max: u32,
    seed: u64,
    /// Places of the pool at which a payload can begin.
    starts: usize,
    /// The pool, and its beginning once more, so that every payload is one stretch of it.
    pool: Vec<u8>,
    checksums: Option<Checksums>,
    /// What stood in the pool where the present payload differs from it.
    replaced: Option<Ends>,
}

/// The first bytes at a place of the pool, and the last one at another.
#[derive(Debug, Clone, Copy)]
struct Ends {
    start: usize,
    front: [u8; STAMP_BYTES],
    last_at: usize,
    last: u8,
}

impl Noise {
    /// Payloads of `bytes_min` to `bytes_max` stuffed bytes.
    ///
    /// # Errors
    /// Lengths that no frame can have, or the smaller one behind the larger one.
    pub(super) fn new(bytes_min: u32, bytes_max: u32, seed: u64) -> Result<Self, SourceError> {
        if bytes_min == 0 || bytes_min > bytes_max || bytes_max > PAYLOAD_BYTES_MAX {
            return Err(SourceError::Options(format!(
                "noise of {bytes_min} to {bytes_max} bytes; 1 to {PAYLOAD_BYTES_MAX} can be had"
            )));
        }
        let mut pool = random_stuffed(seed);
        let starts = pool.len();
        let whole_bytes = starts + STAMP_BYTES.max(bytes_max as usize);
        while pool.len() < whole_bytes {
            pool.extend_from_within(..starts.min(whole_bytes - pool.len()));
        }
        Ok(Self { bytes_min, bytes_max, seed, starts, pool, checksums: None, replaced: None })
    }

    /// Has [`next`](Self::next) tell checksums.
    pub(super) fn keep_checksums(&mut self) {
        self.put_back();
        self.checksums = Some(Checksums::of(&self.pool));
    }

    pub(super) fn next(&mut self, number: u64) -> Picture<'_> {
        self.put_back();
        let seed = self.seed ^ number.wrapping_add(1).wrapping_mul(NUMBER_STRIDE);
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let lengths = u64::from(self.bytes_max - self.bytes_min) + 1;
        let bytes = self.bytes_min as usize + below(&mut random, lengths);
        let start = below(&mut random, self.starts as u64);
        let pooled = self.ends(start, start + bytes);
        let sent = pooled.of_frame(number);
        let crc32c = self.checksum(&sent);
        // In its place: the payload is not copied.
        self.put(&sent);
        self.replaced = Some(pooled);
        Picture {
            payload: &self.pool[start..start + bytes],
            crc32c,
            quality2: 0,
            color_mode: COLOR_MODE_COLOR,
            width: 0,
            height: 0,
        }
    }

    fn ends(&self, start: usize, end: usize) -> Ends {
        let front = *self.pool[start..].first_chunk().expect("the pool is longer than its starts");
        Ends { start, front, last_at: end - 1, last: self.pool[end - 1] }
    }

    fn put(&mut self, ends: &Ends) {
        self.pool[ends.start..][..STAMP_BYTES].copy_from_slice(&ends.front);
        self.pool[ends.last_at] = ends.last;
    }

    fn put_back(&mut self) {
        if let Some(pooled) = self.replaced.take() {
            self.put(&pooled);
        }
    }

    /// The CRC-32C of the payload with these ends, which are not in the pool yet.
    fn checksum(&mut self, ends: &Ends) -> Option<u32> {
        let checksums = self.checksums.as_mut()?;
        let but_last = match ends.is_stamped() {
            true => {
                let behind = ends.start + STAMP_BYTES;
                checksums.append(
                    crc_fast::crc32_iscsi(&ends.front),
                    &self.pool,
                    (behind, ends.last_at),
                )
            }
            false => crc_fast::crc32_iscsi(&self.pool[ends.start..ends.last_at]),
        };
        Some(crc32c_append(but_last, &[ends.last]))
    }

    pub(super) fn payload_bytes_max(&self) -> u32 {
        self.bytes_max
    }

    pub(super) fn notes(&self) -> Vec<String> {
        vec!["noise decodes to nothing: its bitstreams are random".into()]
    }
}

impl Ends {
    fn is_stamped(&self) -> bool {
        self.last_at + 1 - self.start >= STAMPED_BYTES_MIN
    }

    /// What stands there in the payload of frame `number`.
    fn of_frame(mut self, number: u64) -> Self {
        if self.is_stamped() {
            self.front = stamp(number);
        }
        // The pool can be cut anywhere except behind an FF.
        if self.last == 0xFF {
            self.last = 0x7F;
        }
        self
    }
}

/// Random bytes, stuffed, with no FF at the end.
fn random_stuffed(seed: u64) -> Vec<u8> {
    let mut plain = vec![0; POOL_BYTES];
    Xoshiro256PlusPlus::seed_from_u64(seed).fill_bytes(&mut plain);
    let mut pool = Vec::new();
    stuff(&plain, &mut pool);
    pool
}

/// A number from 0 below `limit`, by the upper half of a product; that it is not exactly uniform
/// (by 2^-40 here) harms nothing.
fn below(random: &mut Xoshiro256PlusPlus, limit: u64) -> usize {
    ((u128::from(random.next_u64()) * u128::from(limit)) >> 64) as usize
}

/// The number in 16 bytes, none of them FF: a digit of four bits each, highest first, in the upper
/// half of a byte, and its complement in the lower half.
fn stamp(number: u64) -> [u8; STAMP_BYTES] {
    std::array::from_fn(|place| {
        let digit = (number >> (60 - 4 * place)) as u8 & 0x0F;
        digit << 4 | digit ^ 0x0F
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::escape::is_stuffed;

    #[test]
    fn payloads_are_stuffed_of_the_lengths_asked_for_and_a_function_of_seed_and_number() {
        let mut noise = Noise::new(1, 700, 7).unwrap();
        let mut again = Noise::new(1, 700, 7).unwrap();
        let mut other = Noise::new(1, 700, 8).unwrap();
        let mut lengths = std::collections::BTreeSet::new();
        let mut differing = 0;
        for number in (0..20_000).rev() {
            let payload = noise.next(number).payload.to_vec();
            assert!(is_stuffed(&payload), "frame {number}");
            lengths.insert(payload.len());
            differing += u32::from(payload != other.next(number).payload);
            if number % 1000 == 0 {
                assert_eq!(payload, again.next(number).payload);
            }
        }
        assert_eq!((lengths.first(), lengths.last()), (Some(&1), Some(&700)));
        assert!(lengths.len() > 690 && differing > 19_000);
    }

    #[test]
    fn checksums_are_those_of_the_payloads() {
        for (bytes_min, bytes_max) in [(1, 700), (20_000, 30_000), (1_000_000, 1_100_000)] {
            let mut noise = Noise::new(bytes_min, bytes_max, 7).unwrap();
            assert_eq!(noise.next(0).crc32c, None);
            noise.keep_checksums();
            for number in 0..300 {
                let picture = noise.next(number);
                assert_eq!(
                    picture.crc32c,
                    Some(crc_fast::crc32_iscsi(picture.payload)),
                    "{number}"
                );
            }
        }
    }

    #[test]
    fn a_stamp_by_hand() {
        let mut noise = Noise::new(32, 32, 1).unwrap();
        let payload = noise.next(0x0123_4567_89AB_CDEF).payload;
        assert_eq!(
            payload[..16],
            [
                0x0F, 0x1E, 0x2D, 0x3C, 0x4B, 0x5A, 0x69, 0x78, 0x87, 0x96, 0xA5, 0xB4, 0xC3, 0xD2,
                0xE1, 0xF0
            ]
        );
    }

    #[test]
    fn payloads_longer_than_the_pool() {
        let mut noise = Noise::new(PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MAX, 3).unwrap();
        let payload = noise.next(5).payload;
        assert_eq!(payload.len(), PAYLOAD_BYTES_MAX as usize);
        assert!(is_stuffed(payload));
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        for (min, max) in [(0, 1), (2, 1), (1, PAYLOAD_BYTES_MAX + 1)] {
            assert!(Noise::new(min, max, 1).is_err());
        }
    }
}
