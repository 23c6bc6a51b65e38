use proptest::prelude::*;

use super::*;
use crate::ring::{Geometry, slot};

/// The listing of the 353, row by row, its stale row 00de48 included.
const LISTING: [(u64, [u32; 8]); 8] = [
    (
        0x4b7ff8,
        [0xa4, 0x06000800, 0x016c0120, 0x0a3946c1, 0x01ab010a, 0x40404040, 0xffff0000, 0x378fe],
    ),
    (
        0,
        [
            0xd30b03cc, 0x8af1dc34, 0xa5875e77, 0x9d4cf334, 0x204db683, 0xb1533cc7, 0xc59f949e,
            0x36b1af45,
        ],
    ),
    (
        8,
        [
            0x90e20102, 0x5e9ad7f1, 0xf68cd273, 0x130a1dc5, 0x7e50641c, 0x41bd14ef, 0x140720c5,
            0x73c0e02e,
        ],
    ),
    (
        0xde38,
        [0x20a50766, 0x4e433fc9, 0x7614f51c, 0x087bd2e4, 0x988ee64e, 0xcdf41ca0, 0x6af40e1c, 0x3b],
    ),
    (0xde40, [0, 0, 0, 0, 0, 0x46ff4a82, 0x000303bd, 0xff0378fe]),
    (0xde48, [0xf6285e9f, 0xaeacb0a5, 0, 0, 0, 0x46ff4a81, 0x000a1930, 0xff037929]),
    (0xde50, [0; 8]),
    (0xde58, [0; 8]),
];

fn golden() -> Vec<u8> {
    let mut ring = vec![0; 0x4b_8000 * 4];
    for (word, words) in LISTING {
        for (index, value) in words.into_iter().enumerate() {
            ring[(word as usize + index) * 4..][..4].copy_from_slice(&value.to_le_bytes());
        }
    }
    ring
}

fn frames(bytes: Vec<u8>) -> Vec<Found> {
    RingImage::new(bytes).expect("a size that is a ring").frames()
}

fn sound(found: &[Found]) -> Vec<(u64, u32)> {
    found.iter().filter(|f| f.is_sound()).map(|f| (f.start, f.length)).collect()
}

#[test]
fn the_golden_listing_is_one_whole_frame_and_a_stale_trailer() {
    let found = frames(golden());
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!((found[0].start, found[0].length, found[0].verdict), (0, 0x378FE, Verdict::Whole));
    assert_eq!(found[0].time, Some(Timestamp { sec: 1_191_135_874, usec: 197_565 }));
    let stale = Verdict::Stale { by: Overwriter::Frame(0) };
    assert_eq!((found[1].start, found[1].length, found[1].verdict), (0, 0x37929, stale));
}

#[test]
fn without_its_header_the_golden_frame_is_unstamped_and_the_trailer_still_stale() {
    let mut ring = golden();
    let slot = ring.len() - 32;
    ring[slot..].fill(0);
    let found = frames(ring);
    let verdicts: Vec<Verdict> = found.iter().map(|found| found.verdict).collect();
    assert_eq!(verdicts, [Verdict::Unstamped, Verdict::Stale { by: Overwriter::Frame(0) }]);
    assert_eq!(found[0].length, 0x378FE);
}

/// A camera in a few lines: it emits zeros until the trailer fits.
struct Pen {
    ring: Vec<u8>,
    cursor: u64,
    time: Timestamp,
    stamps: bool,
    /// Cursor and length of each frame.
    ledger: Vec<(u64, u32)>,
}

impl Pen {
    fn new(ring_bytes: usize, stamps: bool) -> Pen {
        let time = Timestamp { sec: 0x46FF_4A82, usec: 999_000 };
        Pen { ring: vec![0; ring_bytes], cursor: 0, time, stamps, ledger: Vec::new() }
    }

