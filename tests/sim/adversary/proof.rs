//! Payloads that tell their number and length, and end in a checksum; and whoever checks them.

use circbuf_driver::dispatch::Losses;
use circbuf_driver::ring::Timestamp;
use circbuf_emulator::escape::stuff;
use circbuf_emulator::model::FrameTime;
use circbuf_tests::{Random, START};

use super::Kind;
use crate::seeds::Counts;

const NUMBER_BYTES: usize = 10;
const LENGTH_BYTES: usize = 4;
const CRC_BYTES: usize = 5;
const POOL_BYTES: usize = 1 << 20;

/// Makes payloads.
pub(super) struct Maker {
    pool: Vec<u8>,
    payload: Vec<u8>,
}

impl Maker {
    pub(super) fn new(seed: u64) -> Maker {
        let mut random = Random::of(seed);
        let plain: Vec<u8> = (0..POOL_BYTES).map(|_| random.any() as u8).collect();
        let mut pool = Vec::new();
        stuff(&plain, &mut pool);
        Maker { pool, payload: Vec::new() }
    }

    /// The payload of this frame, stuffed, of so many bytes, 64 at least.
    pub(super) fn make(&mut self, number: u64, length: usize) -> &[u8] {
        let middle = length - NUMBER_BYTES - LENGTH_BYTES - CRC_BYTES;
        let at = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) as usize % (self.pool.len() - middle);
        self.payload.clear();
        self.payload.extend(digits::<NUMBER_BYTES>(number));
        self.payload.extend(digits::<LENGTH_BYTES>(length as u64));
        self.payload.extend_from_slice(&self.pool[at..at + middle]);
        // The pool can be cut anywhere except behind an FF.
        if let Some(last @ 0xFF) = self.payload.last_mut() {
            *last = 0x7F;
        }
        let crc = crc_fast::crc32_iscsi(&self.payload);
        self.payload.extend(digits::<CRC_BYTES>(crc.into()));
        &self.payload
    }
}

/// Time of a frame.
pub(super) fn time(number: u64) -> FrameTime {
    START.plus_nanos(number * 1000)
}

/// A number in bytes of seven bits, the lowest first: none of them is FF.
fn digits<const BYTES: usize>(number: u64) -> [u8; BYTES] {
    std::array::from_fn(|place| (number >> (7 * place)) as u8 & 0x7F)
}

fn number_of(digits: &[u8]) -> u64 {
    digits.iter().rev().fold(0, |number, digit| number << 7 | u64::from(*digit))
}

/// The number of the frame if all of it is there.
fn proven(payload: &[u8]) -> Option<u64> {
    let (rest, crc) = payload.split_last_chunk::<CRC_BYTES>()?;
    let (number, rest_of_it) = rest.split_first_chunk::<NUMBER_BYTES>()?;
    let (length, _) = rest_of_it.split_first_chunk::<LENGTH_BYTES>()?;
    let whole = number_of(length) == payload.len() as u64
        && number_of(crc) == u64::from(crc_fast::crc32_iscsi(rest));
    whole.then(|| number_of(number))
}

/// Checks what is delivered.
#[derive(Debug)]
pub(super) struct Checker {
    counted: bool,
    next: u64,
    pub(super) counts: Counts,
}

impl Checker {
    pub(super) fn new(kind: &Kind) -> Checker {
        Checker { counted: kind.counted, next: 0, counts: Counts::from([("damaged", 0)]) }
    }

    pub(super) fn is_counted(&self) -> bool {
        self.counted
    }

    /// A frame was delivered.
    pub(super) fn frame(&mut self, sequence: u64, time: Timestamp, payload: &[u8]) {
        self.count("delivered", 1);
        match proven(payload).filter(|number| self.is_next(*number, sequence, time)) {
            Some(number) => self.next = number + 1,
            None => self.count("damaged", 1),
        }
    }

    /// A frame was delivered of a ring that was taken for a bare one: nothing is promised of it.
    pub(super) fn unpromised(&mut self) {
        self.count("unpromised", 1);
    }

    pub(super) fn lost(&mut self, lost: &Losses) {
        for loss in lost.iter() {
            self.count(
                loss.refusal.map_or(loss.reason.name(), |refusal| refusal.name()),
                loss.count,
            );
        }
    }

    pub(super) fn count(&mut self, what: &'static str, frames: u64) {
        *self.counts.entry(what).or_default() += frames;
    }

    fn is_next(&self, number: u64, sequence: u64, told: Timestamp) -> bool {
        let FrameTime { sec, usec } = time(number);
        let is_time = (told.sec, told.usec) == (sec, usec);
        is_time && number >= self.next && (!self.counted || number == sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use circbuf_emulator::escape::is_stuffed;

    #[test]
    fn a_payload_proves_its_number_and_one_flipped_bit_does_not() {
        let mut maker = Maker::new(1);
        for number in [0, 1, 77_777, u64::MAX >> 1] {
            for length in [64, 65, 976, 4000] {
                let mut payload = maker.make(number, length).to_vec();
                assert!(is_stuffed(&payload) && payload.len() == length);
                assert_eq!(proven(&payload), Some(number));
                for bit in [0, 90, 8 * 40 + 3, length * 8 - 7] {
                    payload[bit / 8] ^= 1 << (bit % 8);
                    assert_eq!(proven(&payload), None, "bit {bit} of {length} bytes");
                    payload[bit / 8] ^= 1 << (bit % 8);
                }
                assert_eq!(proven(&payload[..length - 1]), None);
            }
        }
    }
}
