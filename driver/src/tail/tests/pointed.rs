//! Tailing behind a pointer, in virtual time: the bus moves a byte a nanosecond.

use std::io;
use std::sync::{Arc, Mutex};

use super::super::{StartAt, Step, Tail};
use crate::device::{Device, DeviceError};
use crate::hand_camera::HandCamera;
use crate::loss::{Loss, LossReason, Refusal};
use crate::pointer::Sighting;
use crate::ring::slot;
use crate::slab::SlabPool;
use crate::validate::{Candidate, check_in_place, copy_and_check};

const RING: u64 = 256 << 10;
const FRAME_MAX: u32 = 10_000;

/// Payload of a slot of 8192 bytes, which divides the ring.
const OF_8192: usize = 8192 - 64;

/// A camera, its driver, and the moment that the next look is at.
struct Scene {
    camera: HandCamera,
    script: Arc<Mutex<Option<Sighting>>>,
    now_ns: u64,
    device: Device,
    tail: Tail,
}

impl Scene {
    fn new(frames: u64, start: StartAt) -> Scene {
        let mut camera = HandCamera::new(RING, true);
        (0..frames).for_each(|_| camera.emit(1000));
        let now = Sighting { pointer: camera.next % RING, before_ns: 0, after_ns: 0 };
        let script = Arc::new(Mutex::new(Some(now)));
        let told = Arc::clone(&script);
        let look = move || told.lock().unwrap().ok_or(io::Error::other("unplugged"));
        let device = Device::with_pointer(&camera.ring, Some(FRAME_MAX), look).unwrap();
        let device = device.with_bus_rate(1_000_000_000);
        let tail = Tail::attach(&device, start).unwrap();
        Scene { camera, script, now_ns: 0, device, tail }
    }

    /// The pointer is there, so many nanoseconds later.
    fn point(&mut self, pointer: u64, later_ns: u64) {
        self.now_ns += later_ns;
        let (before_ns, after_ns) = (self.now_ns, self.now_ns);
        *self.script.lock().unwrap() = Some(Sighting { pointer, before_ns, after_ns });
    }

    /// The pointer is behind the last frame.
    fn follow(&mut self, later_ns: u64) {
        self.point(self.camera.next % RING, later_ns);
    }

    fn poll(&mut self) -> Step {
        self.tail.poll(&self.device).unwrap()
    }

    fn poll_after(&mut self, later_ns: u64) -> Step {
        self.follow(later_ns);
        self.poll()
    }

    /// The next frame, once its header has stood long enough.
    fn frame(&mut self) -> Candidate {
        for _ in 0..3 {
            if let Step::Frame(candidate) = self.poll_after(60_000) {
                return candidate;
            }
        }
        panic!("no frame: {:?}", self.tail)
    }

    fn lost(&mut self) -> Loss {
        match self.poll() {
            Step::Lost(loss) => loss,
            step => panic!("{step:?}"),
        }
    }
}

#[test]
fn frames_are_counted_across_the_end_of_the_ring() {
    let mut scene = Scene::new(3, StartAt::Newest);
    let pool = SlabPool::new(64 << 10);
    for number in 3..600 {
        scene.camera.emit(1000 + number as usize % 7);
        let candidate = scene.frame();
        assert_eq!(candidate.sequence, number);
        copy_and_check(&scene.device, &candidate, &mut pool.take(4096).unwrap()).unwrap();
    }
    assert!(scene.camera.next > 2 * RING && scene.tail.is_exact());
    assert_eq!(scene.tail.expected(&scene.device), Some(597));
}

#[test]
fn a_slot_that_ends_with_the_ring_is_followed_by_either_pointer() {
    for pointer in [0, RING] {
        let mut scene = Scene::new(0, StartAt::Newest);
        let mut wraps = 0;
        for number in 0..35 {
            scene.camera.emit(OF_8192);
            let at_end = scene.camera.next.is_multiple_of(RING);
            wraps += u64::from(at_end);
            let there = if at_end { pointer } else { scene.camera.next % RING };
            scene.point(there, 9000);
            assert_eq!(scene.poll(), Step::Idle, "its header has to stand for a while");
            scene.point(there, 60_000);
            let Step::Frame(candidate) = scene.poll() else { panic!("frame {number}") };
            assert_eq!(candidate.sequence, number);
        }
        assert!(wraps == 1 && scene.tail.is_exact());
    }
}