    fn put(&mut self, cursor: u64, bytes: &[u8]) {
        for (at, &byte) in (cursor..).zip(bytes) {
            let at = (at % self.ring.len() as u64) as usize;
            self.ring[at] = byte;
        }
    }

    fn payload(&self, length: u32) -> Vec<u8> {
        let byte = |at: u32| (at.wrapping_mul(0x9E37_79B9) >> 24) as u8 % 0xFE + 1;
        (0..length).map(|at| byte(at + self.ledger.len() as u32 * 7919)).collect()
    }

    fn frame(&mut self, length: u32) -> u64 {
        let start = self.cursor;
        let mut bytes = self.payload(length);
        bytes.extend([0; 4]);
        while bytes.len() % 32 != 20 {
            bytes.push(0);
        }
        bytes.extend(self.time.sec.to_le_bytes());
        bytes.extend(self.time.usec.to_le_bytes());
        bytes.extend((0xFF00_0000 | length).to_le_bytes());
        bytes.extend([0; 32]);
        self.put(start, &bytes);
        if self.stamps {
            let geometry = Geometry { width: 640, height: 480, quality2: 80, color_mode: 0 };
            let slot = start + self.ring.len() as u64 - 32;
            self.put(slot, &FrameHeader::synthesise(geometry, length).0);
        }
        self.time.usec += 83_333;
        if self.time.usec >= 1_000_000 {
            self.time = Timestamp { sec: self.time.sec + 1, usec: self.time.usec - 1_000_000 };
        }
        self.cursor += bytes.len() as u64;
        self.ledger.push((start, length));
        start
    }

    /// What the register page says between two frames.
    fn writer(&self) -> Writer {
        let (cursor, frames) = (self.cursor, self.ledger.len() as u64);
        Writer { epoch: 0, written: cursor, reserved: cursor, complete: cursor, frames }
    }

    /// Begins a frame: the first chunks of its payload.
    fn begin(&mut self, chunks: u64) {
        let payload = self.payload(chunks as u32 * 32);
        self.put(self.cursor, &payload);
    }

    /// What stands whole while everything below `touched` has been written, by the fourth point
    /// of the law of validity.
    fn standing(&self, touched: u64) -> Vec<(u64, u32)> {
        let ring_bytes = self.ring.len() as u64;
        let stands = |(start, _): &&(u64, u32)| touched + 32 <= start + ring_bytes;
        let mut standing: Vec<(u64, u32)> =
            self.ledger.iter().filter(stands).map(|&(s, l)| (s % ring_bytes, l)).collect();
        standing.sort_unstable();
        standing
    }
}

#[test]
fn all_that_stands_is_found_on_every_lap_for_every_residue_and_wrap() {
    for (stamps, ring_bytes) in [(true, 4096), (false, 4096), (true, 4128), (false, 4128)] {
        let mut pen = Pen::new(ring_bytes, stamps);
        for n in 0..600u32 {
            pen.frame(1 + (n * 37) % 800);
            let context = format!("frame {n}, stamps {stamps}, {ring_bytes} bytes");
            let found = frames(pen.ring.clone());
            assert_eq!(sound(&found), pen.standing(pen.cursor), "{context}");
            let verdict = if stamps { Verdict::Whole } else { Verdict::Unstamped };
            assert!(
                found.iter().filter(|f| f.is_sound()).all(|f| f.verdict == verdict),
                "{context}"
            );
            assert!(!found.iter().any(Found::is_corrupt), "{context}: {found:?}");
        }
    }
}

#[test]
fn what_an_unfinished_frame_has_reached_is_not_sound() {
    for stamps in [true, false] {
        let mut pen = Pen::new(4096, stamps);
        for n in 0..200u32 {
            pen.frame(1 + (n * 61) % 700);
            let before = pen.ring.clone();
            for chunks in 1..24 {
                pen.begin(chunks);
                let found = frames(pen.ring.clone());
                let standing = pen.standing(pen.cursor + chunks * 32);
                assert_eq!(sound(&found), standing, "frame {n}, {chunks} chunks, stamps {stamps}");
                assert!(!found.iter().any(Found::is_corrupt), "frame {n}, {chunks} chunks");
            }
            pen.ring = before;
        }
    }
}

