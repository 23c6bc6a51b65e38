use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use circbuf_abi::registers as reg;

use super::*;
use crate::fault::{Fault, FaultKind, When};
use crate::ledger::LedgerEntry;
use crate::source::{SourceOptions, SourceSpec};

fn noise(bytes_min: u32, bytes_max: u32) -> Source {
    let spec = SourceSpec::Noise { bytes_min, bytes_max };
    Source::open(&spec, &SourceOptions::default()).unwrap()
}

fn quick(limit: Limit) -> Options {
    Options {
        pace: Pace::UNPACED,
        clock: Clock::Virtual,
        limit,
        ledger: Ledger::in_memory(),
        ..Options::of(Model::Nc353)
    }
}

fn frames(frames: u64) -> Limit {
    Limit { frames: Some(frames), time: None }
}

fn owned(fd: impl AsFd) -> File {
    fd.as_fd().try_clone_to_owned().unwrap().into()
}

fn read(file: &File, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let run = || {
        let ring = RingFile::memfd(65536).unwrap();
        let (bytes, registers) = (owned(ring.ring_fd()), owned(ring.registers_fd()));
        let camera = Camera::new(ring, noise(100, 9000), quick(frames(50))).unwrap();
        let report = camera.run(&AtomicBool::new(false)).unwrap();
        assert_eq!((report.frames, report.ended_by), (50, EndedBy::Frames));
        (read(&bytes, 65536), read(&registers, 4096), report.ledger)
    };
    assert!(run() == run());
}

/// The ledger is the truth: what it says of the last frames is found in the ring.
#[test]
fn the_ring_holds_what_the_ledger_says() {
    let ring = RingFile::memfd(65536).unwrap();
    let (bytes, registers) = (owned(ring.ring_fd()), owned(ring.registers_fd()));
    let camera = Camera::new(ring, noise(1, 16_000), quick(frames(100))).unwrap();
    let emitted = camera.emitted();
    let report = camera.run(&AtomicBool::new(false)).unwrap();
    let lap = read(&bytes, 65536).repeat(2);
    for entry in report.ledger.iter().rev().take(2) {
        let payload = &lap[entry.offset as usize..][..entry.length as usize];
        assert_eq!(crc_fast::crc32_iscsi(payload), entry.crc32c, "{entry:?}");
    }
    assert_eq!(report.ledger.len(), 100);
    assert_eq!(emitted.payload_bytes(), report.payload_bytes);
    let sum: u64 = report.ledger.iter().map(|entry| u64::from(entry.length)).sum();
    assert_eq!(sum, report.payload_bytes);
    assert_eq!(read(&registers, 4096)[reg::STATE..][..4], reg::STATE_ENDED.to_le_bytes());
}

#[test]
fn a_camera_ends_by_its_limits() {
    let run = |limit, pace| {
        let ring = RingFile::memfd(65536).unwrap();
        let options = Options { pace, ..quick(limit) };
        let report = Camera::new(ring, noise(100, 200), options)
            .unwrap()
            .run(&AtomicBool::new(false))
            .unwrap();
        (report.frames, report.ended_by)
    };
    let twelve = Pace { fps: Some(12.0), bus_bytes_per_s: None };
    let time = |seconds| Limit { frames: None, time: Some(Duration::from_secs(seconds)) };
    assert_eq!(run(time(20), twelve), (240, EndedBy::Time));
    assert_eq!(run(time(0), twelve), (0, EndedBy::Time));
    assert_eq!(run(frames(0), twelve), (0, EndedBy::Frames));
    let both = Limit { frames: Some(7), ..time(20) };
    assert_eq!(run(both, twelve), (7, EndedBy::Frames));
    // Virtual time comes to its end without a pace too.
    let short = Limit { frames: None, time: Some(Duration::from_millis(2)) };
    assert_eq!(run(short, Pace::UNPACED), (2000, EndedBy::Time));
}

