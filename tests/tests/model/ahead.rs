//! A reader that begins to copy a frame before it is complete: the law as it is holds for it as well, and
//! needs what it says of such a copy.

use super::check::{Check, Law};
use super::law::{all_whole, with_gaps};
use super::rings::{ACROSS, EQUAL, FOLLOWED, FOLLOWED_BARE, LAW, SHORT, UNEQUAL, is_fooled};
use super::world::{Breach, Burst, Camera, Fault, Gap, Interrupts, Layout, Memory};

const fn two_laps(layout: Layout) -> Layout {
    Layout { laps: 2, ..layout }
}

/// Each layout is followed in steps of a word: `written` moves inside a burst as well.
#[test]
fn what_is_copied_ahead_is_whole() {
    let mut cameras = vec![];
    for camera in [FOLLOWED, FOLLOWED_BARE] {
        for layout in [SHORT, two_laps(EQUAL), two_laps(UNEQUAL), two_laps(ACROSS)] {
            for memory in [Memory::Fifo, Memory::Weak] {
                for burst in [Burst::Chunk, Burst::Frame] {
                    cameras.extend(with_gaps(Camera { layout, memory, burst, ..camera }));
                }
            }
        }
    }
    let found = all_whole(cameras, LAW);
    assert!(found.states > 1_000_000 && found.whole > 5_000, "{found:?}");
}

/// Frames of three laps, of different sizes: what was copied ahead may be more than the frame.
#[test]
fn what_is_copied_ahead_of_short_frames_is_whole() {
    let layouts = [EQUAL, UNEQUAL, ACROSS];
    let cameras = layouts.map(|layout| Camera { layout, ..FOLLOWED_BARE });
    let found = all_whole(cameras.into_iter().flat_map(with_gaps), LAW);
    assert!(found.states > 1_000_000 && found.whole > 1_000, "{found:?}");
}

/// The frame behind the one that is copied may be written, and told of in `written`, before the header
/// is stamped.
#[test]
fn what_is_copied_ahead_of_a_late_interrupt_handler_is_whole() {
    let late = Camera { interrupts: Interrupts::Late, ..FOLLOWED };
    let layouts = [SHORT, UNEQUAL, ACROSS].map(two_laps);
    let cameras = layouts.map(|layout| Camera { layout, ..late });
    let found = all_whole(cameras.into_iter().flat_map(with_gaps), LAW);
    assert!(found.states > 1_000_000 && found.whole > 1_000, "{found:?}");
}

/// A reset in mid-frame, so that the next frame starts where the reader has copied ahead, or elsewhere; a
/// frame that holds FF FF, and one that is broken off.
#[test]
fn what_is_copied_ahead_is_whole_when_the_camera_fails() {
    let mut cameras = vec![];
    for camera in [FOLLOWED, FOLLOWED_BARE] {
        for layout in [SHORT, two_laps(UNEQUAL)] {
            for fault in [Fault::Reset(0), Fault::Reset(2), Fault::Unescaped(2)] {
                cameras.extend(with_gaps(Camera { layout, fault, ..camera }));
            }
            let layout = Layout { lookalikes: false, ..layout };
            cameras.extend(with_gaps(Camera { layout, fault: Fault::Aborted(2), ..camera }));
        }
        let (layout, memory) = (two_laps(SHORT), Memory::Weak);
        for fault in [Fault::Reset(0), Fault::Reset(2)] {
            cameras.extend(with_gaps(Camera { layout, fault, memory, ..camera }));
        }
    }
    let found = all_whole(cameras, LAW);
    assert!(found.states > 1_000_000 && found.whole > 5_000, "{found:?}");
}

/// The law believes it of the device: nothing that is looked at later tells old bytes from new ones.
#[test]
fn written_has_to_come_behind_the_bytes() {
    for camera in [FOLLOWED, FOLLOWED_BARE].into_iter().flat_map(with_gaps) {
        let camera = Camera { layout: SHORT, ..camera };
        let early = Breach::WrittenBeforeBytes;
        assert!(is_fooled(Camera { breach: early, ..camera }, LAW), "{camera:?}");
        let unfenced = Camera { breach: Breach::WrittenUnfenced, ..camera };
        assert!(!is_fooled(unfenced, LAW), "{camera:?}");
        assert!(is_fooled(Camera { memory: Memory::Weak, ..unfenced }, LAW), "{camera:?}");
    }
}

#[test]
fn without_point_4_a_frame_that_was_torn_while_it_was_copied_ahead_is_delivered() {
    let without_it = Check::Law(Law { reach_ahead: false, ..Law::WHOLE });
    for layout in [SHORT, two_laps(UNEQUAL)] {
        for camera in with_gaps(Camera { layout, ..FOLLOWED_BARE }) {
            assert!(is_fooled(camera, without_it), "{camera:?}");
        }
    }
    // On a stamped ring point 3 is left, which a skipped gap defeats.
    for camera in with_gaps(Camera { layout: SHORT, ..FOLLOWED }) {
        assert_eq!(is_fooled(camera, without_it), camera.gap == Gap::Skip, "{camera:?}");
    }
}

/// After an overrun the reader goes on at another frame.
#[test]
fn without_its_start_what_was_copied_ahead_comes_into_another_frame() {
    let without_it = Check::Law(Law { ahead_start: false, ..Law::WHOLE });
    for layout in [SHORT, UNEQUAL] {
        for camera in [FOLLOWED, FOLLOWED_BARE].into_iter().flat_map(with_gaps) {
            let camera = Camera { layout, ..camera };
            assert!(is_fooled(camera, without_it), "{camera:?}");
        }
    }
}

/// After a reset cursors begin anew, and the frame that was broken off starts where a new one does.
#[test]
fn without_its_epoch_what_was_copied_ahead_comes_into_a_frame_of_another() {
    let without_it = Check::Law(Law { ahead_epoch: false, ..Law::WHOLE });
    for fault in [Fault::Reset(0), Fault::Reset(2)] {
        for camera in [FOLLOWED, FOLLOWED_BARE].into_iter().flat_map(with_gaps) {
            let camera = Camera { layout: SHORT, fault, ..camera };
            assert!(is_fooled(camera, without_it), "{camera:?}");
        }
    }
}