#[test]
fn a_header_that_is_not_stamped_yet_is_waited_for() {
    let mut scene = Scene::new(1, StartAt::Newest);
    let start = scene.camera.next;
    scene.camera.stamps = false;
    scene.camera.emit(1000);
    for _ in 0..20 {
        assert_eq!(scene.poll_after(50_000), Step::Idle);
        assert!(scene.tail.is_settling());
    }
    scene.camera.stamp(start, 1000);
    assert_eq!(scene.poll_after(50_000), Step::Idle, "what follows the signature may be missing");
    assert_eq!(scene.frame().sequence, 1);
    assert!(!scene.tail.is_settling());
}

#[test]
fn a_frame_whose_interrupt_was_lost_is_counted_and_refused_and_blinds_nobody() {
    let mut scene = Scene::new(1, StartAt::Newest);
    scene.camera.stamps = false;
    scene.camera.emit(1000);
    scene.camera.stamps = true;
    scene.camera.emit(500);
    let candidate = scene.frame();
    assert_eq!(candidate.sequence, 1);
    let refused = check_in_place(&scene.device, &candidate).unwrap_err();
    assert_eq!(refused.refusal, Refusal::Header);
    assert_eq!(scene.frame().sequence, 2);
    assert!(scene.tail.is_exact());
}

#[test]
fn a_look_that_comes_too_late_loses_all_and_goes_on_with_estimates() {
    let mut scene = Scene::new(0, StartAt::Newest);
    for number in 0..4 {
        scene.camera.emit(1000);
        assert_eq!(scene.frame().sequence, number);
    }
    (0..20).for_each(|_| scene.camera.emit(1000));
    scene.follow(scene.device.pointer().unwrap().window_ns());
    let loss = scene.lost();
    assert_eq!((loss.reason, loss.sequence, loss.count), (LossReason::Overrun, 4, 20));
    assert!(!loss.exact && !scene.tail.is_exact());
    assert_eq!(scene.tail.expected(&scene.device), None);
    scene.camera.emit(1000);
    assert_eq!(scene.frame().sequence, 24);
}

#[test]
fn nobody_is_late_for_his_first_step() {
    let mut scene = Scene::new(3, StartAt::Newest);
    scene.camera.emit(1000);
    assert_eq!(scene.poll_after(u64::MAX / 2), Step::Idle);
    scene.camera.emit(1000);
    assert_eq!(scene.frame().sequence, 4);
    assert!(scene.tail.is_exact());
}

#[test]
fn a_copy_that_took_too_long_is_not_believed() {
    let mut scene = Scene::new(1, StartAt::Newest);
    scene.camera.emit(1000);
    let candidate = scene.frame();
    scene.follow(scene.device.pointer().unwrap().window_ns() - 2);
    assert_eq!(check_in_place(&scene.device, &candidate), Ok(()));
    scene.follow(scene.device.pointer().unwrap().window_ns());
    let refused = check_in_place(&scene.device, &candidate).unwrap_err();
    assert_eq!((refused.refusal, refused.reason), (Refusal::Overtaken, LossReason::Torn));
}

#[test]
fn the_writer_is_two_of_the_largest_slots_ahead_of_the_pointer() {
    let mut scene = Scene::new(1, StartAt::Newest);
    scene.camera.emit(1000);
    let candidate = scene.frame();
    let ahead = 2 * scene.device.max_slot_bytes();
    // Cursors of the driver are a lap above the camera's.
    let last = candidate.start - 32 - ahead;
    let mut at = scene.camera.next;
    while at < last {
        at = last.min(at + RING / 4);
        scene.point(at % RING, RING / 4);
        assert_eq!(check_in_place(&scene.device, &candidate), Ok(()), "{at:#x}");
    }
    scene.point((last + 32) % RING, 100);
    let refused = check_in_place(&scene.device, &candidate).unwrap_err();
    assert_eq!(refused.refusal, Refusal::Overtaken);
}

