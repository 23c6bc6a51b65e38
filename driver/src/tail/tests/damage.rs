//! Frames that the camera damages, read at every distance behind it: numbers stay right, whole frames
//! beside the damaged ones are found.

use super::*;

const FRAMES: u64 = 60;

/// What can be wrong with a frame; the bytes of the others stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    /// Zeros where the trailer belongs.
    NoTrailer,
    /// The trailer tells so many bytes more, modulo 2^24.
    Length(i32),
    /// No signature in front.
    NoHeader,
    /// The trailer and the stamped length are those of the frame before.
    Stale,
    /// The counters say 32 bytes less.
    PointerLow,
}

const DAMAGES: [Damage; 9] = [
    Damage::NoTrailer,
    Damage::Length(32),
    Damage::Length(-32),
    Damage::Length(-64),
    Damage::Length(1000),
    Damage::Length(0x00FF_0000),
    Damage::NoHeader,
    Damage::Stale,
    Damage::PointerLow,
];

/// A frame of 100 to 400 bytes, so that no two in a row have a slot of the same size.
fn length(number: u64) -> usize {
    100 + (number as usize * 64) % 320
}

fn emit(camera: &mut HandCamera, damage: Option<Damage>) {
    let start = camera.next;
    let length = length(camera.frames);
    let before: Vec<u8> =
        (0..12).map(|byte| camera.byte(start + camera.ring_bytes - 44 + byte)).collect();
    let trailer = start + slot(length as u32) - 44;
    let complete = start + slot(length as u32);
    // What is done to the bytes is done before the counters tell of them.
    camera.emit_and(&HandCamera::payload(camera.frames, length), |camera| match damage {
        None | Some(Damage::PointerLow) => {}
        Some(Damage::NoTrailer) => {
            camera.put(trailer, &[0; 12]);
            camera.put(start + camera.ring_bytes - 4, &[0; 4]);
        }
        Some(Damage::Length(more)) => {
            let told = (length as i32 + more) as u32 & 0x00FF_FFFF;
            camera.put(trailer + 8, &told.to_le_bytes()[..3]);
            camera.put(start + camera.ring_bytes - 4, &told.to_le_bytes());
        }
        Some(Damage::NoHeader) => camera.put(start + camera.ring_bytes - 32, &[0; 32]),
        Some(Damage::Stale) => {
            camera.put(trailer, &before);
            camera.put(start + camera.ring_bytes - 4, &before[8..11]);
        }
    });
    if damage == Some(Damage::PointerLow) {
        camera.register(reg::COMPLETE, complete - 32);
    }
}

/// What the tail finds whole and what it loses, up to the last frame that was completed.
fn read(tail: &mut Tail, device: &Device) -> (Vec<u64>, Vec<(u64, u64)>) {
    let pool = SlabPool::new(1 << 20);
    let (mut whole, mut lost) = (Vec::new(), Vec::new());
    while !tail.has_read_all(device) {
        match tail.poll(device).unwrap() {
            Step::Idle => {}
            Step::Lost(loss) => {
                assert!(loss.exact && loss.refusal.is_some(), "{loss:?}");
                lost.push((loss.sequence, loss.count));
            }
            Step::Frame(candidate) => {
                let length = candidate.trailer.length;
                let mut slab = pool.take(record_bytes(frame_body_bytes(length))).unwrap();
                match copy_and_check(device, &candidate, &mut slab) {
                    Err(_) => lost.push((candidate.sequence, 1)),
                    Ok(()) => {
                        let payload = &slab[128..][..length as usize];
                        let number = candidate.sequence;
                        assert_eq!(
                            payload,
                            HandCamera::payload(number, length as usize),
                            "{number}"
                        );
                        whole.push(number);
                    }
                }
            }
        }
    }
    (whole, lost)
}

/// A camera with damage at some frames, read once every so many frames. How many good frames are lost.
fn needless(stamps: bool, damage_at: impl Fn(u64) -> Option<Damage>, behind: u64) -> u64 {
    let mut camera = HandCamera::new(RING, stamps);
    let device = camera.device();
    let mut tail = Tail::attach(&device, StartAt::Newest).unwrap();
    let (mut whole, mut lost) = (Vec::new(), Vec::new());
    for number in 0..FRAMES {
        emit(&mut camera, damage_at(number));
        // The pointer of the last frame is right, so that everything is accounted for.
        if (number + 1) % behind == 0 || number + 1 == FRAMES {
            let (more, gone) = read(&mut tail, &device);
            whole.extend(more);
            lost.extend(gone);
        }
    }
    let mut seen = whole.clone();
    lost.iter().for_each(|&(first, count)| seen.extend(first..first + count));
    seen.sort_unstable();
    assert_eq!(seen, (0..FRAMES).collect::<Vec<_>>(), "each frame once: {whole:?} {lost:?}");
    let is_bad = |number: u64| match damage_at(number) {
        None | Some(Damage::PointerLow) => false,
        Some(Damage::NoHeader) => stamps,
        Some(_) => true,
    };
    assert!(whole.iter().all(|&number| !is_bad(number)), "accepted: {whole:?}");
    (0..FRAMES).filter(|&number| !is_bad(number)).count() as u64 - whole.len() as u64
}

