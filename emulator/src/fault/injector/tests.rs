//! What each kind does to the bytes of a small ring, written down by hand.
use std::fs::File;
use std::os::unix::fs::FileExt;

use circbuf_abi::registers as reg;

use super::*;
use crate::fpga::{Progress, Setup};
use crate::ledger::LedgerEntry;
use crate::model::Geometry;
use crate::ring_file::RingFile;

const RING_BYTES: u64 = 4096;

/// Frame 0 is exposed then, each that follows a second later.
const SEC: u32 = 0x46FF_4A82;
const USEC: u32 = 0x0003_03BD;

/// An FPGA with an injector, and what they wrote.
struct Rig {
    fpga: Fpga,
    injector: Injector,
    ring: File,
    registers: File,
    ledger: Vec<LedgerEntry>,
}

impl Rig {
    fn new(faults: &Faults, (gap, stamped): (Gap, bool)) -> Self {
        let file = RingFile::memfd(RING_BYTES).unwrap();
        let setup = Setup {
            gap,
            stamped,
            payload_bytes_max: faults.payload_bytes_max(900, RING_BYTES),
            geometry: Geometry::default(),
            frame_period_ns: 0,
        };
        let fpga = Fpga::new(file, setup).unwrap();
        let ring: File = fpga.file().ring_fd().try_clone_to_owned().unwrap().into();
        ring.write_all_at(&[0xEE; RING_BYTES as usize], 0).unwrap();
        Self {
            injector: Injector::new(faults, &fpga).unwrap(),
            ring,
            registers: fpga.file().registers_fd().try_clone_to_owned().unwrap().into(),
            fpga,
            ledger: Vec::new(),
        }
    }

    /// Three frames of 40 bytes on a stamped ring, the second one struck: its slot is at 64, its
    /// payload at 96, its trailer at 148, its gap at 160.
    fn struck(kind: FaultKind, seed: u64) -> Self {
        let mut rig = Self::new(&at(kind, 1, seed), (Gap::Zero, true));
        (0..3).for_each(|_| rig.write(&payload(40)));
        rig
    }

    fn begin(&mut self, payload: &[u8]) -> Doctored<'static> {
        let picture = picture(payload);
        let time = FrameTime { sec: SEC + self.ledger.len() as u32, usec: USEC };
        let frame = self.injector.frame(&self.fpga, &picture, time).unwrap().into_owned();
        self.fpga.begin_doctored(&frame);
        self.ledger.push(frame.ledger_entry(&self.fpga));
        frame
    }

    fn write(&mut self, payload: &[u8]) {
        let frame = self.begin(payload);
        while self.fpga.step(frame.payload(), 64) == Progress::Writing {}
    }

    fn at(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.ring.read_exact_at(&mut bytes, offset).unwrap();
        bytes
    }

    /// Like [`at`](Self::at), with the ring's end before its start.
    fn wrapped(&self, offset: u64, length: usize) -> Vec<u8> {
        let ring = self.at(0, RING_BYTES as usize).repeat(2);
        ring[(offset % RING_BYTES) as usize..][..length].to_vec()
    }

    fn register(&self, field: usize) -> u64 {
        let mut bytes = [0; 8];
        self.registers.read_exact_at(&mut bytes, field as u64).unwrap();
        u64::from_le_bytes(bytes)
    }

    /// Asserts that the ledger says of frame 1 that it has this fault, and of the others nothing.
    fn assert_marked(&self, kind: FaultKind, damaged: bool) {
        for (number, entry) in self.ledger.iter().enumerate() {
            assert_eq!(entry.number, number as u64);
            let struck: Vec<_> = entry.faults.iter().collect();
            let expected = if number == 1 { vec![kind] } else { vec![] };
            assert_eq!((struck, entry.damaged), (expected, damaged && number == 1), "{entry:?}");
        }
        assert_eq!(self.injector.tally().by_kind().collect::<Vec<_>>(), [(kind, 1)]);
    }
}

fn at(kind: FaultKind, number: u64, seed: u64) -> Faults {
    let faults = vec![format!("{kind}@{number}").parse().unwrap()];
    Faults { seed, faults }
}

fn payload(bytes: usize) -> Vec<u8> {
    (1..=bytes).map(|at| at as u8 & 0x7F).collect()
}

