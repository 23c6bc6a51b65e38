use std::fs::File;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;

use circbuf_abi::registers as reg;

use super::*;
use crate::clock::{Clock, VIRTUAL_START_SEC};
use crate::fpga::Setup;
use crate::model::{Gap, Geometry};

static GO: AtomicBool = AtomicBool::new(false);

fn channel(ring_bytes: u64, pace: Pace) -> Channel {
    let setup = Setup {
        gap: Gap::Zero,
        stamped: true,
        payload_bytes_max: (ring_bytes / 4 - 96) as u32,
        geometry: Geometry::default(),
        frame_period_ns: pace.frame_period_ns(),
    };
    pace.check().unwrap();
    let fpga = Fpga::new(RingFile::memfd(ring_bytes).unwrap(), setup).unwrap();
    Channel::new(fpga, &pace).with_ledger(Ledger::in_memory())
}

fn picture(payload: &[u8]) -> Picture<'_> {
    Picture { payload, crc32c: None, quality2: 0, color_mode: 0, width: 0, height: 0 }
}

/// Waits as in front of a sound frame.
fn wait(channel: &Channel, payload: &[u8], stop: &AtomicBool) {
    let frame = Doctored::sound(&picture(payload), FrameTime::default());
    channel.wait_for_credit(&frame, stop);
}

/// Emits one frame as the camera does; the time of its exposure.
fn emit(channel: &mut Channel, clock: &mut RunningClock, payload: &[u8]) -> FrameTime {
    let exposure = channel.expose(clock);
    clock.sleep_until(exposure.at_ns, &GO);
    let picture = picture(payload);
    let frame = channel.make(&picture, exposure).unwrap();
    channel.emit(&frame, exposure, clock, &GO);
    exposure.time
}

#[test]
fn virtual_time_follows_the_frame_rate() {
    let mut channel = channel(65536, Pace { fps: Some(12.0), bus_bytes_per_s: None });
    let mut clock = Clock::Virtual.start();
    let times: Vec<_> = (0..13).map(|_| emit(&mut channel, &mut clock, &[1; 100])).collect();
    assert_eq!(times[0], FrameTime { sec: VIRTUAL_START_SEC, usec: 0 });
    assert_eq!(times[1], FrameTime { sec: VIRTUAL_START_SEC, usec: 83_333 });
    assert_eq!(times[12], FrameTime { sec: VIRTUAL_START_SEC + 1, usec: 0 });
    assert_eq!(channel.report(EndedBy::Frames).late_frames, 0);
}

#[test]
fn a_bus_too_slow_for_the_frame_rate_makes_frames_late() {
    let bus_bytes_per_s = NonZeroU64::new(100_000);
    let mut channel = channel(65536, Pace { fps: Some(100.0), bus_bytes_per_s });
    let mut clock = Clock::Virtual.start();
    for _ in 0..10 {
        emit(&mut channel, &mut clock, &[1; 10_000]);
    }
    // A slot of 10,048 bytes takes 100.48 ms; nine of them lie before the last frame.
    let begun_ns = clock.now_ns() - 100_480_000;
    assert!(begun_ns.abs_diff(9 * 100_480_000) < 10, "{begun_ns}");
    let report = channel.report(EndedBy::Frames);
    assert_eq!(report.late_frames, 9);
    let behind_ms = report.slip_max.as_secs_f64() * 1e3;
    assert!((behind_ms - (9.0 * 100.48 - 90.0)).abs() < 0.001, "{behind_ms}");
}

#[test]
fn without_a_pace_every_frame_is_a_microsecond_later() {
    let mut channel = channel(65536, Pace::UNPACED);
    let mut clock = Clock::Virtual.start();
    let micros: Vec<_> = (0..5).map(|_| emit(&mut channel, &mut clock, &[1; 100]).usec).collect();
    assert_eq!(micros, [0, 1, 2, 3, 4]);
    // A clock that stands still or goes back does not take the timestamps along.
    let mut clock = Clock::Virtual.start();
    assert_eq!(emit(&mut channel, &mut clock, &[1; 100]).usec, 5);
    assert_eq!(emit(&mut channel, &mut clock, &[1; 100]).usec, 6);
}

#[test]
fn real_timestamps_increase_without_a_pace() {
    let mut channel = channel(65536, Pace::UNPACED);
    let mut clock = Clock::Real.start();
    let times: Vec<_> = (0..10_000).map(|_| emit(&mut channel, &mut clock, &[1])).collect();
    assert!(times.is_sorted_by(|before, after| before < after));
}

#[test]
fn the_ledger_tells_where_every_frame_is() {
    let mut channel = channel(4096, Pace::UNPACED);
    let emitted = channel.emitted();
    let mut clock = Clock::Virtual.start();
    for length in [9, 900, 900, 900, 900, 900] {
        emit(&mut channel, &mut clock, &b"123456789".repeat(length / 9));
    }
    assert_eq!((emitted.frames(), emitted.payload_bytes()), (6, 4509));
    let report = channel.report(EndedBy::Frames);
    assert_eq!((report.frames, report.payload_bytes), (6, 4509));
    // The check value of CRC-32C.
    assert_eq!(report.ledger[0].crc32c, 0xE306_9283);
    let places: Vec<_> =
        report.ledger.iter().map(|entry| (entry.number, entry.start, entry.offset)).collect();
    // Slots of 64 and 960 bytes in a ring of 4096.
    assert_eq!(
        places,
        [
            (0, 0, 0),
            (1, 64, 64),
            (2, 1024, 1024),
            (3, 1984, 1984),
            (4, 2944, 2944),
            (5, 3904, 3904)
        ]
    );
    assert!(report.ledger.iter().all(|entry| entry.epoch == 0));
    assert_eq!(report.ledger[5].time(), FrameTime { sec: VIRTUAL_START_SEC, usec: 5 });
}

