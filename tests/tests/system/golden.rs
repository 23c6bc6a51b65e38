//! Bytes written by hand, every residue and every wrap.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use circbuf_abi::registers as reg;
use circbuf_abi::ring::NC353_RING_BYTES;
use circbuf_driver::device::Device;
use circbuf_driver::record::{PAYLOAD_OFFSET, frame_body_bytes, record_bytes};
use circbuf_driver::ring::{FrameHeader, Timestamp};
use circbuf_driver::slab::SlabPool;
use circbuf_driver::tail::{StartAt, Step, Tail};
use circbuf_driver::validate::{Candidate, copy_and_check};
use circbuf_emulator::fpga::{Fpga, Progress, Setup};
use circbuf_emulator::model::{FrameTime, Gap, Geometry};
use circbuf_emulator::ring_file::RingFile;
use circbuf_tests::{GAPS, SteppedCamera, content, picture};

/// The seed's listing without its marks: word addresses and words.
const LISTING: &str = "
    4b7ff8: 000000a4 06000800 016c0120 0a3946c1 01ab010a 40404040 ffff0000 000378fe
    000000: d30b03cc 8af1dc34 a5875e77 9d4cf334 204db683 b1533cc7 c59f949e 36b1af45
    000008: 90e20102 5e9ad7f1 f68cd273 130a1dc5 7e50641c 41bd14ef 140720c5 73c0e02e
    00de38: 20a50766 4e433fc9 7614f51c 087bd2e4 988ee64e cdf41ca0 6af40e1c 0000003b
    00de40: 00000000 00000000 00000000 00000000 00000000 46ff4a82 000303bd ff0378fe
    00de48: f6285e9f aeacb0a5 00000000 00000000 00000000 46ff4a81 000a1930 ff037929
    00de50: 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000
";
const LENGTH: usize = 0x378FE;
const LENGTH_OLDER: usize = 0x37929;
const TIME: Timestamp = Timestamp { sec: 0x46FF_4A82, usec: 0x0003_03BD };

/// Byte offsets and bytes of the listing's rows.
fn rows() -> Vec<(usize, Vec<u8>)> {
    let hex = |text: &str| u32::from_str_radix(text, 16).unwrap();
    let rows = LISTING.trim().lines().map(|line| {
        let (word, words) = line.trim().split_once(": ").unwrap();
        let bytes = words.split(' ').flat_map(|word| hex(word).to_le_bytes()).collect();
        (hex(word) as usize * 4, bytes)
    });
    rows.collect()
}

/// A ring with the seed's words in their places, zeros elsewhere.
fn hand_made_ring() -> Vec<u8> {
    let mut ring = vec![0; NC353_RING_BYTES as usize];
    for (at, bytes) in rows() {
        ring[at..at + 32].copy_from_slice(&bytes);
    }
    ring
}

fn file_of(bytes: &[u8]) -> File {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file
}

/// Frames that are found whole, their headers and payloads, until nothing comes for so many polls.
fn read_all(
    tail: &mut Tail,
    device: &Device,
    polls: usize,
) -> Vec<(Candidate, FrameHeader, Vec<u8>)> {
    let pool = SlabPool::new(1 << 20);
    let (mut found, mut idle) = (Vec::new(), 0);
    while idle < polls {
        match tail.poll(device).unwrap() {
            Step::Idle => idle += 1,
            Step::Lost(loss) => panic!("{loss:?}"),
            Step::Frame(candidate) => {
                let length = candidate.trailer.length;
                let mut slab = pool.take(record_bytes(frame_body_bytes(length))).unwrap();
                copy_and_check(device, &candidate, &mut slab).unwrap();
                let header =
                    FrameHeader(slab[PAYLOAD_OFFSET - 32..PAYLOAD_OFFSET].try_into().unwrap());
                found.push((candidate, header, slab[PAYLOAD_OFFSET..][..length as usize].to_vec()));
            }
        }
    }
    found
}

#[test]
fn the_driver_reads_the_listing_and_nothing_else_in_it() {
    let bytes = hand_made_ring();
    let ring = file_of(&bytes);
    let device = Device::from_fds(&ring, None::<OwnedFd>).unwrap();
    let mut tail = Tail::attach(&device, StartAt::Oldest).unwrap();
    let found = read_all(&mut tail, &device, 3);
    let [(candidate, header, payload)] = &found[..] else { panic!("{} frames", found.len()) };
    assert_eq!((candidate.start, candidate.trailer.time, candidate.stamped), (0, TIME, true));
    assert_eq!(candidate.next(), 0xDE50 * 4);
    assert_eq!(header.0[..], rows()[0].1);
    assert_eq!(payload[..], bytes[..LENGTH]);
    // Long enough for the search of the whole ring: the stale trailer is none, then as now.
    for poll in 0..520 {
        assert_eq!(tail.poll(&device).unwrap(), Step::Idle, "poll {poll}");
    }
}