#[test]
fn one_damaged_frame_costs_no_others_where_headers_are_and_few_where_none_is() {
    for stamps in [true, false] {
        for damage in DAMAGES {
            for behind in [1, 2, 3, 7, 30] {
                let at = |number| (number == 20).then_some(damage);
                let needless = needless(stamps, at, behind);
                let most = match damage {
                    Damage::PointerLow if stamps => 1,
                    _ if stamps => 0,
                    // Where no header stands, nothing but an unbroken chain is believed: those up to
                    // the next boundary that the counters told, and one behind it.
                    _ => behind + 1,
                };
                assert!(needless <= most, "{needless}: {damage:?} {stamps} {behind}");
            }
        }
    }
}

#[test]
fn frames_between_damaged_ones_are_found_by_their_headers() {
    for (first, second) in [(20, 22), (20, 25), (20, 29)] {
        for damage in DAMAGES.into_iter().filter(|&damage| damage != Damage::PointerLow) {
            let at = |number| [first, second].contains(&number).then_some(damage);
            assert_eq!(needless(true, at, 30), 0, "{damage:?} at {first} and {second}");
        }
    }
}

#[test]
fn damage_of_all_kinds_at_random_never_numbers_a_frame_wrongly() {
    for seed in 0..300_u64 {
        let mut state = seed;
        let mut draw = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let plan: Vec<Option<Damage>> = (0..FRAMES)
            .map(|_| (draw(4) == 0).then(|| DAMAGES[draw(DAMAGES.len() as u64) as usize]))
            .collect();
        let behind = 1 + draw(10);
        let lost = needless(seed % 2 == 0, |number| plan[number as usize], behind);
        assert!(lost < FRAMES, "seed {seed}");
    }
}

/// Two aborted frames with the trailer of the one in front of them pass for one frame as long as that
/// one, if it has lost its own.
#[test]
fn aborted_frames_that_pass_for_one_misnumber_nobody() {
    for behind in [3, 5, 9] {
        let mut camera = HandCamera::new(RING, true);
        let device = camera.device();
        let mut tail = Tail::attach(&device, StartAt::Newest).unwrap();
        camera.emit(300);
        read(&mut tail, &device);
        (0..behind).for_each(|_| camera.emit(200));
        // The latches: 436 bytes, a slot of 512.
        let long = camera.next;
        camera.emit(436);
        let latched: Vec<u8> =
            (0..12).map(|byte| camera.byte(long + slot(436) - 44 + byte)).collect();
        camera.put(long + slot(436) - 44, &[0; 12]);
        for _ in 0..2 {
            let start = camera.next;
            let payload = HandCamera::payload(camera.frames, 180);
            camera.emit_and(&payload, |camera| {
                camera.put(start + slot(180) - 44, &latched);
                camera.put(start + camera.ring_bytes - 4, &latched[8..11]);
            });
        }
        assert_eq!(2 * slot(180), slot(436));
        (0..2).for_each(|_| camera.emit(300));
        let (whole, lost) = read(&mut tail, &device);
        let good = (1..=behind).chain([behind + 4, behind + 5]);
        assert_eq!(whole, good.collect::<Vec<_>>(), "{lost:?}");
    }
}

/// In a gap that is skipped the trailer of the lap before is left. Where the next frame has no header
/// over it, an aborted frame, whose header tells the same length, seems to end there.
#[test]
fn an_old_trailer_in_a_skipped_gap_ends_no_aborted_frame() {
    for (stamps, behind) in [(true, 2), (true, 4), (false, 2), (false, 4)] {
        let mut camera = HandCamera::new(RING, stamps);
        camera.zeroes_gap = false;
        let device = camera.device();
        let mut tail = Tail::attach(&device, StartAt::Newest).unwrap();
        camera.emit(300);
        read(&mut tail, &device);
        let front = camera.next;
        camera.emit(200);
        let latched: Vec<u8> =
            (0..12).map(|byte| camera.byte(front + slot(200) - 44 + byte)).collect();
        // One chunk shorter than the frame before.
        let start = camera.next;
        let end = start + slot(170);
        assert_eq!(slot(170) + 32, slot(200));
        let payload = HandCamera::payload(camera.frames, 170);
        camera.emit_and(&payload, |camera| {
            camera.put(end - 44, &latched);
            camera.put(start + camera.ring_bytes - 4, &latched[8..11]);
            camera.put(end - 12, &[9, 0, 0, 0, 9, 0, 0, 0]);
            camera.put(end - 4, &latched[8..12]);
        });
        let old: Vec<u8> = (0..32).map(|byte| camera.byte(end - 32 + byte)).collect();
        let payload = HandCamera::payload(camera.frames, 250);
        camera.emit_and(&payload, |camera| camera.put(end - 32, &old));
        (0..behind).for_each(|_| camera.emit(300));
        let (whole, _) = read(&mut tail, &device);
        assert!(!whole.contains(&2) && whole.iter().all(|&number| number != 3 || !stamps));
        assert!(!stamps || whole.ends_with(&[4, 5]) || behind == 4, "{whole:?}");
    }
}
