//! The verdict on every single flip, against a reader of its own.
use super::*;
use crate::fault::doctor::Place;

/// The judge's own arithmetic: what a driver sees of a frame whose slot begins at the first byte.
fn naive_is_lawful(slot: &[u8], next: usize, before: &[u8]) -> bool {
    let word = |at: usize| u32::from_le_bytes([slot[at], slot[at + 1], slot[at + 2], slot[at + 3]]);
    let end = next - 32;
    let length = (word(end - 4) & 0xFF_FFFF) as usize;
    let padded = ((length + 15) & !31) + 32;
    if slot[end - 1] != 0xFF || word(end - 8) >= 1_000_000 || length == 0 || 32 + padded != end {
        return false;
    }
    let (payload, rest) = slot[32..end].split_at(length);
    let stuffed = (1..length).all(|at| !(payload[at - 1] == 0xFF && payload[at] == 0xFF));
    let padding_is_zero = rest[..rest.len() - 12].iter().all(|byte| *byte == 0);
    let header = slot[26] == 0xFF && slot[27] == 0xFF && word(28) as usize == length;
    stuffed && padding_is_zero && header && slot[end - 12..end] != *before
}

#[test]
fn every_single_flip_is_judged_as_a_naive_reader_would() {
    let mut payload = payload(38);
    // Bits on both sides of an FF 00, and zeros at the end that a wrong length may leave out.
    payload[10..14].copy_from_slice(&[0x7F, 0xFF, 0x00, 0xFE]);
    payload[14] = 0xFF;
    payload[15] = 0;
    payload[30..].fill(0);
    let bits = [(Place::Payload, 38 * 8), (Place::Trailer, 96), (Place::Header, 256)];
    let mut counts = [(0, 0); 3];
    for (index, (place, bits)) in bits.into_iter().enumerate() {
        for bit in 0..bits {
            let mut rig = Rig::new(&Faults::default(), (Gap::Zero, true));
            rig.write(&payload);
            let time = FrameTime { sec: SEC + 1, usec: USEC };
            let mut frame = rig.injector.frame(&rig.fpga, &picture(&payload), time).unwrap();
            doctor::flip(&mut frame, (place, bit));
            // The trailer in front is that of frame 0, not what `frame` noted of this one.
            rig.injector.before.trailer = Some(trailer_of(FrameTime { sec: SEC, usec: USEC }, 38));
            let lawful = rig.injector.is_lawful(&rig.fpga, &frame);
            frame.undetectable = lawful;
            rig.fpga.begin_doctored(&frame);
            let entry = frame.ledger_entry(&rig.fpga);
            while rig.fpga.step(frame.payload(), 32) == Progress::Writing {}
            let bytes = rig.at(64, 128);
            assert_eq!(lawful, naive_is_lawful(&bytes, 128, &rig.at(52, 12)), "{place:?} {bit}");
            if lawful {
                // What may be handed on is what is read.
                let length = bytes[92] as usize;
                assert_eq!(entry.crc32c, crc_fast::crc32_iscsi(&bytes[32..][..length]));
                assert_eq!(entry.sec.to_le_bytes(), bytes[84..88]);
            }
            counts[index].0 += usize::from(lawful);
            counts[index].1 += usize::from(!lawful);
        }
    }
    // Payload: two flips make FF FF. Trailer: one of the seconds makes the trailer in front, twelve
    // of the microseconds are beyond a million, and four lengths lose or gain only zeros: 34, 36, 39
    // and 46. Header: signature and length are watched.
    assert_eq!(counts, [(302, 2), (31 + 20 + 4, 1 + 12 + 28), (208, 48)]);
}
