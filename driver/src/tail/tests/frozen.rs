//! What can be had of a device that is dead: whatever it does to its page afterwards.

use std::os::unix::fs::FileExt;

use super::*;

const FRAMES: u64 = 12;

/// A tail that has found the first of so many frames when its device dies.
fn dead() -> (HandCamera, Device, Tail) {
    let mut camera = HandCamera::new(RING, false);
    let device = camera.device();
    let mut tail = Tail::attach(&device, StartAt::Newest).unwrap();
    camera.emit(200);
    assert_eq!(drain(&mut tail, &device), (vec![0], vec![]));
    (1..FRAMES).for_each(|_| camera.emit(200));
    (camera, device, tail)
}

/// Frames and losses, until the tail has nothing more or fails.
fn read_out(tail: &mut Tail, device: &Device) -> (u64, u64) {
    let (mut found, mut lost) = (0, 0);
    for _ in 0..4 * FRAMES {
        if tail.has_read_all(device) {
            break;
        }
        match tail.poll(device) {
            Ok(Step::Frame(candidate)) => {
                let record = record_bytes(frame_body_bytes(candidate.trailer.length));
                let mut slab = SlabPool::new(1 << 20).take(record).unwrap();
                match copy_and_check(device, &candidate, &mut slab) {
                    Ok(()) => found += 1,
                    Err(_) => lost += 1,
                }
            }
            Ok(Step::Lost(loss)) => lost += loss.count,
            Ok(Step::Idle) => {}
            Err(_) => break,
        }
    }
    if let Step::Lost(loss) = tail.give_up() {
        lost += loss.count;
    }
    assert_eq!((tail.sequence(), tail.give_up()), (found + lost + 1, Step::Idle));
    (found, lost)
}

#[test]
fn what_was_complete_is_found_and_nothing_that_comes_later() {
    let (mut camera, device, mut tail) = dead();
    tail.freeze(&device);
    (0..5).for_each(|_| camera.emit(200));
    assert_eq!(read_out(&mut tail, &device), (FRAMES - 1, 0));
    assert_eq!(tail.expected(&device), Some(FRAMES));
}

#[test]
fn a_device_that_died_at_changing_its_numbers_leaves_what_was_seen_of_it() {
    let (mut camera, device, mut tail) = dead();
    tail.glance(&device);
    (0..5).for_each(|_| camera.emit(200));
    camera.register(reg::UPDATE, 7);
    tail.freeze(&device);
    assert_eq!(read_out(&mut tail, &device), (FRAMES - 1, 0));
}

/// The law asks the page after each copy: where that is gone, nothing is proven any more.
#[test]
fn what_no_page_vouches_for_is_lost_and_counted() {
    for byte in [0x00, 0xFF] {
        let (camera, device, mut tail) = dead();
        tail.glance(&device);
        camera.page.write_all_at(&[byte; 4096], 0).unwrap();
        tail.freeze(&device);
        assert_eq!(read_out(&mut tail, &device), (0, FRAMES - 1), "{byte:#x}");
    }
}

#[test]
fn a_writer_that_goes_on_is_believed_to_have_overtaken() {
    let (mut camera, device, mut tail) = dead();
    tail.freeze(&device);
    let laps = 3 * RING / slot(200);
    (0..laps).for_each(|_| camera.emit(200));
    assert_eq!(read_out(&mut tail, &device), (0, FRAMES - 1));
}