#[test]
fn frames_that_were_there_before_are_read_from_the_oldest() {
    let mut scene = Scene::new(40, StartAt::Oldest);
    for number in 0..40 {
        let step = scene.poll_after(100);
        assert!(matches!(step, Step::Frame(candidate) if candidate.sequence == number), "{step:?}");
    }
    assert_eq!(scene.poll_after(100), Step::Idle);
}

#[test]
fn a_reset_is_seen_by_a_pointer_that_jumps() {
    let mut scene = Scene::new(150, StartAt::Newest);
    assert_eq!(scene.poll_after(100), Step::Idle);
    scene.camera.begin_at(0);
    scene.camera.emit(700);
    scene.follow(10_000);
    assert!(!scene.lost().exact);
    scene.camera.emit(700);
    assert_eq!(scene.frame().trailer.length, 700);
}

/// What is wrong with a frame.
#[derive(Debug, Clone, Copy)]
enum Damage {
    /// Of the trailer, behind the handler, which has read the true one.
    NoTrailer,
    /// The trailer tells so many bytes more.
    Length(i32),
    /// So does the header: the handler has read that trailer.
    LengthForAll(i32),
    /// The header does.
    HeaderLength(i32),
}

impl Scene {
    /// A frame of so many bytes that is damaged.
    fn emit_damaged(&mut self, length: usize, damage: Damage) {
        let start = self.camera.next + RING;
        let word = start + slot(length as u32) - 36;
        let told = |more: i32| (length as i32 + more).to_le_bytes();
        let payload = HandCamera::payload(self.camera.frames, length);
        self.camera.emit_and(&payload, |camera| match damage {
            Damage::NoTrailer => camera.put(word - 8, &[0; 12]),
            Damage::Length(more) => camera.put(word, &told(more)[..3]),
            Damage::HeaderLength(more) => camera.put(start - 4, &told(more)),
            Damage::LengthForAll(more) => {
                camera.put(word, &told(more)[..3]);
                camera.put(start - 4, &told(more));
            }
        });
    }

    /// Payload lengths of all that is found whole, and what is lost.
    fn read_all(&mut self) -> (Vec<u32>, Vec<Loss>) {
        let (mut whole, mut lost) = (Vec::new(), Vec::new());
        for _ in 0..8 {
            match self.poll_after(60_000) {
                Step::Idle => {}
                Step::Lost(loss) => lost.push(loss),
                Step::Frame(candidate) => match check_in_place(&self.device, &candidate) {
                    Ok(()) => whole.push(candidate.trailer.length),
                    Err(refused) => lost.push(Loss {
                        reason: refused.reason,
                        refusal: Some(refused.refusal),
                        sequence: candidate.sequence,
                        count: 1,
                        exact: self.tail.is_exact(),
                        first: None,
                        last: None,
                    }),
                },
            }
        }
        (whole, lost)
    }
}

/// Good frames around a damaged one, all of which the driver has looked at.
fn around(damage: Damage) -> (Scene, Vec<Loss>) {
    let mut scene = Scene::new(3, StartAt::Newest);
    scene.camera.emit(1100);
    assert_eq!(scene.read_all(), (vec![1100], vec![]));
    scene.emit_damaged(1200, damage);
    let (whole, mut lost) = scene.read_all();
    assert_eq!(whole, [0; 0], "{damage:?}");
    for length in [1300, 1400] {
        scene.camera.emit(length as usize);
        let (whole, more) = scene.read_all();
        assert_eq!(whole, [length], "{damage:?}");
        lost.extend(more);
    }
    (scene, lost)
}

