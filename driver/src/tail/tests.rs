mod damage;
mod frozen;
mod pointed;

use super::*;
use crate::hand_camera::HandCamera;
use crate::loss::LossReason;
use crate::record::{frame_body_bytes, record_bytes};
use crate::ring::slot;
use crate::slab::SlabPool;
use crate::validate::copy_and_check;
use circbuf_abi::registers as reg;

const RING: u64 = 64 << 10;

/// Sequences of the frames that are found whole, and the losses, until nothing more comes.
fn drain(tail: &mut Tail, device: &Device) -> (Vec<u64>, Vec<Loss>) {
    let pool = SlabPool::new(1 << 20);
    let (mut frames, mut losses, mut idle) = (Vec::new(), Vec::new(), 0);
    // More than it takes for the whole ring to be searched.
    while idle < 600 {
        match tail.poll(device).unwrap() {
            Step::Idle => idle += 1,
            Step::Lost(loss) => losses.push(loss),
            Step::Frame(candidate) => {
                let length = candidate.trailer.length;
                let mut slab = pool.take(record_bytes(frame_body_bytes(length))).unwrap();
                copy_and_check(device, &candidate, &mut slab).unwrap();
                let payload = &slab[128..][..length as usize];
                assert_eq!(payload, HandCamera::payload(candidate.sequence, length as usize));
                frames.push(candidate.sequence);
            }
        }
    }
    (frames, losses)
}

#[test]
fn all_residues_are_followed_stamped_and_bare_with_and_without_counters() {
    for stamps in [true, false] {
        for with_counters in [true, false] {
            let mut camera = HandCamera::new(RING, stamps);
            let device = match with_counters {
                true => camera.device(),
                false => camera.device_without_registers(),
            };
            let mut tail = Tail::attach(&device, StartAt::Newest).unwrap();
            for number in 0..96 {
                camera.emit(33 + number);
                let (frames, losses) = drain(&mut tail, &device);
                assert_eq!(
                    (frames, losses.len()),
                    (vec![number as u64], 0),
                    "{stamps} {with_counters}"
                );
            }
        }
    }
}

#[test]
fn a_frame_wraps_at_every_chunk() {
    for stamps in [true, false] {
        let length = 500;
        for chunk in 0..=slot(length) / 32 {
            let mut camera = HandCamera::new(RING, stamps);
            camera.begin_at(RING - chunk * 32);
            let device = camera.device();
            let mut tail = Tail::attach(&device, StartAt::Newest).unwrap();
            (0..3).for_each(|_| camera.emit(length as usize));
            let found = drain(&mut tail, &device);
            assert_eq!(found, (vec![1, 2, 3], vec![]), "wrap {chunk} chunks behind the start");
        }
    }
}

#[test]
fn the_stale_trailer_of_the_golden_listing_is_no_frame() {
    // A frame of 0x378fe bytes over an older one of 0x37929, both from word 0: the older trailer
    // stands behind the newer one, and leads back to word 0 as well.
    for stamps in [true, false] {
        let mut camera = HandCamera::new(4 * 0x4B_8000, stamps);
        camera.zeroes_gap = false;
        camera.emit(0x37929);
        camera.begin_at(0);
        (camera.frames, camera.next) = (0, 0);
        camera.publish();
        let bare = camera.device_without_registers();
        let tail = Tail::attach(&bare, StartAt::Newest).unwrap();
        assert_eq!(tail.cursor(), 0x37960, "the older frame is whole as yet");

        let device = camera.device();
        let mut tail = Tail::attach(&device, StartAt::Newest).unwrap();
        camera.emit(0x378FE);
        assert_eq!(drain(&mut tail, &device), (vec![0], vec![]), "stamped {stamps}");
        assert_eq!(tail.cursor(), 0x37940);

        let mut tail = Tail::attach(&bare, StartAt::Oldest).unwrap();
        assert_eq!(drain(&mut tail, &bare), (vec![0], vec![]), "stamped {stamps}");
        assert_eq!(tail.cursor(), 0x37940);
    }
}

#[test]
fn a_driver_that_joins_late_gets_what_completes_afterwards_or_what_is_left() {
    let mut camera = HandCamera::new(RING, true);
    (0..500).for_each(|_| camera.emit(1000));
    let device = camera.device();
    let mut newest = Tail::attach(&device, StartAt::Newest).unwrap();
    let mut oldest = Tail::attach(&device, StartAt::Oldest).unwrap();
    camera.emit(1000);
    assert_eq!(drain(&mut newest, &device), (vec![500], vec![]));
    let (frames, losses) = drain(&mut oldest, &device);
    assert!(losses.is_empty());
    assert_eq!(frames, (frames[0]..=500).collect::<Vec<_>>());
    assert!((40..=63).contains(&frames.len()), "three quarters of the ring: {}", frames.len());
}