fn picture(payload: &[u8]) -> Picture<'_> {
    Picture { payload, crc32c: None, quality2: 0x5050, color_mode: 0, width: 2048, height: 1536 }
}

/// A trailer, by hand.
fn trailer(sec: u32, usec: u32, length: u32) -> Vec<u8> {
    [sec.to_le_bytes(), usec.to_le_bytes(), (0xFF00_0000 | length).to_le_bytes()].concat()
}

/// A frame of 40 bytes with its zeros.
fn frame_of_40(trailer: &[u8]) -> Vec<u8> {
    [&payload(40), &[0; 12][..], trailer].concat()
}

#[test]
fn an_aborted_frame_has_the_trailer_of_the_one_before() {
    let mut lengths = std::collections::BTreeSet::new();
    for seed in 0..300 {
        let rig = Rig::struck(FaultKind::Aborted, seed);
        rig.assert_marked(FaultKind::Aborted, true);
        let entry = rig.ledger[1];
        let cut = entry.length as usize;
        lengths.insert(cut);
        // So many chunks until the trailer fits behind the cut.
        let padded = if cut <= 16 { 32 } else { 64 };
        let stale = trailer(SEC, USEC, 40);
        let expected = [&payload(40)[..cut], &vec![0; padded - 12 - cut], &stale].concat();
        assert_eq!(rig.at(96, padded), expected);
        assert_eq!(rig.at(64 + 26, 6), [0xFF, 0xFF, 40, 0, 0, 0]);
        assert_eq!(entry.crc32c, crc_fast::crc32_iscsi(&payload(40)[..cut]));
        assert_eq!((entry.sec, entry.undetectable), (SEC + 1, false));
        assert_eq!(rig.fpga.cursor(), 96 + padded as u64 + 32 + 96);
    }
    assert!(lengths.into_iter().eq(1..40));
    // Behind a reset the latches are empty.
    let mut rig = Rig::new(&at(FaultKind::Aborted, 0, 1), (Gap::Zero, true));
    rig.write(&payload(16));
    assert_eq!(rig.at(20, 12), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF]);
}

#[test]
fn zeros_stand_where_a_trailer_is_missing() {
    let rig = Rig::struck(FaultKind::NoTrailer, 1);
    rig.assert_marked(FaultKind::NoTrailer, true);
    assert_eq!(rig.at(96, 64), frame_of_40(&[0; 12]));
    assert_eq!(rig.at(64 + 26, 6), [0xFF, 0xFF, 0, 0, 0, 0]);
    assert_eq!(rig.at(192, 64), frame_of_40(&trailer(SEC + 2, USEC, 40)));
}

#[test]
fn bad_trailers_are_bad_in_six_ways() {
    let mut seen = [0; 6];
    for seed in 0..300 {
        let rig = Rig::struck(FaultKind::BadTrailer, seed);
        rig.assert_marked(FaultKind::BadTrailer, true);
        let frame = rig.at(96, 64);
        assert_eq!(frame[..52], frame_of_40(&[])[..]);
        let word = |at: usize| u32::from_le_bytes(frame[at..at + 4].try_into().unwrap());
        let (usec, length, marker) = (word(56), word(60) & 0xFF_FFFF, frame[63]);
        assert_eq!(word(52), SEC + 1);
        let way = match (usec, length, marker) {
            (USEC, 0, 0xFF) => 0,
            (USEC, 0xFF_FFFF, 0xFF) => 1,
            (USEC, 72, 0xFF) => 2,
            (USEC, 8, 0xFF) => 3,
            (1_000_000..1_048_576, 40, 0xFF) => 4,
            (USEC, 40, 0..=0xFE) => 5,
            other => panic!("{other:?}"),
        };
        seen[way] += 1;
        // The handler stamps what it reads.
        let stamped = [&[0xFF, 0xFF][..], &length.to_le_bytes()].concat();
        assert_eq!(rig.at(64 + 26, 6), stamped);
        assert_eq!((rig.ledger[1].usec, rig.ledger[1].undetectable), (USEC, false));
    }
    assert!(seen.iter().all(|&times| times > 20), "{seen:?}");
}

