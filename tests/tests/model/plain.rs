//! The checks that programs on a camera make, or could make, and why each is too little.

use super::check::{Check, Clock, Law};
use super::rings::{
    ACROSS, COUNTED, EQUAL, GAPS, NEVER_ALIGNED, POINTED, STAMPED, UNEQUAL, is_fooled,
};
use super::world::{Breach, Camera, Gap, Interrupts, Layout, Tells};

/// Cameras with this layout that tell counters, or nothing, with handlers of both kinds.
fn stamped(layout: Layout) -> impl Iterator<Item = Camera> {
    let kinds = [(COUNTED, Interrupts::Prompt), (COUNTED, Interrupts::Late)];
    let kinds = kinds.into_iter().chain([(STAMPED, Interrupts::Prompt)]);
    kinds.flat_map(move |(camera, interrupts)| {
        GAPS.map(|gap| Camera { layout, interrupts, gap, ..camera })
    })
}

#[test]
fn a_signature_before_the_copy_says_nothing_about_the_copy() {
    for camera in [EQUAL, UNEQUAL, NEVER_ALIGNED].into_iter().flat_map(stamped) {
        assert!(is_fooled(camera, Check::SignatureBefore), "{camera:?}");
    }
}

#[test]
fn a_signature_after_the_copy_may_be_that_of_a_new_frame_at_the_same_start() {
    for camera in stamped(EQUAL) {
        assert!(is_fooled(camera, Check::SignatureAfter), "{camera:?}");
    }
}

/// Where no frame starts at an old start, a signature and a length after the copy are enough, even if
/// the gap is skipped: then it is the payload of another frame that destroys the slot.
#[test]
fn against_a_signature_after_the_copy_there_is_nothing_where_no_starts_agree() {
    for camera in stamped(NEVER_ALIGNED) {
        assert!(!is_fooled(camera, Check::SignatureAfter), "{camera:?}");
    }
}

/// The frame behind the pointer is being written, and runs into the one that is read.
#[test]
fn a_frame_end_pointer_without_margin_is_behind_the_writer() {
    let without_margin = Check::Law(Law { margin: false, ..Law::WHOLE });
    for gap in GAPS {
        let camera = Camera { layout: ACROSS, gap, ..POINTED };
        assert!(is_fooled(camera, without_margin), "{gap:?}");
        assert!(!is_fooled(camera, Check::Law(Law::WHOLE)), "{gap:?}");
    }
    // Equal slots that divide the ring end where the pointer stands: no frame runs into another.
    for gap in GAPS {
        assert!(!is_fooled(Camera { layout: EQUAL, gap, ..POINTED }, without_margin), "{gap:?}");
    }
}

#[test]
fn a_pointer_that_has_gone_round_looks_as_if_it_had_not_moved() {
    let without_clock = Check::Law(Law { clock: Clock::Off, ..Law::WHOLE });
    for gap in GAPS {
        assert!(is_fooled(Camera { gap, ..POINTED }, without_clock), "{gap:?}");
    }
}

#[test]
fn a_margin_is_worth_as_much_as_the_largest_frame_that_was_promised() {
    let layout = Layout { ring: 12, ..EQUAL };
    let lawful = Camera { layout, gap: Gap::Zero, tells: Tells::Pointer, ..POINTED };
    assert!(!is_fooled(lawful, Check::Law(Law::WHOLE)));
    let too_large = Camera { breach: Breach::TooLarge(4), ..lawful };
    assert!(is_fooled(too_large, Check::Law(Law::WHOLE)));
}