#[test]
fn damage_that_no_frame_explains_is_told_by_its_place() {
    let mut pen = Pen::new(4096, true);
    let start = [100, 300, 200].map(|length| pen.frame(length))[1];
    let damaged = |at: u64, bytes: &[u8]| {
        let mut ring = pen.ring.clone();
        ring[at as usize..][..bytes.len()].copy_from_slice(bytes);
        let found = frames(ring);
        let torn = found.iter().find(|f| f.start == start).expect("its header is there");
        assert!(torn.is_corrupt() && sound(&found).len() == 2, "{found:?}");
        let Verdict::Torn { tear, .. } = torn.verdict else { panic!("{torn:?}") };
        tear
    };
    let last = start + padded(300) - 32;
    assert_eq!(damaged(start + 31, &[0xFF, 0xFF]), Tear::Signature { offset: start + 31 });
    assert_eq!(damaged(start + 298, &[0xFF, 0xFF]), Tear::Signature { offset: start + 298 });
    assert_eq!(damaged(start + 299, &[0xFF, 0xFF]), Tear::Padding { offset: start + 300 });
    assert_eq!(damaged(last + 19, &[1]), Tear::Padding { offset: last + 19 });
    assert_eq!(damaged(last + 28, &[45]), Tear::Length { trailer: 301 });
    assert_eq!(damaged(last + 31, &[0xFE]), Tear::NoTrailer);
}

#[test]
fn a_header_that_outlived_a_reset_is_torn_by_the_frame_at_0() {
    let mut pen = Pen::new(4096, true);
    pen.frame(500);
    pen.cursor = 0;
    pen.stamps = false;
    pen.frame(90);
    let found = frames(pen.ring);
    assert_eq!(sound(&found), [(0, 90)]);
    let by = Overwriter::Frame(0);
    let torn = found.iter().find(|f| f.length == 500 && f.header.is_some()).unwrap();
    assert!(matches!(torn.verdict, Verdict::Torn { by: b, .. } if b == by), "{torn:?}");
}

/// A ring whose FPGA skips the gap: the slot behind the newest frame keeps an old header.
fn skipped_gap(chunks: u64) -> (Pen, u64) {
    let mut pen = Pen::new(4096, true);
    // Slots of 352 bytes do not divide the ring, the last of 576 does what is left.
    (0..10).for_each(|_| _ = pen.frame(285));
    pen.frame(500);
    assert_eq!(pen.cursor % 4096, 0);
    let slot = FrameHeader(*chunk(&pen.ring, 352 - 32));
    pen.frame(285);
    pen.put(pen.cursor - 32, &FrameHeader::synthesise(slot.geometry(), 285).0);
    pen.begin(chunks);
    let start = pen.cursor % 4096;
    (pen, start)
}

#[test]
fn where_a_skipped_gap_hides_the_writer_only_the_counters_tell() {
    assert_eq!(slot(285), 352);
    let (pen, start) = skipped_gap(3);
    let image = RingImage::new(pen.ring).unwrap();
    let at = |found: Vec<Found>| *found.iter().find(|f| f.start == start).unwrap();
    assert_eq!(at(image.frames()).verdict, Verdict::Whole);
    let writer = Writer {
        epoch: 0,
        written: pen.cursor,
        reserved: pen.cursor + 96,
        complete: pen.cursor,
        frames: 12,
    };
    let torn = Verdict::Torn { tear: Tear::Counters, by: Overwriter::Unfinished };
    assert_eq!(at(image.with_writer(writer).frames()).verdict, torn);
}