#[test]
fn ff_ff_stands_in_an_unescaped_payload() {
    for seed in 0..100 {
        let rig = Rig::struck(FaultKind::Unescaped, seed);
        rig.assert_marked(FaultKind::Unescaped, true);
        let bytes = rig.at(96, 40);
        let changed: Vec<_> = (0..40).filter(|&at| bytes[at] != payload(40)[at]).collect();
        let [first, second] = changed[..] else { panic!("{changed:?}") };
        assert_eq!((first + 1, bytes[first], bytes[second]), (second, 0xFF, 0xFF));
        assert_eq!(rig.ledger[1].crc32c, crc_fast::crc32_iscsi(&bytes));
        assert!(!rig.ledger[1].undetectable);
    }
}

#[test]
fn a_flip_changes_one_bit_and_what_the_handler_makes_of_it() {
    let sound = Rig::struck(FaultKind::Stall, 1).at(64, 96);
    let mut places = [0; 3];
    for seed in 0..300 {
        let rig = Rig::struck(FaultKind::BitFlip, seed);
        rig.assert_marked(FaultKind::BitFlip, true);
        let bytes = rig.at(64, 96);
        let flipped = |range: std::ops::Range<usize>| -> u32 {
            range.map(|at| (bytes[at] ^ sound[at]).count_ones()).sum()
        };
        let (header, payload, zeros, trailer) =
            (flipped(0..32), flipped(32..72), flipped(72..84), flipped(84..96));
        let of_length = flipped(92..95);
        match (payload, trailer, header) {
            (1, 0, 0) => places[0] += 1,
            // A length that was read wrong is stamped.
            (0, 1, stamped) if stamped == of_length => places[1] += 1,
            (0, 0, 1) => places[2] += 1,
            other => panic!("{other:?}"),
        }
        assert_eq!(zeros, 0);
    }
    assert!(places.iter().all(|&times| times > 70), "{places:?}");
}

#[test]
fn a_clock_that_is_set_stays_so() {
    let times = |kind, seed| {
        let rig = Rig::struck(kind, seed);
        rig.assert_marked(kind, false);
        let [first, second, third] = [0, 1, 2].map(|number| rig.ledger[number].sec);
        assert_eq!(rig.at(148, 4), second.to_le_bytes());
        assert_eq!((first, third), (SEC, second + 1));
        i64::from(second) - i64::from(first + 1)
    };
    for seed in 0..50 {
        assert!((1..=3600).contains(&times(FaultKind::TimeForward, seed)));
        assert!((-3600..=-1).contains(&times(FaultKind::TimeBack, seed)));
    }
    let rig = Rig::struck(FaultKind::TimeRepeat, 1);
    rig.assert_marked(FaultKind::TimeRepeat, false);
    assert_eq!([0, 1, 2].map(|number| rig.ledger[number].sec), [SEC, SEC, SEC + 2]);
}

#[test]
fn a_gap_is_left_or_zeroed_late() {
    let gap_behind_the_second = |kind, next_begins: bool| {
        let mut rig = Rig::new(&at(kind, 1, 1), (Gap::Zero, true));
        rig.write(&payload(40));
        rig.write(&payload(40));
        rig.assert_marked(kind, false);
        if next_begins {
            let frame = rig.begin(&payload(40));
            rig.fpga.step(frame.payload(), 32);
        }
        rig.at(160, 32)
    };
    assert_eq!(gap_behind_the_second(FaultKind::GapSkip, false), [0xEE; 32]);
    assert_eq!(gap_behind_the_second(FaultKind::GapSkip, true), [0xEE; 32]);
    assert_eq!(gap_behind_the_second(FaultKind::GapLate, false), [0xEE; 32]);
    assert_eq!(gap_behind_the_second(FaultKind::GapLate, true), [0; 32]);
    assert_eq!(gap_behind_the_second(FaultKind::Stall, false), [0; 32]);
}