#[test]
fn the_driver_reads_the_listing_by_a_register_page_made_by_hand() {
    let ring = file_of(&hand_made_ring());
    for stamped in [1, 0] {
        let mut page = vec![0; reg::PAGE_BYTES];
        let mut put =
            |at: usize, value: u64| page[at..at + 8].copy_from_slice(&value.to_le_bytes());
        put(0x000, u64::from_le_bytes(*b"CIRCREGS"));
        put(0x008, 1);
        put(0x010, NC353_RING_BYTES);
        put(0x018, 0x40000);
        put(0x038, stamped);
        for cursor in [0x110, 0x140, 0x180] {
            put(cursor, 0x37940);
        }
        put(0x118, 6);
        let device = Device::from_fds(&ring, Some(file_of(&page))).unwrap();
        let mut tail = Tail::attach(&device, StartAt::Oldest).unwrap();
        let found = read_all(&mut tail, &device, 3);
        let [(candidate, ..)] = &found[..] else { panic!("{} frames", found.len()) };
        assert_eq!((candidate.start, candidate.sequence, candidate.trailer.time), (0, 5, TIME));
        assert_eq!(tail.expected(&device), Some(1));
    }
}

#[test]
fn the_fpga_writes_the_listing_and_the_driver_does_not_take_the_stale_row() {
    let by_hand = hand_made_ring();
    for (stamped, with_counters) in [(true, true), (true, false), (false, true), (false, false)] {
        let file = RingFile::memfd(NC353_RING_BYTES).unwrap();
        let ring = File::from(file.ring_fd().try_clone_to_owned().unwrap());
        let geometry = Geometry { width: 2048, height: 1536, quality2: 0x5050, color_mode: 0 };
        let payload_bytes_max = 0x40000;
        let setup =
            Setup { gap: Gap::Late, stamped, payload_bytes_max, geometry, frame_period_ns: 0 };
        let mut fpga = Fpga::new(file, setup).unwrap();
        let registers = with_counters.then(|| fpga.file().registers_fd());
        let device = Device::from_fds(fpga.file().ring_fd(), registers).unwrap();

        let mut older = vec![0x11; LENGTH_OLDER];
        older[0x37920..].copy_from_slice(&rows()[5].1[..9]);
        let time = FrameTime { sec: 0x46FF_4A81, usec: 0x000A_1930 };
        write(&mut fpga, &older, time);
        assert_eq!(fpga.cursor(), 0x37960);
        fpga.reset();
        let mut newer = by_hand[..LENGTH].to_vec();
        newer[64..0xDE38 * 4].fill(0x22);
        write(&mut fpga, &newer, FrameTime { sec: TIME.sec, usec: TIME.usec });

        let written = content(&ring);
        for (at, bytes) in &rows()[1..] {
            assert_eq!(written[*at..at + 32], bytes[..], "row {:06x}", at / 4);
        }
        let slot = &written[0x12D_FFE0..];
        assert_eq!(slot[26..] == rows()[0].1[26..], stamped);
        assert_eq!(written[..LENGTH], newer);

        let mut tail = Tail::attach(&device, StartAt::Oldest).unwrap();
        let found = read_all(&mut tail, &device, 3);
        let [(candidate, _, payload)] = &found[..] else { panic!("{} frames", found.len()) };
        assert_eq!((candidate.start, candidate.trailer.time), (0, TIME));
        assert_eq!((payload, tail.cursor()), (&newer, 0x37940));
    }
}

fn write(fpga: &mut Fpga, payload: &[u8], time: FrameTime) {
    fpga.begin(&picture(payload), time).unwrap();
    while fpga.step(payload, 8192) == Progress::Writing {}
}

/// Fpga and driver step by step in one thread: nothing is lost or altered, whatever the length and
/// wherever the frame wraps.
#[test]
fn every_residue_at_every_place_of_the_ring() {
    const RING: u64 = 4096;
    for gap in GAPS {
        for stamped in [true, false] {
            for with_counters in [true, false] {
                let mut camera = SteppedCamera::new(RING, 900, gap, stamped);
                let device = camera.device(with_counters);
                let mut tail = Tail::attach(&device, StartAt::Newest).unwrap();
                let (mut starts, mut residues) = (BTreeSet::new(), BTreeSet::new());
                for number in 0..1500 {
                    // 37 and 900 share no factor: all lengths are met.
                    let length = 1 + number as usize * 37 % 900;
                    camera.emit(length);
                    let case = || format!("{gap:?} {stamped} {with_counters}, frame {number}");
                    // In an empty ring of bare bytes the first frame is found by a search.
                    let polls = if number == 0 { 520 } else { 1 };
                    let found = read_all(&mut tail, &device, polls);
                    let [(candidate, _, payload)] = &found[..] else {
                        panic!("{}: {} frames", case(), found.len())
                    };
                    let truth = camera.truth(number).unwrap();
                    assert_eq!(payload, &truth.payload, "{}", case());
                    assert_eq!((candidate.sequence, candidate.start), (number, truth.entry.start));
                    starts.insert(truth.entry.start % RING);
                    residues.insert(length % 32);
                }
                assert_eq!((starts.len(), residues.len()), (128, 32), "all were met");
            }
        }
    }
}
