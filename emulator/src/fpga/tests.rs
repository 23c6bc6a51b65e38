use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use circbuf_abi::registers as reg;
use circbuf_abi::ring::NC353_RING_BYTES;

use super::*;

/// What a driver sees: the memory of a camera, read through descriptors of its own.
struct Witness {
    ring: File,
    registers: File,
    ring_bytes: usize,
}

impl Witness {
    fn of(file: &RingFile) -> Self {
        Self {
            ring: file.ring_fd().try_clone_to_owned().unwrap().into(),
            registers: file.registers_fd().try_clone_to_owned().unwrap().into(),
            ring_bytes: file.ring_bytes() as usize,
        }
    }

    fn ring(&self) -> Vec<u8> {
        self.at(0, self.ring_bytes)
    }

    fn at(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.ring.read_exact_at(&mut bytes, offset).unwrap();
        bytes
    }

    fn fill(&self, byte: u8) {
        self.ring.write_all_at(&vec![byte; self.ring_bytes], 0).unwrap();
    }

    fn u64(&self, field: usize) -> u64 {
        let mut bytes = [0; 8];
        self.registers.read_exact_at(&mut bytes, field as u64).unwrap();
        u64::from_le_bytes(bytes)
    }

    fn u32(&self, field: usize) -> u32 {
        self.u64(field) as u32
    }
}

fn fpga(ring_bytes: u64, payload_bytes_max: u32, gap: Gap, stamped: bool) -> (Fpga, Witness) {
    let file = RingFile::memfd(ring_bytes).unwrap();
    let geometry = Geometry { width: 64, height: 48, quality2: 80, color_mode: 0 };
    let setup = Setup { gap, stamped, payload_bytes_max, geometry, frame_period_ns: 0 };
    let fpga = Fpga::new(file, setup).unwrap();
    let witness = Witness::of(fpga.file());
    (fpga, witness)
}

fn picture(payload: &[u8]) -> Picture<'_> {
    Picture { payload, crc32c: None, quality2: 0x4650, color_mode: 0, width: 2048, height: 1536 }
}

fn write(fpga: &mut Fpga, payload: &[u8], time: FrameTime) {
    fpga.begin(&picture(payload), time).unwrap();
    while fpga.step(payload, 96) == Progress::Writing {}
}

const TIME: FrameTime = FrameTime { sec: 0x46FF_4A82, usec: 0x0003_03BD };

/// A payload that shows where its bytes go.
fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 254 + 1) as u8).collect()
}

/// A naive twin: the frame as a stream of bytes, from the design's picture of it.
fn naive_frame(payload: &[u8], time: FrameTime) -> Vec<u8> {
    let mut bytes = payload.to_vec();
    bytes.extend([0; 4]);
    while bytes.len() % 32 != 20 {
        bytes.push(0);
    }
    bytes.extend(time.sec.to_le_bytes());
    bytes.extend(time.usec.to_le_bytes());
    bytes.extend((payload.len() as u32).to_le_bytes());
    *bytes.last_mut().unwrap() = 0xFF;
    bytes
}

/// Zeros between payload and trailer by length modulo 32, copied from the table in the facts.
const ZEROS: [usize; 32] = [
    20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 35, 34, 33, 32, 31, 30, 29, 28,
    27, 26, 25, 24, 23, 22, 21,
];

#[test]
fn every_residue_has_its_zeros_its_trailer_and_its_gap() {
    for length in (1..=96).chain(4095..4130) {
        let (mut fpga, witness) = fpga(32768, 5000, Gap::Zero, false);
        witness.fill(0xEE);
        let payload = payload(length);
        write(&mut fpga, &payload, TIME);
        let frame = naive_frame(&payload, TIME);
        assert_eq!(frame.len(), length + ZEROS[length % 32] + 12, "length {length}");
        let ring = witness.ring();
        assert_eq!(ring[..frame.len()], frame, "length {length}");
        let next = frame.len() + 32;
        assert_eq!(ring[frame.len()..next], [0; 32], "length {length}");
        assert!(ring[next..].iter().all(|byte| *byte == 0xEE), "length {length}");
        assert_eq!(fpga.cursor(), next as u64);
        assert_eq!(slot_bytes(length as u32), next as u64);
    }
}

