//! Against the law there is nothing, where it promises something.

use super::check::{Check, Clock, Guard, Law};
use super::explore::Found;
use super::rings::{
    ACROSS, BYTES, COUNTED, COUNTED_BARE, EQUAL, GAPS, LAW, NEVER_ALIGNED, POINTED, STAMPED,
    UNEQUAL, damaged, is_fooled, not_whole,
};
use super::world::{Burst, Camera, Fault, Gap, Interrupts, Layout, Memory};

/// Explores all these cameras, and demands that each delivers, but only what is whole.
#[track_caller]
pub fn all_whole(cameras: impl IntoIterator<Item = Camera>, check: Check) -> Found {
    let mut sum = Found::default();
    for camera in cameras {
        // Where a gap is skipped, a lost interrupt leaves the header of the lap before: see below.
        let may_be_old = camera.gap == Gap::Skip && camera.interrupts == Interrupts::Late;
        let explore = if may_be_old { damaged } else { not_whole };
        let found = explore(camera, check);
        assert_eq!(found.way, None, "{camera:?}");
        assert!(found.whole > 0 && found.refused > 0, "{found:?} of {camera:?}");
        sum += found;
    }
    sum
}

/// The same camera with each of the three gaps.
pub fn with_gaps(camera: Camera) -> impl Iterator<Item = Camera> {
    GAPS.into_iter().map(move |gap| Camera { gap, ..camera })
}

#[test]
fn with_counters_on_a_bare_ring() {
    let mut cameras = vec![];
    for layout in [EQUAL, UNEQUAL, NEVER_ALIGNED] {
        for memory in [Memory::Fifo, Memory::Weak] {
            for burst in [Burst::Chunk, Burst::Frame] {
                cameras.extend(with_gaps(Camera { layout, memory, burst, ..COUNTED_BARE }));
            }
        }
    }
    let found = all_whole(cameras, LAW);
    assert!(found.states > 200_000 && found.whole > 5_000, "{found:?}");
}

#[test]
fn with_counters_and_a_prompt_interrupt_handler() {
    let mut cameras = vec![];
    for layout in [EQUAL, UNEQUAL, NEVER_ALIGNED] {
        for burst in [Burst::Chunk, Burst::Frame] {
            cameras.extend(with_gaps(Camera { layout, burst, ..COUNTED }));
        }
    }
    let weak = |layout| Camera { layout, memory: Memory::Weak, ..COUNTED };
    cameras.extend([EQUAL, UNEQUAL].into_iter().flat_map(|layout| with_gaps(weak(layout))));
    let found = all_whole(cameras, LAW);
    assert!(found.states > 500_000 && found.whole > 5_000, "{found:?}");
}

/// An interrupt may come while the FPGA is one frame ahead, or be lost to the next one's.
#[test]
fn with_counters_and_a_late_interrupt_handler() {
    let late = Camera { interrupts: Interrupts::Late, ..COUNTED };
    let cameras = [EQUAL, UNEQUAL].map(|layout| Camera { layout, ..late });
    let found = all_whole(cameras.into_iter().flat_map(with_gaps), LAW);
    assert!(found.states > 1_000_000 && found.whole > 15_000, "{found:?}");
}

#[test]
fn with_counters_a_late_interrupt_handler_and_weak_memory() {
    let memory = Memory::Weak;
    let late = Camera { interrupts: Interrupts::Late, burst: Burst::Frame, memory, ..COUNTED };
    let cameras = [EQUAL, UNEQUAL].map(|layout| Layout { laps: 2, ..layout });
    let cameras = cameras.into_iter().flat_map(|layout| with_gaps(Camera { layout, ..late }));
    let found = all_whole(cameras, LAW);
    assert!(found.states > 1_000_000 && found.whole > 5_000, "{found:?}");
}

/// A frame that is broken off, one that holds FF FF, and a reset in mid-frame.
#[test]
fn with_counters_when_the_camera_fails() {
    let mut cameras = vec![];
    for layout in [EQUAL, UNEQUAL] {
        for fault in [Fault::Unescaped(4), Fault::Reset(4)] {
            cameras.extend(with_gaps(Camera { layout, fault, ..COUNTED }));
            cameras.extend(with_gaps(Camera { layout, fault, ..COUNTED_BARE }));
        }
        // Payload that leads back as a trailer would, and an aborted frame behind it: see below.
        let layout = Layout { lookalikes: false, ..layout };
        for fault in [Fault::Aborted(4), Fault::Aborted(5)] {
            cameras.extend(with_gaps(Camera { layout, fault, ..COUNTED_BARE }));
            cameras.extend(with_gaps(Camera { layout, fault, ..COUNTED }));
        }
    }
    let found = all_whole(cameras, LAW);
    assert!(found.states > 1_000_000 && found.whole > 10_000, "{found:?}");
}