#[test]
fn a_frame_of_which_the_writer_has_passed_the_end_is_torn_by_it() {
    let (pen, start) = skipped_gap(10);
    let found = frames(pen.ring);
    let torn = found.iter().find(|f| f.start == start).unwrap();
    let verdict = Verdict::Torn { tear: Tear::NoTrailer, by: Overwriter::Unfinished };
    assert_eq!(torn.verdict, verdict);
}

#[test]
fn frames_from_before_a_reset_are_stale_to_the_counters() {
    let mut pen = Pen::new(4096, true);
    let starts = [100, 100, 100].map(|length| pen.frame(length));
    let written = starts[1];
    let writer = Writer { epoch: 1, written, reserved: written, complete: written, frames: 1 };
    let found = RingImage::new(pen.ring).unwrap().with_writer(writer).frames();
    let verdicts: Vec<Verdict> = found.iter().map(|f| f.verdict).collect();
    let stale = Verdict::Stale { by: Overwriter::Restart };
    assert_eq!(verdicts, [Verdict::Whole, stale, stale]);
}

#[test]
fn counters_agree_with_the_bytes_on_every_lap() {
    let mut pen = Pen::new(4096, true);
    for n in 0..300u32 {
        pen.frame(1 + (n * 37) % 800);
        let writer = pen.writer();
        let image = RingImage::new(pen.ring.clone()).unwrap().with_writer(writer);
        assert_eq!(sound(&image.frames()), pen.standing(pen.cursor), "frame {n}");
    }
}

#[test]
fn sizes_that_are_no_ring_are_refused() {
    for bytes in [0, 32, 33, 95] {
        assert_eq!(RingImage::new(vec![0; bytes]).unwrap_err(), NoRing { bytes });
    }
    assert!(frames(vec![0; 64]).is_empty());
    assert!(frames(vec![0xFF; 4096]).is_empty());
}

#[test]
fn a_million_trailers_that_claim_everything_are_judged_in_linear_time() {
    let mut trailer = [0; 32];
    trailer[28..].copy_from_slice(&0xFF7F_FF00u32.to_le_bytes());
    let found = frames(trailer.repeat(1 << 20));
    assert!(sound(&found).len() <= 4, "they overlap");
}

fn any_chunk() -> impl Strategy<Value = [u8; 32]> {
    let trailer = (0u32..4, 0u32..900).prop_map(|(sec, length)| {
        let mut chunk = [0; 32];
        chunk[20..24].copy_from_slice(&sec.to_le_bytes());
        chunk[28..].copy_from_slice(&(0xFF00_0000 | length).to_le_bytes());
        chunk
    });
    let header =
        (0u32..900).prop_map(|length| FrameHeader::synthesise(Geometry::default(), length).0);
    prop_oneof![Just([0; 32]), Just([0xFF; 32]), trailer, header, any::<[u8; 32]>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn whatever_the_bytes_sound_frames_are_apart_and_true(
        chunks in proptest::collection::vec(any_chunk(), 2..40),
        writer in proptest::option::of(any::<[u64; 5]>()),
    ) {
        let mut image = RingImage::new(chunks.concat()).unwrap();
        image.writer = writer.map(|[epoch, written, reserved, complete, frames]| Writer { epoch, written, reserved, complete, frames });
        let ring_bytes = image.ring_bytes();
        let mut owner = vec![false; image.bytes.len()];
        for found in image.frames().iter().filter(|found| found.is_sound()) {
            for at in 0..padded(found.length) {
                let taken = &mut owner[((found.start + at) % ring_bytes) as usize];
                prop_assert!(!*taken, "{found:?}");
                *taken = true;
            }
            let byte = |at: u64| image.bytes[((found.start + at) % ring_bytes) as usize];
            let length = u64::from(found.length);
            prop_assert!((1..length).all(|at| (byte(at - 1), byte(at)) != (0xFF, 0xFF)));
            prop_assert!((length..padded(found.length) - 12).all(|at| byte(at) == 0));
        }
    }
}