#[test]
fn after_an_overrun_the_loss_is_exact_and_the_rest_is_delivered() {
    for stamps in [true, false] {
        let mut camera = HandCamera::new(RING, stamps);
        let device = camera.device();
        let mut tail = Tail::attach(&device, StartAt::Newest).unwrap();
        (0..10).for_each(|_| camera.emit(700));
        drain(&mut tail, &device);
        (0..1000).for_each(|_| camera.emit(700));
        let (frames, losses) = drain(&mut tail, &device);
        assert_eq!(losses.len(), 1);
        assert_eq!((losses[0].reason, losses[0].exact), (LossReason::Overrun, true));
        assert_eq!(losses[0].sequence, 10);
        assert_eq!(frames, (10 + losses[0].count..1010).collect::<Vec<_>>());
        assert_eq!(tail.expected(&device), Some(1010));
    }
}

#[test]
fn without_counters_an_overrun_is_estimated_from_times() {
    for stamps in [true, false] {
        let mut camera = HandCamera::new(RING, stamps);
        let device = camera.device_without_registers();
        let mut tail = Tail::attach(&device, StartAt::Newest).unwrap();
        for _ in 0..10 {
            camera.emit(701);
            drain(&mut tail, &device);
        }
        (0..1000).for_each(|_| camera.emit(701));
        let (frames, losses) = drain(&mut tail, &device);
        let lost: u64 = losses.iter().map(|loss| loss.count).sum();
        assert!(losses.iter().all(|loss| !loss.exact));
        assert_eq!((frames.len() as u64 + lost, frames.last()), (1000, Some(&1009)));
    }
}

#[test]
fn a_damaged_trailer_costs_one_frame_and_is_counted() {
    let mut camera = HandCamera::new(RING, true);
    let device = camera.device();
    let mut tail = Tail::attach(&device, StartAt::Newest).unwrap();
    let starts: Vec<u64> = (0..20)
        .map(|_| {
            let start = camera.next;
            camera.emit(300);
            start
        })
        .collect();
    camera.put(starts[7] + slot(300) - 33, &[0xFE]);
    let (frames, losses) = drain(&mut tail, &device);
    assert_eq!(frames, (0..20).filter(|&number| number != 7).collect::<Vec<_>>());
    assert_eq!(
        (losses[0].reason, losses[0].sequence, losses[0].count),
        (LossReason::Corrupt, 7, 1)
    );
}

#[test]
fn a_reset_of_the_device_is_survived() {
    let mut camera = HandCamera::new(RING, true);
    let device = camera.device();
    let mut tail = Tail::attach(&device, StartAt::Newest).unwrap();
    (0..5).for_each(|_| camera.emit(300));
    drain(&mut tail, &device);
    camera.emit(300);
    camera.register(reg::EPOCH, 1);
    camera.begin_at(0);
    camera.emit(400);
    let (frames, losses) = drain(&mut tail, &device);
    assert_eq!((frames, losses.len()), (vec![6], 1));
    assert_eq!((losses[0].sequence, losses[0].count), (5, 1));
}

#[test]
fn a_clock_that_is_set_back_does_not_blind_a_tail_without_counters() {
    for stamps in [true, false] {
        let mut camera = HandCamera::new(RING, stamps);
        let device = camera.device_without_registers();
        let mut tail = Tail::attach(&device, StartAt::Newest).unwrap();
        (0..5).for_each(|_| camera.emit(300));
        drain(&mut tail, &device);
        camera.time_us -= 3_600_000_000;
        let mut found = Vec::new();
        for _ in 0..6 {
            camera.emit(300);
            found.extend(drain(&mut tail, &device).0);
        }
        assert_eq!(found, [5, 6, 7, 8, 9, 10], "stamped {stamps}");
    }
}

#[test]
fn counters_that_contradict_themselves_are_refused() {
    let lies: [fn(&mut HandCamera); 4] = [
        |camera| camera.register(reg::COMPLETE, 32),
        |camera| camera.register(reg::COMPLETE, camera.next + 31),
        |camera| camera.register(reg::FRAMES, 1 << 40),
        |camera| camera.register(reg::RESERVED, 0),
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        let mut camera = HandCamera::new(RING, true);
        let device = camera.device();
        let mut tail = Tail::attach(&device, StartAt::Newest).unwrap();
        (0..3).for_each(|_| camera.emit(300));
        drain(&mut tail, &device);
        camera.emit(300);
        lie(&mut camera);
        let told = (0..4).find_map(|_| tail.poll(&device).err());
        assert!(told.is_some_and(|e| e.to_string().contains("contradict")), "lie {number}");
    }
}

#[test]
fn bytes_that_no_frame_was_counted_for_are_refused() {
    let mut camera = HandCamera::new(RING, true);
    (0..3).for_each(|_| camera.emit(300));
    camera.register(reg::FRAMES, 0);
    let told = Tail::attach(&camera.device(), StartAt::Oldest).unwrap_err();
    assert!(told.to_string().contains("contradict"), "{told}");
}

