//! The rings that the tests explore, and how they ask.

use super::check::{Check, Law};
use super::explore::{Found, explore};
use super::machine::Machine;
use super::reader::Copied;
use super::world::{Breach, Burst, Camera, Fault, Gap, Interrupts, Layout, Memory, Tells};

pub const GAPS: [Gap; 3] = [Gap::Zero, Gap::Late, Gap::Skip];

/// Three equal frames fill the ring: each lands on the start of an old one.
pub const EQUAL: Layout =
    Layout { ring: 15, lengths: &[2], laps: 3, lookalikes: true, numbered: true };

/// Two of them: the shortest way round.
pub const SHORT: Layout = Layout { ring: 10, ..EQUAL };

/// Slots of different sizes. In the third lap some start where a frame of the first one did.
pub const UNEQUAL: Layout = Layout { ring: 16, lengths: &[3, 1, 1], ..EQUAL };

/// No frame starts where any other one did.
pub const NEVER_ALIGNED: Layout = Layout { ring: 16, lengths: &[3, 5], ..EQUAL };

/// Equal frames that do not divide the ring: the third one runs across its end, into the first.
pub const ACROSS: Layout = Layout { ring: 14, lengths: &[3], ..EQUAL };

/// A lawful camera with counters.
pub const COUNTED: Camera = Camera {
    layout: EQUAL,
    gap: Gap::Zero,
    interrupts: Interrupts::Prompt,
    tells: Tells::Counters,
    memory: Memory::Fifo,
    burst: Burst::Chunk,
    fault: Fault::None,
    breach: Breach::None,
};

/// The same, bare.
pub const COUNTED_BARE: Camera = Camera { interrupts: Interrupts::None, ..COUNTED };

/// And with `written`.
pub const FOLLOWED: Camera = Camera { tells: Tells::Written, ..COUNTED };

/// The same, bare.
pub const FOLLOWED_BARE: Camera = Camera { tells: Tells::Written, ..COUNTED_BARE };

/// A stamped ring that tells nothing else.
pub const STAMPED: Camera = Camera { tells: Tells::Nothing, ..COUNTED };

/// A bare ring that tells nothing else.
pub const BYTES: Camera = Camera { interrupts: Interrupts::None, ..STAMPED };

/// A real camera's pointer, on a bare ring.
pub const POINTED: Camera = Camera { tells: Tells::Pointer, ..COUNTED_BARE };

pub const LAW: Check = Check::Law(Law::WHOLE);

/// Looks for a damaged frame that is delivered.
pub fn damaged(camera: Camera, check: Check) -> Found {
    explore(&Machine::new(camera, check), |copied| copied == Copied::Damaged)
}

/// Looks for a damaged frame, or one with another one's header.
pub fn not_whole(camera: Camera, check: Check) -> Found {
    explore(&Machine::new(camera, check), |copied| copied != Copied::Whole)
}

/// Whether this check delivers a damaged frame of this camera.
pub fn is_fooled(camera: Camera, check: Check) -> bool {
    let found = damaged(camera, check);
    assert!(found.way.is_some() || found.whole > 0, "it delivers something: {camera:?}");
    found.way.is_some()
}
