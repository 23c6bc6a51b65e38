//! The writer comes round word by word to a frame on a ring without counters.

use std::os::unix::fs::FileExt;

use super::*;
use crate::hand_camera::HandCamera;
use crate::record::{frame_body_bytes, record_bytes};
use crate::slab::SlabPool;
use crate::tail::{StartAt, Step, Tail};

const RING: u64 = 4096;
/// Its slot is a sixteenth of the ring.
const LENGTH: usize = 200;
const SLOT: u64 = 256;
/// The frame that the writer comes to.
const NUMBER: u64 = 3;

/// The ring after so many frames.
fn ring_after(frames: u64, stamps: bool) -> Vec<u8> {
    let mut camera = HandCamera::new(RING, stamps);
    (0..frames).for_each(|_| camera.emit(LENGTH));
    content(&camera)
}

/// What the writer stores in the lap behind the first, in frames of this length.
fn second_lap(length: usize) -> Vec<u8> {
    let mut camera = HandCamera::new(RING, false);
    (0..RING / SLOT).for_each(|_| camera.emit(LENGTH));
    while camera.next < RING + (NUMBER + 1) * SLOT {
        camera.emit(length);
    }
    content(&camera)
}

fn content(camera: &HandCamera) -> Vec<u8> {
    let mut bytes = vec![0; RING as usize];
    camera.ring.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// When the writer goes on with its second lap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comes {
    /// When the frame was found by one who had read the frame before.
    BehindFind,
    /// Before that.
    InFrontOfFind,
    /// Before anything is known of the ring.
    InFrontOfAttach,
}

/// How many frames are delivered whole, and how many are not, in all places of the writer.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    whole: u64,
    damaged: u64,
}

impl Tally {
    fn add(&mut self, device: &Device, candidate: &Candidate) {
        let length = candidate.trailer.length;
        let body = frame_body_bytes(length);
        let mut slab = SlabPool::new(1 << 20).take(record_bytes(body)).unwrap();
        if copy_and_check(device, candidate, &mut slab).is_err() {
            return;
        }
        // A frame's time tells its number.
        let number = (candidate.trailer.time.micros() - 1_000_000_000_000_000) / 10_000 - 1;
        let payload = HandCamera::payload(number, length as usize);
        let parameters = [80, 80, 0, 0, 0x40, 0, 0x30, 0];
        let header = &slab[RECORD_HEADER_BYTES..PAYLOAD_OFFSET];
        let is_whole = slab[PAYLOAD_OFFSET..][..length as usize] == payload
            && (!candidate.stamped || header[16..24] == parameters);
        *if is_whole { &mut self.whole } else { &mut self.damaged } += 1;
    }
}

/// The writer goes round in frames of this length, and stops at every word.
fn tally(stamps: bool, length: usize, comes: Comes, law: impl Fn(Candidate) -> Candidate) -> Tally {
    let camera = HandCamera::new(RING, stamps);
    let [before, full] = [NUMBER, RING / SLOT].map(|frames| ring_after(frames, stamps));
    let coming = second_lap(length);
    let mut tally = Tally::default();
    for stored in (0..(NUMBER + 1) * SLOT).step_by(8) {
        let put = |bytes: &[u8]| camera.ring.write_all_at(bytes, 0).unwrap();
        let go_on = || put(&coming[..stored as usize]);
        put(if comes == Comes::InFrontOfAttach { &full } else { &before });
        if comes == Comes::InFrontOfAttach {
            go_on();
        }
        let device = camera.device_without_registers();
        let start = if comes == Comes::InFrontOfAttach { StartAt::Oldest } else { StartAt::Newest };
        let mut tail = Tail::attach(&device, start).unwrap();
        if comes != Comes::InFrontOfAttach {
            put(&full);
        }
        if comes == Comes::InFrontOfFind {
            go_on();
        }
        for _ in 0..4 {
            let Step::Frame(candidate) = tail.poll(&device).unwrap() else { continue };
            if comes == Comes::BehindFind {
                go_on();
            }
            tally.add(&device, &law(candidate));
        }
    }
    tally
}

#[test]
fn no_half_zeroed_header_and_no_torn_payload_is_delivered_without_counters() {
    for stamps in [true, false] {
        for length in [LENGTH, 333, 500, 77] {
            for comes in [Comes::BehindFind, Comes::InFrontOfFind, Comes::InFrontOfAttach] {
                let tally = tally(stamps, length, comes, |candidate| candidate);
                assert_eq!(tally.damaged, 0, "{stamps} {length} {comes:?}: {tally:?}");
                assert!(tally.whole > 50, "{stamps} {length} {comes:?}: {tally:?}");
            }
        }
    }
}

/// The test above can fail: the header says FF FF and the length until its last word is zeroed.
#[test]
fn without_the_trailer_in_front_a_half_zeroed_header_is_delivered() {
    for length in [LENGTH, 333] {
        let unguarded = |candidate| Candidate { before: None, ..candidate };
        let tally = tally(true, length, Comes::BehindFind, unguarded);
        assert!(tally.damaged > 0, "{length}: {tally:?}");
    }
}