#[test]
fn a_frame_with_a_damaged_end_or_header_is_counted_where_one_of_both_tells_the_truth() {
    let behind = [-640, -96, -32, 32, 96, 1 << 20].map(Damage::Length);
    let headers = [-640, -32, 32, 1 << 20].map(Damage::HeaderLength);
    for damage in behind.into_iter().chain(headers).chain([Damage::NoTrailer]) {
        let (scene, lost) = around(damage);
        let told: Vec<_> = lost.iter().map(|loss| (loss.sequence, loss.count)).collect();
        assert_eq!(told, [(4, 1)], "{damage:?}");
        assert!(scene.tail.is_exact() && lost[0].exact, "{damage:?}");
        assert_eq!(scene.tail.expected(&scene.device), Some(4), "{damage:?}");
    }
}

#[test]
fn a_wrong_length_that_the_handler_believed_is_one_frame_and_an_estimate() {
    for more in [-640, -96, -32, 32, 96, 1 << 20] {
        let (scene, lost) = around(Damage::LengthForAll(more));
        let told: Vec<_> =
            lost.iter().map(|loss| (loss.sequence, loss.count, loss.exact)).collect();
        assert_eq!(told, [(4, 1, false)], "{more}");
        assert!(!scene.tail.is_exact());
    }
}

/// Writes good frames, all of which are read, until the next one of 1200 bytes lies across the end of the
/// ring.
fn at_the_end(scene: &mut Scene) {
    while scene.camera.next / RING == (scene.camera.next + slot(1200)) / RING {
        scene.camera.emit(1100);
        assert_eq!(scene.read_all().0, [1100]);
    }
    assert!(!(scene.camera.next + slot(1200)).is_multiple_of(RING));
}

#[test]
fn a_damaged_frame_across_the_end_of_the_ring_costs_no_other_one() {
    for damage in [-640, 32].map(Damage::LengthForAll).into_iter().chain([Damage::NoTrailer]) {
        let mut scene = Scene::new(3, StartAt::Newest);
        at_the_end(&mut scene);
        let number = scene.camera.frames;
        scene.emit_damaged(1200, damage);
        assert_eq!(scene.read_all(), (vec![], vec![]), "{damage:?}");
        scene.camera.emit(1300);
        let (whole, lost) = scene.read_all();
        assert_eq!(whole, [1300], "{damage:?}");
        let [loss] = lost[..] else { panic!("{damage:?}: {lost:?}") };
        assert_eq!((loss.reason, loss.sequence, loss.count), (LossReason::Corrupt, number, 1));
        assert!(!loss.exact);
        scene.camera.emit(1400);
        assert_eq!(scene.read_all(), (vec![1400], vec![]), "{damage:?}");
    }
}

/// A camera that is reset near the end of the ring, and then damages frames, leaves old ones between: whole,
/// with headers where gaps are skipped, read a lap ago, and the first where the next one would have been.
#[test]
fn behind_a_reset_near_the_end_of_the_ring_nothing_is_read_twice() {
    for (left, damaged) in (1..4).flat_map(|left| (1..6).map(move |damaged| (left, damaged))) {
        let mut scene = Scene::new(0, StartAt::Newest);
        scene.camera.zeroes_gap = false;
        for _ in 0..2 * RING / 8192 - left {
            scene.camera.emit(OF_8192);
            assert_eq!(scene.read_all().0, [OF_8192 as u32]);
        }
        scene.camera.next = scene.camera.next.next_multiple_of(RING);
        (0..damaged).for_each(|_| scene.emit_damaged(700, Damage::LengthForAll(-320)));
        scene.camera.emit(710);
        let mut whole = scene.read_all().0;
        for length in [720, 730] {
            scene.camera.emit(length);
            whole.extend(scene.read_all().0);
        }
        assert_eq!(whole, [710, 720, 730], "{left} {damaged}");
    }
}

#[test]
fn a_camera_that_is_unplugged_is_an_error() {
    let mut scene = Scene::new(1, StartAt::Newest);
    *scene.script.lock().unwrap() = None;
    let error = scene.tail.poll(&scene.device).unwrap_err();
    assert!(matches!(error, DeviceError::Pointer(_)), "{error}");
    assert!(error.to_string().contains("unplugged"), "{error}");
}
