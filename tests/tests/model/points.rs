//! Each point of the law is needed: switched off, it lets something through that the whole law
//! does not.

use super::check::{Check, Guard, Law};
use super::rings::{
    BYTES, COUNTED, COUNTED_BARE, EQUAL, GAPS, LAW, STAMPED, UNEQUAL, damaged, is_fooled, not_whole,
};
use super::world::{Camera, Fault, Gap, Interrupts, Layout};

/// That it is just this point which holds this camera's frames.
#[track_caller]
fn holds(camera: Camera, without_it: Law) {
    assert!(is_fooled(camera, Check::Law(without_it)), "{camera:?}");
    assert!(!is_fooled(camera, LAW), "{camera:?}");
}

/// A broken-off frame ends in the trailer of the frame before, whose length leads somewhere else.
#[test]
fn without_point_1_a_stale_trailer_is_taken_for_a_frame() {
    for layout in [EQUAL, UNEQUAL].map(|layout| Layout { lookalikes: false, ..layout }) {
        for gap in GAPS {
            // The last one is as long as the frame before, so that the stale trailer fits.
            for number in [4, 5] {
                let camera = Camera { layout, gap, fault: Fault::Aborted(number), ..COUNTED_BARE };
                holds(camera, Law { start_and_end: false, ..Law::WHOLE });
            }
        }
    }
}

/// Until the gap is zeroed the header of the lap before stands in front of the next frame, and its
/// trailer behind: only its time tells that it is old.
#[test]
fn without_the_time_of_point_1_an_old_frame_is_delivered_again() {
    let camera = Camera { gap: Gap::Late, ..STAMPED };
    holds(camera, Law { start_and_end: false, ..Law::WHOLE });
}

#[test]
fn without_point_2_payload_with_a_signature_is_delivered() {
    for camera in [COUNTED, COUNTED_BARE] {
        for gap in GAPS {
            let camera = Camera { gap, fault: Fault::Unescaped(4), ..camera };
            holds(camera, Law { content: false, ..Law::WHOLE });
        }
    }
}

/// With counters point 4 covers it, so that a stamped ring without them shows it.
#[test]
fn without_point_3_a_torn_frame_is_delivered_where_there_are_no_counters() {
    let without_it = Law { kept: false, ..Law::WHOLE };
    for gap in [Gap::Zero, Gap::Late] {
        holds(Camera { gap, ..STAMPED }, without_it);
    }
    for camera in [COUNTED, COUNTED_BARE] {
        let found = damaged(camera, Check::Law(without_it));
        assert!(found.way.is_none() && found.whole > 0, "{found:?}");
    }
}

/// The FPGA zeroes a slot upwards, the signature last: half a header has FF FF and the length.
#[test]
fn without_the_trailer_in_front_half_a_header_is_delivered_where_there_are_no_counters() {
    let without_it = Law { guard: Guard::Off, ..Law::WHOLE };
    for gap in [Gap::Zero, Gap::Late] {
        let camera = Camera { gap, ..STAMPED };
        assert!(not_whole(camera, Check::Law(without_it)).way.is_some(), "{gap:?}");
        assert!(not_whole(camera, LAW).way.is_none(), "{gap:?}");
    }
    // Worse is what happens where the gap is skipped, where headers have no number, and where there
    // are none.
    holds(Camera { gap: Gap::Skip, ..STAMPED }, without_it);
    holds(Camera { layout: Layout { numbered: false, ..EQUAL }, ..STAMPED }, without_it);
    holds(Camera { layout: Layout { lookalikes: false, ..EQUAL }, ..BYTES }, without_it);
}

/// Without it nobody looks whether the header that was copied is one.
#[test]
fn without_point_3_a_frame_is_delivered_with_no_header_where_there_are_counters() {
    let lost = Camera { interrupts: Interrupts::Late, ..COUNTED };
    let without_it = Check::Law(Law { kept: false, ..Law::WHOLE });
    assert!(not_whole(lost, without_it).way.is_some());
    assert!(not_whole(lost, LAW).way.is_none());
}

#[test]
fn without_point_4_a_torn_frame_is_delivered() {
    for gap in GAPS {
        holds(Camera { gap, ..COUNTED_BARE }, Law { reach: false, ..Law::WHOLE });
    }
    // On a stamped ring point 3 is left, which a skipped gap defeats.
    holds(Camera { gap: Gap::Skip, ..COUNTED }, Law { reach: false, ..Law::WHOLE });
}

#[test]
fn without_the_epoch_of_point_4_a_reset_makes_the_writer_look_far_behind() {
    for camera in [COUNTED, COUNTED_BARE] {
        for gap in GAPS {
            let camera = Camera { gap, fault: Fault::Reset(4), ..camera };
            holds(camera, Law { epoch: false, ..Law::WHOLE });
        }
    }
}