/// `reserved` is the pointer and the largest slot, and the pointer is believed only while it cannot
/// have gone round: less than a ring but for a slot may have been moved since it was read.
#[test]
fn with_a_pointer_that_wraps() {
    let mut cameras = vec![];
    for layout in [EQUAL, UNEQUAL] {
        cameras.extend(with_gaps(Camera { layout, ..POINTED }));
    }
    // A skipped gap shows the old header when the pointer has moved and the stamp has not come.
    let stamped = with_gaps(Camera { interrupts: Interrupts::Prompt, ..POINTED });
    cameras.extend(stamped.filter(|camera| camera.gap != Gap::Skip));
    cameras.push(Camera { interrupts: Interrupts::Late, ..POINTED });
    let found = all_whole(cameras, LAW);
    assert!(found.states > 2_000_000 && found.whole > 300, "{found:?}");
}

/// One word more, and the pointer can be back where it was: the words of the frame that is being
/// written have been moved already.
#[test]
fn a_pointer_is_not_to_be_believed_for_a_ring_but_for_a_slot() {
    let up_to = Check::Law(Law { clock: Clock::UpTo, ..Law::WHOLE });
    assert!(GAPS.into_iter().all(|gap| is_fooled(Camera { gap, ..POINTED }, up_to)));
}

/// Without counters, where the gap is zeroed and stores arrive in address order: chunk for chunk is
/// enough, with or without numbers in the headers.
#[test]
fn stamped_without_counters_where_the_gap_is_zeroed() {
    let kinds = [
        (Memory::Fifo, Interrupts::Prompt),
        (Memory::Fifo, Interrupts::Late),
        (Memory::Weak, Interrupts::Prompt),
    ];
    let mut cameras = vec![];
    for layout in [EQUAL, UNEQUAL, ACROSS] {
        for (memory, interrupts) in kinds {
            for (gap, numbered) in [(Gap::Zero, false), (Gap::Zero, true), (Gap::Late, true)] {
                let layout = Layout { numbered, ..layout };
                cameras.push(Camera { layout, memory, interrupts, gap, ..STAMPED });
            }
        }
    }
    let found = all_whole(cameras, LAW);
    assert!(found.states > 200_000 && found.whole > 1_000, "{found:?}");
}

/// The same without headers, as long as payload does not imitate a trailer.
#[test]
fn bytes_alone_where_the_gap_is_zeroed_and_nothing_imitates_a_trailer() {
    let mut cameras = vec![];
    for layout in [EQUAL, UNEQUAL, NEVER_ALIGNED, ACROSS] {
        for memory in [Memory::Fifo, Memory::Weak] {
            for gap in [Gap::Zero, Gap::Late] {
                let layout = Layout { lookalikes: false, ..layout };
                cameras.push(Camera { layout, memory, gap, ..BYTES });
            }
        }
    }
    let found = all_whole(cameras, LAW);
    assert!(found.states > 20_000 && found.whole > 500, "{found:?}");
}

/// What is not promised: bytes alone that do imitate one, or with a gap that may be skipped.
#[test]
fn bytes_alone_may_look_like_a_frame() {
    assert!(damaged(BYTES, LAW).way.is_some());
    let layout = Layout { lookalikes: false, ..ACROSS };
    assert!(is_fooled(Camera { layout, gap: Gap::Skip, ..BYTES }, LAW));
}

/// What is not promised: in front of the first frame of a ring nothing stands that the writer would
/// have to destroy. A gap that is zeroed there goes unseen, and the payload behind it comes to the
/// slot; but the header's last word is whole, so that the payload of the frame is.
#[test]
fn the_first_frame_of_a_ring_without_counters_may_have_half_a_header() {
    let check = Check::Law(Law { guard: Guard::TrailerOrNothing, ..Law::WHOLE });
    let first = not_whole(Camera { layout: UNEQUAL, ..STAMPED }, check);
    assert!(first.way.is_some());
    for gap in [Gap::Zero, Gap::Late] {
        assert!(!is_fooled(Camera { layout: UNEQUAL, gap, ..STAMPED }, check), "{gap:?}");
        // Where a trailer comes to stand at the end of the ring, it is seen.
        all_whole([Camera { gap, ..STAMPED }], check);
    }
}

/// What is not promised: where the gap is skipped, the header of the lap before stands there until
/// the new one is stamped. The payload is whole.
#[test]
fn a_skipped_gap_without_counters_may_show_an_old_header() {
    for layout in [EQUAL, UNEQUAL, ACROSS] {
        let found = damaged(Camera { layout, gap: Gap::Skip, ..STAMPED }, LAW);
        assert!(found.way.is_none() && found.other_header > 0, "{found:?}");
    }
}

/// What is not promised: a header that was never stamped, where the gap is not zeroed.
#[test]
fn a_skipped_gap_and_a_lost_interrupt_leave_an_old_header() {
    let camera = Camera { gap: Gap::Skip, interrupts: Interrupts::Late, ..COUNTED };
    let found = damaged(camera, LAW);
    assert!(found.way.is_none() && found.other_header > 0, "{found:?}");
}

/// What is not promised: a chain of trailers that an aborted frame's stale one leads astray, to
/// payload that is a trailer in every byte and leads back to the start.
#[test]
fn an_aborted_frame_behind_payload_that_imitates_a_trailer() {
    let layout = Layout { lookalikes: true, ..EQUAL };
    assert!(is_fooled(Camera { layout, fault: Fault::Aborted(4), ..COUNTED_BARE }, LAW));
}
