//! Payloads that are made to mislead whoever reads the ring.

use circbuf_driver::ring::padded;
use circbuf_tests::{Random, payload};

/// What a payload is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Likeness {
    /// That of any picture.
    Plain,
    /// Lawful, but with pieces that look like the ends of frames.
    Trailers,
    /// FF FF stands in it, as no compressor writes it: no lawful frame.
    Unescaped,
}

/// The payload of the frame that is begun as this one, of so many bytes.
pub(crate) fn payload_like(
    likeness: Likeness,
    number: u64,
    length: usize,
    random: &mut Random,
) -> Vec<u8> {
    let mut bytes = payload(number, length);
    match likeness {
        Likeness::Plain => {}
        Likeness::Trailers => put_trailers(&mut bytes, random),
        Likeness::Unescaped => {
            let at = random.below(length as u64 - 1) as usize;
            bytes[at..at + 2].fill(0xFF);
        }
    }
    bytes
}

/// Puts trailers at the ends of some chunks, with zeros in front of them.
fn put_trailers(bytes: &mut [u8], random: &mut Random) {
    // Behind the marker FF has to stand 00, as in every payload.
    let ends = (32..bytes.len()).step_by(32);
    for end in ends.filter(|_| random.once_in(4)).collect::<Vec<_>>() {
        let leading_back = end as u32 - 16;
        let any = 1 + random.below(900) as u32;
        let length = if random.once_in(2) { leading_back } else { any };
        let length = if length.to_le_bytes().contains(&0xFF) { 1 } else { length };
        let word = (length | 0xFF00_0000).to_le_bytes();
        bytes[end - 16..end - 4].copy_from_slice(&[0, 0, 0, 0, 0x7E, 0x4A, 0x7F, 0x46, 0, 0, 1, 0]);
        bytes[end - 4..end].copy_from_slice(&word);
        bytes[end] = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use circbuf_emulator::escape::is_stuffed;

    #[test]
    fn what_looks_like_trailers_is_stuffed_and_some_of_it_leads_back_to_the_start() {
        let (mut random, mut leading_back) = (Random::of(1), 0);
        for number in 0..2000 {
            let length = 2 + random.below(900) as usize;
            let bytes = payload_like(Likeness::Trailers, number, length, &mut random);
            assert!(is_stuffed(&bytes), "frame {number}");
            for end in (32..length).step_by(32).filter(|end| bytes[end - 1] == 0xFF) {
                let word = [bytes[end - 4], bytes[end - 3], bytes[end - 2], 0];
                leading_back += u64::from(padded(u32::from_le_bytes(word)) == end as u64);
            }
            let torn = payload_like(Likeness::Unescaped, number, length, &mut random);
            assert!(!is_stuffed(&torn), "frame {number}");
        }
        assert!(leading_back > 100, "{leading_back}");
    }
}