#[test]
fn a_thread_is_stopped_and_leaves_whole_frames() {
    let ring = RingFile::memfd(65536).unwrap();
    let registers = owned(ring.registers_fd());
    let options = Options { clock: Clock::Real, ..quick(Limit::default()) };
    let camera = Camera::new(ring, noise(100, 9000), options).unwrap();
    let emitted = camera.emitted();
    let thread = camera.spawn().unwrap();
    while emitted.frames() < 10 {
        assert!(!thread.is_finished());
        std::thread::yield_now();
    }
    thread.stop();
    let report = thread.join().unwrap();
    assert_eq!(report.ended_by, EndedBy::Stop);
    let page = read(&registers, 4096);
    let counter = |field: usize| u64::from_le_bytes(page[field..][..8].try_into().unwrap());
    assert_eq!(counter(reg::FRAMES), report.frames);
    assert_eq!(counter(reg::COMPLETE), counter(reg::RESERVED));
    assert_eq!(counter(reg::COMPLETE), counter(reg::WRITTEN));
}

/// Reads frame after frame through descriptors of its own, as a driver would, and releases each
/// behind it. Returns start and CRC-32C of every frame.
fn follow(
    (ring, registers): &(File, File),
    credit: &AtomicU64,
    camera: &CameraThread,
) -> Vec<(u64, u32)> {
    let counter = |field: usize| {
        let mut bytes = [0; 8];
        registers.read_exact_at(&mut bytes, field as u64).unwrap();
        u64::from_le_bytes(bytes)
    };
    let (mut frames, mut start) = (Vec::new(), 0);
    loop {
        let ended = camera.is_finished();
        if counter(reg::COMPLETE) > start {
            let lap = read(ring, 65536).repeat(2);
            let slot = &lap[((start + 65536 - 32) % 65536) as usize..][..65536];
            let length = u32::from_le_bytes(slot[28..32].try_into().unwrap());
            assert_eq!(slot[26..28], [0xFF, 0xFF], "stamped before complete");
            assert!(counter(reg::RESERVED) <= start + 65536 - 32, "the camera did not wait");
            frames.push((start, crc_fast::crc32_iscsi(&slot[32..][..length as usize])));
            start += u64::from((length + 15) & !31) + 64;
            credit.store(start, Ordering::Release);
        } else if ended {
            return frames;
        } else {
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_driver_of_a_lossless_camera_sees_every_frame() {
    let ring = RingFile::memfd(65536).unwrap();
    let files = (owned(ring.ring_fd()), owned(ring.registers_fd()));
    let credit = Arc::new(AtomicU64::new(0));
    let options = Options { credit: Some(Arc::clone(&credit)), ..quick(frames(500)) };
    let thread = Camera::new(ring, noise(1, 16_000), options).unwrap().spawn().unwrap();
    let seen = follow(&files, &credit, &thread);
    let report = thread.join().unwrap();
    let truth: Vec<_> = report.ledger.iter().map(|entry| (entry.start, entry.crc32c)).collect();
    assert_eq!(truth.len(), 500);
    assert!(seen == truth);
}

#[test]
fn a_lossless_camera_that_nobody_reads_can_be_stopped() {
    let ring = RingFile::memfd(65536).unwrap();
    let credit = Some(Arc::new(AtomicU64::new(0)));
    let options = Options { clock: Clock::Real, credit, ..quick(Limit::default()) };
    let camera = Camera::new(ring, noise(1000, 1000), options).unwrap();
    let emitted = camera.emitted();
    let thread = camera.spawn().unwrap();
    // Slots of 1056 bytes.
    while emitted.frames() < 62 {
        assert!(!thread.is_finished());
        std::thread::yield_now();
    }
    thread.stop();
    let report = thread.join().unwrap();
    assert_eq!((report.frames, report.ended_by), (62, EndedBy::Stop));
}

#[test]
fn what_cannot_be_is_refused_before_the_first_frame() {
    let make = |ring_bytes, fps| {
        let pace = Pace { fps: Some(fps), bus_bytes_per_s: None };
        let options = Options { pace, ..quick(frames(1)) };
        let ring = RingFile::memfd(ring_bytes).unwrap();
        Camera::new(ring, noise(100, 100_000), options).unwrap_err().to_string()
    };
    assert!(make(65536, 12.0).contains("the smallest ring that would do has"));
    assert!(make(1 << 20, 0.0).contains("a frame rate of 0.0 per second"));
}

/// Releases the ring as soon as it is published, whatever is in it, until the camera has ended.
fn release(registers: &File, credit: &AtomicU64, camera: &CameraThread) {
    while !camera.is_finished() {
        let page = read(registers, 4096);
        let counter = |field: usize| u64::from_le_bytes(page[field..][..8].try_into().unwrap());
        credit.store(counter(reg::COMPLETE), Ordering::Release);
        std::thread::yield_now();
    }
}

/// Runs with these faults, with or without somebody for whom the camera waits.
fn run_with(faults: Faults, lossless: bool) -> Report {
    let ring = RingFile::memfd(65536).unwrap();
    let registers = owned(ring.registers_fd());
    let credit = lossless.then(|| Arc::new(AtomicU64::new(0)));
    let pace = Pace { fps: Some(1000.0), bus_bytes_per_s: Model::Nc353.bus_bytes_per_s().into() };
    let options = Options { credit: credit.clone(), faults, pace, ..quick(frames(600)) };
    let thread = Camera::new(ring, noise(64, 4000), options).unwrap().spawn().unwrap();
    if let Some(credit) = credit {
        release(&registers, &credit, &thread);
    }
    let report = thread.join().unwrap();
    let page = read(&registers, 4096);
    assert_eq!(page[reg::FRAMES..][..8], 600_u64.to_le_bytes());
    assert_eq!((report.frames, report.ledger.len()), (600, 600));
    let touched = report.ledger.iter().filter(|entry| !entry.faults.is_empty()).count();
    assert_eq!(report.faults.frames(), touched as u64);
    report
}

#[test]
fn every_fault_alone_and_all_of_them_mixed_come_to_an_end() {
    for lossless in [true, false] {
        let mut every = Vec::new();
        for kind in FaultKind::ALL {
            let fault = Fault { kind, when: When::Every(50) };
            every.push(Fault { kind, when: When::Rate(0.05) });
            let report = run_with(Faults { seed: 1, faults: vec![fault] }, lossless);
            let kinds: Vec<_> = report.faults.by_kind().map(|(kind, _)| kind).collect();
            assert_eq!(kinds, [kind]);
            // Pauses of 10 ms and more at 1000 frames a second.
            assert_eq!(report.late_frames > 0, kind == FaultKind::Stall, "{kind}");
        }
        run_with(Faults { seed: 1, faults: every }, lossless);
    }
}

/// In virtual time the pauses are computed: a stall and a sprint show in the times of frames.
#[test]
fn a_sprint_does_not_wait_for_its_time() {
    let report = run_with(Faults { seed: 1, faults: vec!["sprint@100".parse().unwrap()] }, false);
    let sprint: Vec<_> =
        report.ledger.iter().filter(|entry| !entry.faults.is_empty()).copied().collect();
    let bytes = sprint.last().unwrap().start - sprint[0].start;
    assert!(bytes >= 65536 && sprint[0].number == 100, "{bytes}");
    let micros = |entry: &LedgerEntry| entry.time().as_nanos() / 1000;
    // Frame 100 waited for its time, the others follow by the least that a trailer can tell; the
    // schedule goes on behind them as if they had not been.
    assert!(sprint.windows(2).all(|pair| micros(&pair[1]) == micros(&pair[0]) + 1));
    let last = sprint.last().unwrap().number as usize;
    assert_eq!(micros(&report.ledger[last + 1]) - micros(&sprint[0]), 1000);
}

#[test]
fn every_frame_and_the_end_raise_the_interrupt() {
    use nix::sys::eventfd::EventFd;
    let ring = RingFile::memfd(65536).unwrap();
    let camera = Camera::new(ring, noise(100, 9000), quick(frames(50))).unwrap();
    let line = EventFd::new().unwrap();
    camera.emitted().connect(owned(&line).into());
    camera.run(&AtomicBool::new(false)).unwrap();
    assert_eq!(line.read(), Ok(50 + 1));
}

#[test]
fn a_delayed_camera_leaves_the_ring_empty_and_can_be_stopped() {
    let ring = RingFile::memfd(65536).unwrap();
    let registers = owned(ring.registers_fd());
    let camera = Camera::new(ring, noise(100, 9000), quick(frames(50))).unwrap();
    let camera = camera.spawn_after(Duration::from_secs(1000)).unwrap();
    camera.stop();
    let report = camera.join().unwrap();
    assert_eq!((report.frames, report.ended_by), (0, EndedBy::Stop));
    assert_eq!(read(&registers, 4096)[reg::FRAMES..][..8], [0; 8]);
}