#[test]
fn what_a_lying_page_says_at_a_glance_is_forgotten() {
    let lies: [fn(&mut HandCamera); 3] = [
        |camera| camera.register(reg::COMPLETE, 1 << 62),
        |camera| camera.register(reg::COMPLETE, camera.next + 31),
        |camera| camera.register(reg::FRAMES, 1 << 40),
    ];
    for lie in lies {
        let mut camera = HandCamera::new(RING, true);
        let device = camera.device();
        let mut tail = Tail::attach(&device, StartAt::Newest).unwrap();
        (0..3).for_each(|_| camera.emit(300));
        tail.glance(&device);
        camera.register(reg::FRAMES, 5);
        lie(&mut camera);
        tail.glance(&device);
        camera.publish();
        assert_eq!(drain(&mut tail, &device), (vec![0, 1, 2], vec![]));
    }
}

#[test]
fn a_frame_whose_middle_was_truncated_away_is_torn() {
    for (stamps, with_counters) in [(true, true), (false, true), (true, false)] {
        let mut camera = HandCamera::new(RING, stamps);
        // Header and first bytes stand in front of the hole, the trailer behind it, wrapped.
        camera.begin_at(RING - 8192 + 64);
        let device = match with_counters {
            true => camera.device(),
            false => camera.device_without_registers(),
        };
        let mut tail = Tail::attach(&device, StartAt::Newest).unwrap();
        camera.emit(12_000);
        let candidate =
            std::iter::repeat_with(|| tail.poll(&device).unwrap()).take(10_000).find_map(|step| {
                if let Step::Frame(candidate) = step { Some(candidate) } else { None }
            });
        camera.ring.set_len(RING - 4096).unwrap();
        let mut slab = SlabPool::new(1 << 20).take(record_bytes(frame_body_bytes(12_000))).unwrap();
        let refused = copy_and_check(&device, &candidate.unwrap(), &mut slab).unwrap_err();
        assert_eq!(refused.reason, LossReason::Torn, "{stamps} {with_counters}");
    }
}

#[test]
fn without_counters_a_frame_that_is_lost_before_it_is_read_is_given_up_at_once() {
    for stamps in [true, false] {
        let mut camera = HandCamera::new(RING, stamps);
        let device = camera.device_without_registers();
        let mut tail = Tail::attach(&device, StartAt::Newest).unwrap();
        for _ in 0..10 {
            camera.emit(701);
            drain(&mut tail, &device);
        }
        let mut lost = 0;
        for _ in 0..3 {
            // More than a lap while the driver looks for a place to go on.
            (0..100).for_each(|_| camera.emit(701));
            let Step::Lost(loss) = tail.poll(&device).unwrap() else { panic!("it was lapped") };
            lost += loss.count;
        }
        let (frames, losses) = drain(&mut tail, &device);
        assert!(losses.is_empty(), "what was chosen last is still there");
        assert_eq!((frames.len() as u64 + lost, frames.last()), (300, Some(&309)), "{stamps}");
    }
}

#[test]
fn a_clock_set_back_while_the_driver_was_away_does_not_blind_it_either() {
    for (stamps, frames_away) in [(true, 4), (false, 4), (true, 300), (false, 300)] {
        let mut camera = HandCamera::new(RING, stamps);
        let device = camera.device_without_registers();
        let mut tail = Tail::attach(&device, StartAt::Newest).unwrap();
        for _ in 0..12 {
            camera.emit(700);
            drain_unnumbered(&mut tail, &device);
        }
        camera.time_us -= 30_000_000;
        (0..frames_away).for_each(|_| camera.emit(700));
        let mut found = drain_unnumbered(&mut tail, &device);
        for _ in 0..40 {
            camera.emit(700);
            found += drain_unnumbered(&mut tail, &device);
        }
        let lost = if frames_away == 4 { 0 } else { frames_away - 10 };
        assert!(
            found >= frames_away - lost + 40,
            "{found} of {frames_away} + 40, stamped {stamps}"
        );
    }
}

/// Frames found whole until nothing more comes; their numbers are an estimate.
fn drain_unnumbered(tail: &mut Tail, device: &Device) -> usize {
    let pool = SlabPool::new(1 << 20);
    let (mut frames, mut idle) = (0, 0);
    while idle < 600 {
        match tail.poll(device).unwrap() {
            Step::Idle => idle += 1,
            Step::Lost(_) => {}
            Step::Frame(candidate) => {
                let length = candidate.trailer.length;
                let mut slab = pool.take(record_bytes(frame_body_bytes(length))).unwrap();
                frames += usize::from(copy_and_check(device, &candidate, &mut slab).is_ok());
            }
        }
    }
    frames
}