/// The driver's next header slot, in front of what it has released, is not touched either.
#[test]
fn a_lossless_camera_waits_for_the_slot_and_what_stands_in_front() {
    let credit = Arc::new(AtomicU64::new(0));
    let mut channel = channel(4096, Pace::UNPACED).with_credit(Some(Arc::clone(&credit)));
    let mut clock = Clock::Virtual.start();
    let payload = [1; 912];
    for _ in 0..4 {
        wait(&channel, &payload, &GO);
        emit(&mut channel, &mut clock, &payload);
    }
    assert_eq!(channel.fpga.cursor(), 4 * 960);
    // 256 bytes are left in front of the driver's first frame: 32 of them are its header slot, and
    // 32 end in the trailer that it compares with its own.
    let blocked = |channel: &Channel, bytes: usize| {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| wait(channel, &[1; 912][..bytes], &stop));
            for _ in 0..1000 {
                std::thread::yield_now();
            }
            let blocked = !waiting.is_finished();
            stop.store(true, Ordering::Relaxed);
            blocked
        })
    };
    assert!(blocked(&channel, 145), "a slot of 224 bytes would take the trailer in front");
    // A slot of 192 bytes returns at once, without a stop.
    wait(&channel, &payload[..144], &GO);
    credit.store(767, Ordering::Release);
    assert!(blocked(&channel, 912));
    credit.store(768, Ordering::Release);
    wait(&channel, &payload, &GO);
    // No driver could ever release enough for this one.
    let exposure = channel.expose(&clock);
    channel.make(&picture(&[1; 4096]), exposure).unwrap_err();
}

/// Nothing is reset that the driver has not read, and nothing is written before it has seen the
/// reset: until then its credit is a cursor of another epoch.
#[test]
fn a_lossless_camera_waits_on_both_sides_of_a_restart() {
    let credit = Arc::new(AtomicU64::new(0));
    let faults = Faults { seed: 1, faults: vec!["restart@2".parse().unwrap()] };
    let mut channel = channel(4096, Pace::UNPACED)
        .with_faults(&faults)
        .unwrap()
        .with_credit(Some(Arc::clone(&credit)));
    let page = File::from(channel.ring().registers_fd().try_clone_to_owned().unwrap());
    let counter = |field: usize| {
        let mut bytes = [0; 8];
        page.read_exact_at(&mut bytes, field as u64).unwrap();
        u64::from_le_bytes(bytes)
    };
    let mut clock = Clock::Virtual.start();
    let camera = std::thread::spawn(move || {
        for _ in 0..3 {
            let exposure = channel.expose(&clock);
            let frame = channel.make(&picture(&[1; 912]), exposure).unwrap();
            channel.wait_for_credit(&frame, &GO);
            channel.emit(&frame, exposure, &mut clock, &GO);
        }
        channel.frames()
    });
    let yield_while = |holds: &dyn Fn() -> bool| {
        while holds() {
            std::thread::yield_now()
        }
    };
    yield_while(&|| counter(reg::FRAMES) < 2);
    credit.store(1919, Ordering::Release);
    (0..1000).for_each(|_| std::thread::yield_now());
    assert_eq!((counter(reg::EPOCH), counter(reg::FRAMES)), (0, 2));
    credit.store(1920, Ordering::Release);
    yield_while(&|| counter(reg::EPOCH) == 0);
    (0..1000).for_each(|_| std::thread::yield_now());
    assert_eq!(counter(reg::RESERVED), 0, "the credit is still one of the epoch before");
    credit.store(0, Ordering::Release);
    assert_eq!(camera.join().unwrap(), 3);
    assert_eq!(counter(reg::COMPLETE), 960);
}

#[test]
fn a_stop_leaves_the_frame_whole_however_slow_the_bus() {
    let mut channel = channel(65536, Pace { fps: None, bus_bytes_per_s: NonZeroU64::new(1) });
    let mut clock = Clock::Real.start();
    let exposure = channel.expose(&clock);
    let stop = AtomicBool::new(true);
    let frame = channel.make(&picture(&[1; 16_000]), exposure).unwrap();
    channel.emit(&frame, exposure, &mut clock, &stop);
    assert_eq!(channel.frames(), 1);
}

#[test]
fn a_camera_that_panics_in_a_frame_says_that_it_has_ended() {
    let mut channel = channel(65536, Pace::UNPACED);
    let page = File::from(channel.ring().registers_fd().try_clone_to_owned().unwrap());
    let state = || {
        let mut bytes = [0; 4];
        page.read_exact_at(&mut bytes, reg::STATE as u64).unwrap();
        u32::from_le_bytes(bytes)
    };
    let mut clock = Clock::Virtual.start();
    emit(&mut channel, &mut clock, &[1; 100]);
    assert_eq!(state(), reg::STATE_RUNNING);
    let camera = std::thread::spawn(move || {
        // The FPGA is in the middle of another frame, which is a bug that it asserts.
        let time = channel.expose(&clock).time;
        channel.fpga.begin(&picture(&[1; 100]), time).unwrap();
        emit(&mut channel, &mut clock, &[1; 100]);
    });
    assert!(camera.join().is_err());
    assert_eq!(state(), reg::STATE_ENDED);
}