#[test]
fn a_header_is_clobbered_or_never_stamped() {
    let mut zeroed = 0;
    for seed in 0..40 {
        let rig = Rig::struck(FaultKind::HeaderClobbered, seed);
        rig.assert_marked(FaultKind::HeaderClobbered, true);
        assert_ne!(rig.at(64 + 26, 2), [0xFF, 0xFF]);
        zeroed += usize::from(rig.at(64, 32) == [0; 32]);
        assert_eq!(rig.at(96, 64), frame_of_40(&trailer(SEC + 1, USEC, 40)));
    }
    assert!((5..35).contains(&zeroed));
    let rig = Rig::struck(FaultKind::IrqLost, 1);
    rig.assert_marked(FaultKind::IrqLost, true);
    assert_eq!(rig.at(64, 32), [0; 32]);
    assert_eq!(rig.at(96, 64), frame_of_40(&trailer(SEC + 1, USEC, 40)));
    assert_eq!((rig.register(reg::COMPLETE), rig.register(reg::FRAMES)), (288, 3));
    // The next header carries the next number of the handler, which did not see this frame.
    assert_eq!(rig.at(160 + 24, 4), [2, 0, 0xFF, 0xFF]);
}

/// Where nothing zeroes the slot, a header of the lap before can pass for the one that is missing.
#[test]
fn an_old_header_hides_that_there_is_no_new_one() {
    for (gap, undetectable) in [(Gap::Skip, true), (Gap::Late, false), (Gap::Zero, false)] {
        // 64 slots of 64 bytes are a lap.
        let mut rig = Rig::new(&at(FaultKind::IrqLost, 70, 1), (gap, true));
        (0..71).for_each(|_| rig.write(&payload(9)));
        assert_eq!((rig.ledger[70].damaged, rig.ledger[70].undetectable), (true, undetectable));
    }
}

#[test]
fn coalesced_interrupts_publish_two_frames_and_stamp_one() {
    let mut rig = Rig::new(&at(FaultKind::IrqCoalesced, 1, 1), (Gap::Zero, true));
    let counters = |rig: &Rig| (rig.register(reg::COMPLETE), rig.register(reg::FRAMES));
    rig.write(&payload(40));
    rig.write(&payload(40));
    assert_eq!((counters(&rig), rig.register(reg::WRITTEN)), ((96, 1), 192));
    rig.write(&payload(40));
    assert_eq!(counters(&rig), (288, 3));
    assert_eq!(rig.at(64, 32), [0; 32]);
    assert_eq!(rig.at(160 + 24, 8), [2, 0, 0xFF, 0xFF, 40, 0, 0, 0]);
    rig.assert_marked(FaultKind::IrqCoalesced, true);
    // The end does not leave it unpublished.
    let mut rig = Rig::new(&at(FaultKind::IrqCoalesced, 0, 1), (Gap::Zero, true));
    rig.write(&payload(40));
    assert_eq!(counters(&rig), (0, 0));
    rig.fpga.end();
    assert_eq!(counters(&rig), (96, 1));
}

#[test]
fn another_geometry_lasts_until_the_next_fault() {
    let faults = Faults { seed: 1, faults: vec!["geometry@1".parse().unwrap()] };
    let mut faults = faults;
    faults.faults.push("geometry@3".parse().unwrap());
    let mut rig = Rig::new(&faults, (Gap::Zero, true));
    (0..5).for_each(|_| rig.write(&payload(40)));
    let parameters = |number: usize| rig.wrapped(rig.ledger[number].start + RING_BYTES - 16, 8);
    let camera = [0x50, 0x50, 0, 0, 0x00, 0x08, 0x00, 0x06];
    let other = [70, 70, 14, 0, 64, 0, 48, 0];
    assert_eq!([0, 1, 2, 3, 4].map(parameters), [camera, other, other, camera, camera]);
    let entries = &rig.ledger;
    assert!(entries[1].crc32c == entries[2].crc32c && entries[1].length > 40);
    assert!(entries[3].crc32c == crc_fast::crc32_iscsi(&payload(40)));
    let marked: Vec<_> = entries.iter().map(|entry| !entry.faults.is_empty()).collect();
    assert_eq!(marked, [false, true, false, true, false]);
}