#[test]
fn frames_wrap_at_every_chunk_with_every_residue() {
    let gaps = [Gap::Zero, Gap::Late, Gap::Skip];
    for (gap, stamped) in gaps.into_iter().flat_map(|gap| [(gap, true), (gap, false)]) {
        let (mut fpga, witness) = fpga(4096, 900, gap, stamped);
        let mut twin = vec![0xEE; 4096];
        witness.fill(0xEE);
        let (mut starts, mut residues) = (BTreeSet::new(), BTreeSet::new());
        for number in 0..5000_usize {
            // 37 and 900 share no factor, so that all lengths are met.
            let payload = payload(1 + number * 37 % 900);
            let time = TIME.plus_nanos(number as u64 * 1000);
            let start = fpga.cursor() as usize;
            write(&mut fpga, &payload, time);

            let slot = (start + 4096 - 32) % 4096;
            let mut put = |at: usize, bytes: &[u8]| {
                for (index, byte) in bytes.iter().enumerate() {
                    twin[(at + index) % 4096] = *byte;
                }
            };
            if gap == Gap::Late && number > 0 {
                put(slot, &[0; 32]);
            }
            let frame = naive_frame(&payload, time);
            put(start, &frame);
            if gap == Gap::Zero {
                put(start + frame.len(), &[0; 32]);
            }
            if stamped {
                put(slot, &header(number, payload.len()));
            }
            starts.insert(start % 4096);
            residues.insert(payload.len() % 32);
            if number % 50 == 0 || number > 4900 {
                assert!(witness.ring() == twin, "{gap:?}, stamped {stamped}, frame {number}");
            }
        }
        assert!(witness.ring() == twin, "{gap:?}");
        assert_eq!((starts.len(), residues.len()), (4096 / 32, 32), "all were met");
    }
}

/// The frame header of frame `number`, written by hand.
fn header(number: usize, length: usize) -> [u8; 32] {
    let meta = ((number % 2048) as u16 + 1).to_le_bytes();
    let length = (length as u32).to_le_bytes();
    #[rustfmt::skip]
    let bytes = [
        0x00, 0x04, 57, 10, 0x00, 0x04, 57, 10, 0x00, 0x04, 57, 10, 0x00, 0x04, 57, 10,
        0x50, 0x46, 0x00, 0x00, 0x00, 0x08, 0x00, 0x06,
        meta[0], meta[1], 0xFF, 0xFF, length[0], length[1], length[2], 0x00,
    ];
    bytes
}

/// The seed's listing, all of it: two frames that both began at the start of the ring, with a
/// reset between them; the gap behind the second one still shows the first one's trailer.
#[test]
fn the_listing_of_the_seed() {
    let (mut fpga, witness) = fpga(NC353_RING_BYTES, 300_000, Gap::Late, true);
    let mut older = vec![0x11; 0x37929];
    older[0x37920..].copy_from_slice(&[0x9F, 0x5E, 0x28, 0xF6, 0xA5, 0xB0, 0xAC, 0xAE, 0x00]);
    write(&mut fpga, &older, FrameTime { sec: 0x46FF_4A81, usec: 0x000A_1930 });
    assert_eq!(fpga.cursor(), 0x37960);

    fpga.reset();
    let mut newer = vec![0x22; 0x378FE];
    newer[..4].copy_from_slice(&[0xCC, 0x03, 0x0B, 0xD3]);
    newer[0x378F8..].copy_from_slice(&[0x1C, 0x0E, 0xF4, 0x6A, 0x3B, 0x00]);
    write(&mut fpga, &newer, FrameTime { sec: 0x46FF_4A82, usec: 0x0003_03BD });
    assert_eq!(fpga.cursor(), 0x37940);

    assert_eq!(
        witness.at(0x012D_FFE0 + 16, 16),
        // quality2, colour mode, Bayer shift | 2048 | 1536 | meta index | signature | length
        [0x50, 0x46, 0, 0, 0x00, 0x08, 0x00, 0x06, 2, 0, 0xFF, 0xFF, 0xFE, 0x78, 0x03, 0x00]
    );
    assert_eq!(witness.at(0, 4), [0xCC, 0x03, 0x0B, 0xD3]);
    #[rustfmt::skip]
    assert_eq!(witness.at(0x378F8, 0x68), [
        // 00de3e
        0x1C, 0x0E, 0xF4, 0x6A, 0x3B, 0x00, 0x00, 0x00,
        // 00de40
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0x82, 0x4A, 0xFF, 0x46, 0xBD, 0x03, 0x03, 0x00, 0xFE, 0x78, 0x03, 0xFF,
        // 00de48, stale
        0x9F, 0x5E, 0x28, 0xF6, 0xA5, 0xB0, 0xAC, 0xAE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0x81, 0x4A, 0xFF, 0x46, 0x30, 0x19, 0x0A, 0x00, 0x29, 0x79, 0x03, 0xFF,
        // 00de50
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ]);
    assert_eq!((witness.u64(reg::EPOCH), witness.u64(reg::FRAMES)), (1, 2));
    assert_eq!(witness.u64(reg::COMPLETE), 0x37940);

    // The next frame's first chunk takes the stale bytes away.
    fpga.begin(&picture(&newer), TIME.plus_nanos(1_000_000)).unwrap();
    fpga.step(&newer, 32);
    assert_eq!(witness.at(0x37940, 4), [0xCC, 0x03, 0x0B, 0xD3]);
    assert_eq!(witness.at(0x37920, 32), [0; 32]);
}

