//! What the faults that damage a frame do to its bytes.
use circbuf_abi::header::{HEADER_BYTES, SIGNATURE_OFFSET};
use circbuf_abi::ring::{
    CHUNK_BYTES, MICROSECONDS, PAYLOAD_BYTES_MAX, TRAILER_BYTES, TRAILER_MARKER, trailer,
};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::Rng as _;

use super::doctored::{Doctored, Service, Stamp};
use super::noise::below;

/// Microseconds have so many bits.
const MICROSECONDS_BITS: u32 = 20;

/// Ends the payload somewhere inside, in front of a trailer that was latched before.
pub(super) fn abort(
    frame: &mut Doctored<'_>,
    latched: [u8; TRAILER_BYTES],
    random: &mut Xoshiro256PlusPlus,
) {
    let payload_bytes = 1 + below(random, frame.payload.len() as u64 - 1) as usize;
    frame.payload.to_mut().truncate(payload_bytes);
    frame.manner.trailer = latched;
    frame.damaged = true;
}

/// Leaves zeros where the trailer belongs.
pub(super) fn omit_trailer(frame: &mut Doctored<'_>) {
    frame.manner.trailer = [0; TRAILER_BYTES];
    frame.damaged = true;
}

/// Makes the trailer one that no frame of this slot can have.
pub(super) fn spoil_trailer(frame: &mut Doctored<'_>, random: &mut Xoshiro256PlusPlus) {
    const CHUNK: u32 = CHUNK_BYTES as u32;
    let length = frame.payload.len() as u32;
    let bytes = &mut frame.manner.trailer;
    let longer = length + CHUNK <= PAYLOAD_BYTES_MAX;
    match below(random, 6) {
        0 => put_length(bytes, 0),
        1 => put_length(bytes, PAYLOAD_BYTES_MAX),
        2 => put_length(bytes, if longer { length + CHUNK } else { length - CHUNK }),
        3 => put_length(bytes, if length > CHUNK { length - CHUNK } else { length + CHUNK }),
        4 => {
            let beyond = (1 << MICROSECONDS_BITS) - MICROSECONDS;
            let micros = MICROSECONDS + below(random, beyond.into()) as u32;
            bytes[trailer::MICROSECONDS..trailer::LENGTH].copy_from_slice(&micros.to_le_bytes());
        }
        _ => bytes[TRAILER_BYTES - 1] = below(random, TRAILER_MARKER.into()) as u8,
    }
    frame.damaged = true;
}

fn put_length(bytes: &mut [u8; TRAILER_BYTES], length: u32) {
    let marked = length | u32::from(TRAILER_MARKER) << 24;
    bytes[trailer::LENGTH..].copy_from_slice(&marked.to_le_bytes());
}

/// Puts FF FF into the payload.
pub(super) fn unescape(frame: &mut Doctored<'_>, random: &mut Xoshiro256PlusPlus) {
    let places = frame.payload.len() as u64 - 1;
    let at = below(random, places) as usize;
    frame.payload.to_mut()[at..at + 2].fill(0xFF);
    frame.damaged = true;
}

/// A place where a bit can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Payload,
    Trailer,
    Header,
}

/// Draws a bit of payload, trailer or, if there is one, header.
pub(super) fn draw_bit(
    frame: &Doctored<'_>,
    stamped: bool,
    random: &mut Xoshiro256PlusPlus,
) -> (Place, usize) {
    let (place, bytes) = match below(random, if stamped { 3 } else { 2 }) {
        0 => (Place::Payload, frame.payload.len()),
        1 => (Place::Trailer, TRAILER_BYTES),
        _ => (Place::Header, HEADER_BYTES),
    };
    (place, below(random, 8 * bytes as u64) as usize)
}

/// Makes a bit wrong, counted from the lowest of the first byte.
pub(super) fn flip(frame: &mut Doctored<'_>, (place, bit): (Place, usize)) {
    match place {
        Place::Payload => frame.payload.to_mut()[bit / 8] ^= 1 << (bit % 8),
        Place::Trailer => frame.manner.trailer[bit / 8] ^= 1 << (bit % 8),
        Place::Header => frame.manner.service = Service::Stamps(Stamp::Flipped { bit }),
    }
    frame.damaged = true;
}

/// Puts zeros or random bytes where the header belongs.
pub(super) fn clobber_header(frame: &mut Doctored<'_>, random: &mut Xoshiro256PlusPlus) {
    let mut bytes = [0; HEADER_BYTES];
    if below(random, 2) == 1 {
        random.fill_bytes(&mut bytes);
        bytes[SIGNATURE_OFFSET] &= 0x7F;
    }
    frame.manner.service = Service::Stamps(Stamp::Clobbered(bytes));
    frame.damaged = true;
}

/// Leaves the slot in front without a header.
pub(super) fn lose_header(frame: &mut Doctored<'_>, service: Service) {
    frame.manner.service = service;
    frame.damaged = true;
}