#[test]
fn slots_are_fitted_to_the_end_of_the_ring() {
    for seed in 0..50 {
        let mut rig = Rig::new(&at(FaultKind::ExactWrap, 1, seed), (Gap::Zero, true));
        // 4096 - 3 * 960 = 1216; 256 are left behind another one.
        (0..5).for_each(|_| rig.write(&payload(900)));
        assert_eq!(rig.ledger[4].start, 3840);
        assert!(rig.ledger[4].faults.contains(FaultKind::ExactWrap));
        assert_eq!((rig.fpga.cursor(), rig.register(reg::COMPLETE)), (4096, 4096));
        assert_eq!(rig.at(4064, 32), [0; 32]);
        assert_eq!(rig.at(4060, 4), (0xFF00_0000 | rig.ledger[4].length).to_le_bytes());
        assert!((177..=208).contains(&rig.ledger[4].length), "{:?}", rig.ledger[4]);

        let mut rig = Rig::new(&at(FaultKind::PointerOff, 1, seed), (Gap::Zero, true));
        (0..5).for_each(|_| rig.write(&payload(900)));
        assert!(rig.ledger[4].faults.contains(FaultKind::PointerOff) && !rig.ledger[4].damaged);
        assert_eq!((rig.fpga.cursor(), rig.register(reg::COMPLETE)), (4128, 4096));
        assert_eq!(rig.register(reg::WRITTEN), 4128);
        assert_eq!(rig.at(4092, 4), (0xFF00_0000 | rig.ledger[4].length).to_le_bytes());
        rig.write(&payload(900));
        assert_eq!(rig.register(reg::COMPLETE), 5088);
    }
}

#[test]
fn equal_slots_meet_those_of_the_lap_before() {
    let mut rig = Rig::new(&at(FaultKind::AlignedLap, 1, 1), (Gap::Zero, true));
    // The largest divisor of 4096 that is not above a slot of 960 is 512.
    (0..20).for_each(|_| rig.write(&payload(900)));
    let starts: Vec<_> = rig.ledger.iter().map(|entry| entry.start).collect();
    assert!((1..17).all(|number| starts[number + 1] - starts[number] == 512), "{starts:?}");
    assert!((1..9).all(|number| rig.ledger[number].offset == rig.ledger[number + 8].offset));
    let marked = rig.ledger.iter().filter(|entry| !entry.faults.is_empty()).count();
    assert_eq!((marked, rig.injector.tally().faults(), rig.ledger[17].length), (16, 1, 900));
}

#[test]
fn a_sprint_is_a_ring_and_a_slot_long() {
    let mut rig = Rig::new(&at(FaultKind::Sprint, 1, 1), (Gap::Zero, true));
    let sprints: Vec<_> = (0..60)
        .map(|_| {
            let frame = rig.begin(&payload(40));
            while rig.fpga.step(frame.payload(), 64) == Progress::Writing {}
            frame.sprints()
        })
        .collect();
    // 4096 + 960 bytes in slots of 96, rounded up.
    let expected: Vec<_> = (0..60).map(|number| (1..=53).contains(&number)).collect();
    assert_eq!(sprints, expected);
    assert!(rig.ledger.iter().all(|entry| !entry.damaged));
}

#[test]
fn a_restart_begins_an_epoch_and_a_stall_is_told() {
    let rig = Rig::struck(FaultKind::Restart, 1);
    rig.assert_marked(FaultKind::Restart, false);
    let places: Vec<_> = rig.ledger.iter().map(|entry| (entry.epoch, entry.start)).collect();
    assert_eq!(places, [(0, 0), (1, 0), (1, 96)]);
    assert_eq!((rig.register(reg::EPOCH), rig.register(reg::FRAMES)), (1, 3));
    assert_eq!(rig.at(52, 12), trailer(SEC + 1, USEC, 40));
    let mut rig = Rig::new(&at(FaultKind::Stall, 0, 1), (Gap::Zero, true));
    let stall_ns = rig.begin(&payload(40)).stall_ns();
    assert!((10_000_000..=100_000_000).contains(&stall_ns));
}

#[test]
fn sizes_reach_from_the_smallest_slot_to_a_third_of_the_ring() {
    let faults = Faults::from_toml("[[fault]]\nkind = \"sizes\"\nrate = 1.0").unwrap();
    let mut rig = Rig::new(&faults, (Gap::Zero, true));
    assert_eq!(rig.register(reg::MAX_SLOT_BYTES), 1024);
    (0..1000).for_each(|_| rig.write(&payload(40)));
    let small = rig.ledger.iter().filter(|entry| entry.length <= 16).count();
    let longest = rig.ledger.iter().map(|entry| entry.length).max().unwrap();
    // Slots of 1344 bytes are the largest that fit in a third of 4096.
    assert!((400..600).contains(&small) && (1200..=1296).contains(&longest), "{small} {longest}");
}

mod judge;
mod mixed;