#[test]
fn the_register_page_describes_the_ring() {
    let (mut fpga, witness) = fpga(8192, 1000, Gap::Zero, true);
    assert_eq!(witness.u64(reg::MAGIC).to_le_bytes(), *b"CIRCREGS");
    assert_eq!(witness.u32(reg::VERSION), 1);
    assert_eq!(witness.u32(reg::STATE), reg::STATE_IDLE);
    assert_eq!(witness.u64(reg::RING_BYTES), 8192);
    assert_eq!(witness.u64(reg::MAX_SLOT_BYTES), 1056);
    assert_eq!((witness.u32(reg::WIDTH), witness.u32(reg::HEIGHT)), (64, 48));
    assert_eq!((witness.u32(reg::QUALITY2), witness.u32(reg::FLAGS)), (80, 1));
    write(&mut fpga, &[7], TIME);
    assert_eq!(witness.u32(reg::STATE), reg::STATE_RUNNING);
    fpga.end();
    assert_eq!(witness.u32(reg::STATE), reg::STATE_ENDED);
}

/// Whole frames at once, and chunk after chunk, over every length and many wraps.
#[test]
fn a_burst_of_any_size_leaves_the_same_bytes() {
    for gap in [Gap::Zero, Gap::Late, Gap::Skip] {
        let bursts = [32, 4096, u64::MAX];
        let mut cameras = bursts.map(|burst_bytes| (fpga(65536, 16_000, gap, true), burst_bytes));
        for number in 0..400_usize {
            let payload = payload(1 + number * 1237 % 16_000);
            let time = TIME.plus_nanos(number as u64 * 1000);
            for ((fpga, _), burst_bytes) in &mut cameras {
                fpga.begin(&picture(&payload), time).unwrap();
                while fpga.step(&payload, *burst_bytes) == Progress::Writing {}
            }
            if number % 20 == 19 {
                let rings = cameras.each_ref().map(|((_, witness), _)| witness.ring());
                assert!(rings[0] == rings[1] && rings[0] == rings[2], "{gap:?}, frame {number}");
            }
        }
    }
}

/// Another thread looks while whole frames are written at once, until it has often seen one that is
/// not whole: what `written` tells is there, unless `reserved` says that it has been overwritten since.
#[test]
fn what_is_written_of_a_burst_is_there() {
    const RING_BYTES: u64 = 1 << 20;
    let (mut fpga, witness) = fpga(RING_BYTES, 200_000, Gap::Zero, false);
    let payload = payload(200_000);
    let slot = [naive_frame(&payload, TIME), vec![0; 32]].concat();
    let has_seen_enough = AtomicBool::new(false);
    let mut within_frames = 0;
    std::thread::scope(|scope| {
        let camera = scope.spawn(|| {
            let enough = || has_seen_enough.load(Ordering::Relaxed);
            (0..100_000).take_while(|_| !enough()).for_each(|_| write_at_once(&mut fpga, &payload));
        });
        while within_frames < 100 && !camera.is_finished() {
            let written = witness.u64(reg::WRITTEN);
            let within = (written % slot.len() as u64) as usize;
            let bytes = within.min(4096).min((written % RING_BYTES) as usize);
            let seen = witness.at((written - bytes as u64) % RING_BYTES, bytes);
            fence(Ordering::Acquire);
            if witness.u64(reg::RESERVED) <= written - bytes as u64 + RING_BYTES {
                within_frames += u32::from(bytes > 0);
                assert!(seen == slot[within - bytes..within], "{bytes} bytes below {written}");
            }
        }
        has_seen_enough.store(true, Ordering::Relaxed);
    });
    assert_eq!(within_frames, 100, "frames were seen before they were whole");
}

