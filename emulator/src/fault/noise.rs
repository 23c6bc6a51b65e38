//! Noise in place of a picture, of a size that the fault wants.
use circbuf_abi::ring::{
    CHUNK_BYTES, GAP_BYTES, PAYLOAD_BYTES_MAX, SLOT_BYTES_MIN, TRAILER_BYTES, ZEROS_MAX, ZEROS_MIN,
};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::Rng as _;

use super::FaultKind;
use crate::fpga::Fpga;
use crate::model::Geometry;

/// The largest drawn payload takes this part of the ring.
const SIZES_DIVISOR: u64 = 3;

/// Half of the drawn payloads are no longer, in bytes.
const SMALL_BYTES: u64 = 16;

/// Noise is no picture.
pub(super) const GEOMETRY: Geometry = Geometry {
    width: 0,
    height: 0,
    quality2: 0,
    color_mode: circbuf_abi::header::COLOR_MODE_COLOR,
};

/// Random bytes, lawful as a payload: every FF has a 00 behind it.
pub(super) fn noise(random: &mut Xoshiro256PlusPlus, bytes: usize) -> Vec<u8> {
    let mut payload = vec![0; bytes];
    random.fill_bytes(&mut payload);
    for at in 0..bytes.saturating_sub(1) {
        if payload[at] == 0xFF {
            payload[at + 1] = 0;
        }
    }
    if let Some(last @ 0xFF) = payload.last_mut() {
        *last = 0x7F;
    }
    payload
}

/// Random bytes of a random length that take a slot of `slot_bytes`.
pub(super) fn noise_of_slot(random: &mut Xoshiro256PlusPlus, slot_bytes: u64) -> Vec<u8> {
    let longest = payload_bytes_max(slot_bytes) as usize;
    // The smallest slot has no room for less than nothing, the largest more than can be told.
    let shortest = (longest + 1).saturating_sub(CHUNK_BYTES).max(1);
    let lengths = longest.min(PAYLOAD_BYTES_MAX as usize) + 1 - shortest;
    let bytes = shortest + below(random, lengths as u64) as usize;
    noise(random, bytes)
}

/// The longest payload that takes a slot of `slot_bytes`.
pub(super) fn payload_bytes_max(slot_bytes: u64) -> u64 {
    slot_bytes - (GAP_BYTES + TRAILER_BYTES + ZEROS_MIN) as u64
}

/// The slot that a frame has to take from where the FPGA is, so that the end of the ring lies behind
/// it, or for a wrong pointer in front of its gap.
pub(super) fn wrapping_slot(kind: FaultKind, fpga: &Fpga) -> Option<u64> {
    let ring_bytes = fpga.ring_bytes();
    let left = ring_bytes - fpga.cursor() % ring_bytes;
    let slot_bytes = match kind {
        FaultKind::ExactWrap => left,
        // The pointer moves, wrong as it is, by a slot at least.
        _ => left + GAP_BYTES as u64,
    };
    (left >= SLOT_BYTES_MIN && slot_bytes <= fpga.max_slot_bytes()).then_some(slot_bytes)
}

/// The largest slot that divides the ring and is not above `max_slot_bytes`.
pub(super) fn aligned_slot(ring_bytes: u64, max_slot_bytes: u64) -> u64 {
    let slots = (SLOT_BYTES_MIN..=max_slot_bytes).step_by(CHUNK_BYTES);
    slots.filter(|&slot| ring_bytes.is_multiple_of(slot)).last().unwrap_or(SLOT_BYTES_MIN)
}

/// Noise of quite another size.
pub(super) fn draw_payload(fpga: &Fpga, random: &mut Xoshiro256PlusPlus) -> Vec<u8> {
    let chunk = CHUNK_BYTES as u64;
    let slot_bytes = fpga.ring_bytes() / SIZES_DIVISOR / chunk * chunk;
    let largest = payload_bytes_max(slot_bytes);
    let bytes = match below(random, 2) {
        0 => below(random, SMALL_BYTES),
        _ => below(random, largest.min(PAYLOAD_BYTES_MAX.into())),
    };
    noise(random, bytes as usize + 1)
}

/// A number from 0 below `limit`.
pub(super) fn below(random: &mut Xoshiro256PlusPlus, limit: u64) -> u64 {
    ((u128::from(random.next_u64()) * u128::from(limit)) >> 64) as u64
}

const _: () = assert!(ZEROS_MAX - ZEROS_MIN + 1 == CHUNK_BYTES);

#[cfg(test)]
mod tests {
    use rand_xoshiro::rand_core::SeedableRng as _;

    use super::*;
    use crate::escape::is_stuffed;
    use crate::fpga::slot_bytes;

    #[test]
    fn noise_is_stuffed_and_fills_its_slot() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
        let mut lengths = std::collections::BTreeSet::new();
        for slot in (64..1024).step_by(32).cycle().take(10_000) {
            let payload = noise_of_slot(&mut random, slot);
            assert!(is_stuffed(&payload));
            assert_eq!(slot_bytes(payload.len() as u32), slot);
            lengths.insert(payload.len());
        }
        assert!(lengths.iter().copied().eq(1..=lengths.len()), "every length occurs");
        let largest = slot_bytes(PAYLOAD_BYTES_MAX);
        let payload = noise_of_slot(&mut random, largest);
        assert!(payload.len() <= PAYLOAD_BYTES_MAX as usize);
        assert_eq!(slot_bytes(payload.len() as u32), largest);
    }
}
