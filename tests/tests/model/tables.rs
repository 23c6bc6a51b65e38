//! The tables in the documentation of `validate` are those that the model finds.

use std::fmt::Write as _;

use super::check::{Check, Clock, Guard, Law};
use super::counterexample::table;
use super::explore::explore;
use super::machine::Machine;
use super::reader::Copied;
use super::rings::{ACROSS, COUNTED, COUNTED_BARE, FOLLOWED_BARE, LAW, POINTED, SHORT, STAMPED};
use super::world::{Breach, Burst, Camera, Fault, Gap, Interrupts};

/// One counterexample: what it shows, and where it is found.
struct Case {
    title: &'static str,
    camera: Camera,
    check: Check,
    /// What is delivered.
    copied: Copied,
}

const SHORTEST: Camera = Camera { layout: SHORT, ..STAMPED };

fn case(title: &'static str, camera: Camera, check: Check) -> Case {
    Case { title, camera, check, copied: Copied::Damaged }
}

/// Of copies that begin before their frame is complete.
fn ahead() -> [Case; 4] {
    let (law, followed) = (Law::WHOLE, Camera { layout: SHORT, ..FOLLOWED_BARE });
    [
        case(
            "A copy that began ahead is torn as any other one: the law without point 4 for it",
            followed,
            Check::Law(Law { reach_ahead: false, ..law }),
        ),
        case(
            "What was copied ahead belongs to one frame: the law without its start",
            followed,
            Check::Law(Law { ahead_start: false, ..law }),
        ),
        case(
            "And to one epoch, because cursors return to 0: the law without its epoch",
            Camera { fault: Fault::Reset(0), ..followed },
            Check::Law(Law { ahead_epoch: false, ..law }),
        ),
        case(
            "Broken assumption: `written` published in front of the bytes",
            Camera { breach: Breach::WrittenBeforeBytes, ..followed },
            LAW,
        ),
    ]
}

fn cases() -> [Case; 8] {
    let law = Law::WHOLE;
    [
        case("FF FF before the copy says nothing about the copy", SHORTEST, Check::SignatureBefore),
        case(
            "FF FF after the copy may be that of a new frame at the same start",
            SHORTEST,
            Check::SignatureAfter,
        ),
        case(
            "Where the gap is skipped it may be the old one",
            Camera { gap: Gap::Skip, ..SHORTEST },
            Check::SignatureAfter,
        ),
        Case {
            copied: Copied::OtherHeader,
            ..case(
                "Half a header is behind FF FF as well: the law without the trailer in front",
                SHORTEST,
                Check::Law(Law { guard: Guard::Off, ..law }),
            )
        },
        case(
            "A pointer that moves at the end of a frame is behind the writer: the law without margin",
            Camera { layout: ACROSS, burst: Burst::Frame, ..POINTED },
            Check::Law(Law { margin: false, ..law }),
        ),
        case(
            "A pointer that has gone round looks as if it had not moved: the law without clock",
            POINTED,
            Check::Law(Law { clock: Clock::Off, ..law }),
        ),
        case(
            "Broken assumption: `reserved` announced behind the bytes",
            Camera {
                layout: ACROSS,
                burst: Burst::Frame,
                breach: Breach::ReservedAfterBytes,
                ..COUNTED_BARE
            },
            LAW,
        ),
        case(
            "Broken assumption: an interrupt handler that is a lap late",
            Camera {
                layout: ACROSS,
                burst: Burst::Frame,
                interrupts: Interrupts::LapLate,
                ..COUNTED
            },
            LAW,
        ),
    ]
}

fn document() -> String {
    let mut text = String::new();
    for Case { title, camera, check, copied } in cases().into_iter().chain(ahead()) {
        let machine = Machine::new(camera, check);
        let found = explore(&machine, |delivered| delivered == copied);
        let way = found.way.expect("there is a counterexample");
        write!(text, "## {title}\n\n{}\n", table(&machine, way)).expect("a string takes it");
    }
    text
}

#[test]
fn the_documentation_shows_what_the_model_finds() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../driver/src/validate/counterexamples.md");
    let found = document();
    if std::env::var_os("CIRCBUF_WRITE_TABLES").is_some() {
        std::fs::write(path, &found).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap();
    assert!(
        written == found,
        "driver/src/validate/counterexamples.md is out of date; write it anew with\n    \
         CIRCBUF_WRITE_TABLES=1 cargo test -p circbuf-tests --test model\nthe model finds\n{found}"
    );
}