fn write_at_once(fpga: &mut Fpga, payload: &[u8]) {
    fpga.begin(&picture(payload), TIME).unwrap();
    while fpga.step(payload, u64::MAX) == Progress::Writing {}
}

/// At every step: nothing at or above `reserved` is touched, everything below `written` is there,
/// and `complete` moves with the stamp only.
#[test]
fn the_counters_tell_the_truth_at_every_step() {
    for stamped in [true, false] {
        let (mut fpga, witness) = fpga(8192, 1000, Gap::Zero, stamped);
        witness.fill(0xEE);
        let payload = payload(1000);
        let frame = [naive_frame(&payload, TIME), vec![0; 32]].concat();
        fpga.begin(&picture(&payload), TIME).unwrap();
        let mut steps = 0;
        loop {
            let progress = fpga.step(&payload, 128);
            steps += 1;
            let (reserved, written) = (witness.u64(reg::RESERVED), witness.u64(reg::WRITTEN));
            assert_eq!(reserved, written);
            assert_eq!(written, (steps * 128).min(1056));
            let ring = witness.at(0, 8192 - 32);
            assert_eq!(ring[..written as usize], frame[..written as usize]);
            assert!(ring[reserved as usize..].iter().all(|byte| *byte == 0xEE));
            let slot = witness.at(8192 - 32, 32);
            if progress == Progress::Whole {
                let expected = if stamped { header(0, 1000) } else { [0xEE; 32] };
                assert_eq!(slot, expected);
                break;
            }
            assert_eq!(slot, [0xEE; 32]);
            assert_eq!((witness.u64(reg::COMPLETE), witness.u64(reg::FRAMES)), (0, 0));
        }
        assert_eq!(steps, 1056_u64.div_ceil(128) + 1, "the interrupt is a step of its own");
        assert_eq!((witness.u64(reg::COMPLETE), witness.u64(reg::FRAMES)), (1056, 1));
        assert!(witness.u64(reg::UPDATE).is_multiple_of(2));
    }
}

#[test]
fn a_reset_returns_the_cursors_and_abandons_the_frame() {
    let (mut fpga, witness) = fpga(8192, 1000, Gap::Zero, true);
    write(&mut fpga, &[1; 100], TIME);
    fpga.begin(&picture(&[2; 100]), TIME).unwrap();
    fpga.step(&[2; 100], 64);
    fpga.reset();
    let cursors = [reg::RESERVED, reg::WRITTEN, reg::COMPLETE].map(|field| witness.u64(field));
    assert_eq!(cursors, [0; 3]);
    assert_eq!((witness.u64(reg::EPOCH), witness.u64(reg::FRAMES)), (1, 1));
    write(&mut fpga, &[3; 100], TIME);
    assert_eq!(witness.at(0, 100), [3; 100]);
    assert_eq!((fpga.epoch(), fpga.frames(), fpga.cursor()), (1, 2, 160));
}

#[test]
fn what_does_not_fit_is_refused_with_its_numbers() {
    let (mut fpga, _) = fpga(4096, 900, Gap::Zero, true);
    let error = fpga.begin(&picture(&[]), TIME).unwrap_err().to_string();
    assert_eq!(error, "a payload of 0 bytes, but a frame has 1 to 16777215");
    let error = fpga.begin(&picture(&[1; 960]), TIME).unwrap_err();
    assert_eq!(
        error,
        FrameError::Slot { payload_bytes: 960, slot_bytes: 1024, max_slot_bytes: 960 }
    );
    // What was refused leaves no trace.
    write(&mut fpga, &[1; 900], TIME);
    let file = RingFile::memfd(4096).unwrap();
    let geometry = Geometry::default();
    let setup = Setup {
        gap: Gap::Zero,
        stamped: true,
        payload_bytes_max: 1000,
        geometry,
        frame_period_ns: 0,
    };
    let error = Fpga::new(file, setup).unwrap_err().to_string();
    assert!(error.contains("the smallest ring that would do has 8192 bytes"), "{error}");
}
