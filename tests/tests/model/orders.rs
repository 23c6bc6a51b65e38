//! What the law assumes of a writer, and what happens if it does not hold.
//!
//! With counters the order of the bytes does not matter within what `reserved` has announced and
//! `complete` has not; without them it is all there is.

use super::rings::{
    ACROSS, COUNTED, COUNTED_BARE, EQUAL, LAW, POINTED, SHORT, STAMPED, is_fooled, not_whole,
};
use super::world::{Breach, Burst, Camera, Gap, Interrupts, Layout, Memory, Tells};

/// Cameras with counters, bare and stamped, whose frames go out in one burst in the wrong order.
fn counted(breach: Breach, memory: Memory) -> impl Iterator<Item = Camera> {
    let (layout, burst) = (ACROSS, Burst::Frame);
    let layout = Layout { laps: 2, ..layout };
    [COUNTED, COUNTED_BARE].into_iter().flat_map(move |camera| {
        [Gap::Zero, Gap::Late].map(|gap| Camera { layout, burst, breach, memory, gap, ..camera })
    })
}

/// A stamped ring without counters whose gap is zeroed with the next frame.
fn stamped_late(breach: Breach) -> Camera {
    Camera { layout: SHORT, gap: Gap::Late, burst: Burst::Frame, breach, ..STAMPED }
}

#[test]
fn with_counters_the_order_of_bytes_within_a_burst_is_free() {
    use Breach::{Descending, GapAfterPayload, GapUnfenced, PayloadAfterTrailer};
    for breach in [Descending, GapAfterPayload, GapUnfenced, PayloadAfterTrailer] {
        for camera in counted(breach, Memory::Weak) {
            assert!(!is_fooled(camera, LAW), "{camera:?}");
        }
    }
}

#[test]
fn reserved_has_to_be_announced_before_the_bytes() {
    for camera in counted(Breach::ReservedAfterBytes, Memory::Fifo) {
        // Point 3 is left on a stamped ring.
        let is_bare = camera.interrupts == Interrupts::None;
        assert_eq!(is_fooled(camera, LAW), is_bare, "{camera:?}");
    }
}

#[test]
fn reserved_has_to_be_fenced() {
    for camera in counted(Breach::ReservedUnfenced, Memory::Weak) {
        // Where the gap is zeroed, and fenced, in the same burst, `reserved` is in front of that.
        assert_eq!(is_fooled(camera, LAW), camera.gap == Gap::Zero, "{camera:?}");
    }
    for camera in counted(Breach::ReservedUnfenced, Memory::Fifo) {
        assert!(!is_fooled(camera, LAW), "{camera:?}");
    }
}

#[test]
fn complete_has_to_come_behind_the_bytes() {
    let breach = Breach::CompleteBeforeBytes;
    for gap in [Gap::Zero, Gap::Late] {
        assert!(is_fooled(Camera { gap, breach, ..COUNTED_BARE }, LAW), "{gap:?}");
    }
}

/// Without a handler and without counters, the trailer is what says that the payload is there.
#[test]
fn payload_has_to_come_before_the_trailer_where_there_are_only_bytes() {
    let layout = Layout { laps: 1, lookalikes: false, ..EQUAL };
    let bytes = Camera { layout, tells: Tells::Nothing, burst: Burst::Frame, ..COUNTED_BARE };
    assert!(!is_fooled(bytes, LAW));
    assert!(is_fooled(Camera { breach: Breach::PayloadAfterTrailer, ..bytes }, LAW));
    // A handler stamps when all is there.
    assert!(!is_fooled(stamped_late(Breach::PayloadAfterTrailer), LAW));
}

/// Where frames start at the start of old ones, the trailer in front of the gap protects what comes
/// behind it in any order. Elsewhere the first thing that the writer destroys has to be in front.
#[test]
fn the_gap_has_to_be_zeroed_before_the_payload_where_there_are_no_counters() {
    use Breach::{Descending, GapAfterPayload, GapUnfenced};
    for breach in [Breach::None, GapAfterPayload, GapUnfenced, Descending] {
        assert!(not_whole(stamped_late(breach), LAW).way.is_none(), "{breach:?}");
    }
    let across = |breach| Camera { layout: ACROSS, ..stamped_late(breach) };
    assert!(not_whole(across(Breach::None), LAW).way.is_none());
    assert!(is_fooled(across(Descending), LAW));
    // Then it is the header that is not whole.
    assert!(not_whole(across(GapAfterPayload), LAW).way.is_some());
    assert!(!is_fooled(across(GapAfterPayload), LAW));
    // Where memory is weak, an order of the program alone is none.
    assert!(not_whole(across(GapUnfenced), LAW).way.is_none());
    let weak = |breach| Camera { memory: Memory::Weak, ..across(breach) };
    assert!(not_whole(weak(Breach::None), LAW).way.is_none());
    assert!(is_fooled(weak(GapUnfenced), LAW));
}

/// The payload is whole then as well, because the handler comes behind it: it is the header that is
/// not.
#[test]
fn the_signature_has_to_be_stamped_last() {
    let breach = Breach::SignatureFirst;
    let stamped = Camera { layout: SHORT, breach, ..STAMPED };
    let pointed = Camera { interrupts: Interrupts::Prompt, breach, ..POINTED };
    for camera in [stamped, pointed] {
        assert!(not_whole(camera, LAW).way.is_some(), "{camera:?}");
        assert!(!is_fooled(camera, LAW), "{camera:?}");
    }
    // `complete` is published behind the header.
    assert!(not_whole(Camera { breach, ..COUNTED }, LAW).way.is_none());
}

/// A handler that is a whole lap late writes into the payload of a frame, where no point looks until
/// the signature is there.
#[test]
fn the_handler_has_to_be_done_before_the_writer_comes_round() {
    let late = Camera { layout: ACROSS, interrupts: Interrupts::Late, ..COUNTED };
    assert!(!is_fooled(late, LAW));
    assert!(is_fooled(Camera { interrupts: Interrupts::LapLate, ..late }, LAW));
}
