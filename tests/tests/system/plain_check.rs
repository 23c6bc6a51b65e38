//! The model's counterexamples against a plain check for FF FF, on the real objects: the emulator's
//! FPGA takes the writer's turns, and the driver's tail and copy the reader's.
//!
//! The schedules are the first three tables in the documentation of `circbuf_driver::validate`, but
//! that this ring holds four frames and the model's holds two.

use circbuf_driver::copy::Manner;
use circbuf_driver::device::Device;
use circbuf_driver::loss::{LossReason, Refusal};
use circbuf_driver::record::{PAYLOAD_OFFSET, frame_body_bytes, record_bytes};
use circbuf_driver::ring::padded;
use circbuf_driver::slab::SlabPool;
use circbuf_driver::tail::{StartAt, Step, Tail};
use circbuf_driver::validate::{Candidate, copy_and_check};
use circbuf_emulator::model::Gap;
use circbuf_tests::SteppedCamera;

/// Four slots of 1024 bytes: every frame lands on the start of an old one.
const RING: u64 = 4096;
const LENGTH: usize = 970;

/// A row of the table.
#[derive(Debug, Clone, Copy)]
enum Turn {
    /// The FPGA writes what is left of the frame in work, or a whole one, and it is stamped.
    Frame,
    /// The FPGA writes so many chunks.
    Chunks(u64),
    /// The reader looks for FF FF and for the length in front of the frame.
    Checks,
    Copies,
}

use Turn::{Checks, Chunks, Copies, Frame};

/// The frames between the one that is read and the one that lands on it.
const ROUND: [Turn; 3] = [Frame; 3];

/// A reader that does what it does by its own checks alone.
struct PlainReader {
    candidate: Candidate,
    copy: Vec<u8>,
    /// Whether all checks until now were content.
    content: bool,
}

impl PlainReader {
    fn check(&mut self, device: &Device) {
        let header = device.ring().header(self.candidate.start);
        let as_long = header.length() == self.candidate.trailer.length;
        self.content &= header.is_stamped() && as_long;
    }

    fn copy(&mut self, device: &Device) {
        let length = self.candidate.trailer.length;
        let mut target = vec![0; padded(length) as usize];
        let _ =
            device.ring().copy_frame(self.candidate.start, length, &mut target, Manner::default());
        target.truncate(length as usize);
        self.copy = target;
    }
}

/// What became of the frame that was read.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    delivered_by_plain_check: bool,
    is_damaged: bool,
    /// What the law said when the copy was made, and at the end.
    by_law: [Result<(), (Refusal, LossReason)>; 2],
}

fn law(device: &Device, candidate: &Candidate, truth: &[u8]) -> Result<(), (Refusal, LossReason)> {
    let pool = SlabPool::new(64 << 10);
    let length = candidate.trailer.length;
    let mut slab = pool.take(record_bytes(frame_body_bytes(length))).unwrap();
    copy_and_check(device, candidate, &mut slab)
        .map(|()| assert_eq!(&slab[PAYLOAD_OFFSET..][..length as usize], truth))
        .map_err(|refused| (refused.refusal, refused.reason))
}

fn play(gap: Gap, turns: impl IntoIterator<Item = Turn>) -> Outcome {
    let mut camera = SteppedCamera::new(RING, LENGTH as u32, gap, true);
    let device = camera.device(true);
    let mut tail = Tail::attach(&device, StartAt::Newest).unwrap();
    camera.emit(LENGTH);
    let Step::Frame(candidate) = tail.poll(&device).unwrap() else { panic!("a frame is whole") };
    let truth = camera.truth(0).unwrap().payload.clone();
    let mut reader = PlainReader { candidate, copy: vec![], content: true };
    let mut at_copy = None;
    for turn in turns {
        match turn {
            Frame => camera.emit(LENGTH),
            Chunks(count) => {
                for _ in 0..count {
                    camera.step(LENGTH);
                }
            }
            Checks => reader.check(&device),
            Copies => {
                reader.copy(&device);
                at_copy = Some(law(&device, &candidate, &truth));
            }
        }
    }
    Outcome {
        delivered_by_plain_check: reader.content,
        is_damaged: reader.copy != truth,
        by_law: [at_copy.unwrap(), law(&device, &candidate, &truth)],
    }
}

/// What the plain check delivers is damaged, and the law refuses it at both moments.
#[track_caller]
fn only_the_law_refuses(gap: Gap, turns: impl IntoIterator<Item = Turn>) {
    let outcome = play(gap, turns);
    assert!(outcome.delivered_by_plain_check && outcome.is_damaged, "{gap:?}: {outcome:?}");
    for by_law in outcome.by_law {
        assert!(matches!(by_law, Err((_, LossReason::Torn))), "{gap:?}: {by_law:?}");
    }
}

#[test]
fn checked_before_the_copy_alone() {
    for gap in circbuf_tests::GAPS {
        only_the_law_refuses(gap, [Checks].into_iter().chain(ROUND).chain([Chunks(1), Copies]));
    }
}

#[test]
fn checked_before_and_after_the_copy_while_a_new_frame_took_the_same_start() {
    for gap in circbuf_tests::GAPS {
        let copied_torn = [Chunks(1), Copies, Frame, Checks];
        only_the_law_refuses(gap, [Checks].into_iter().chain(ROUND).chain(copied_torn));
    }
}

#[test]
fn checked_before_and_after_the_copy_where_the_gap_is_skipped() {
    let turns = ROUND.into_iter().chain([Chunks(1), Checks, Copies, Checks]);
    only_the_law_refuses(Gap::Skip, turns.clone());
    // Point 3 sees nothing, as in the table; it is the counters that do.
    let [at_copy, _] = play(Gap::Skip, turns.clone()).by_law;
    assert!(matches!(at_copy, Err((Refusal::Overtaken, _))), "{at_copy:?}");
    // A gap that is zeroed shows it to the plain check as well.
    assert!(!play(Gap::Zero, turns).delivered_by_plain_check);
}

/// The same reader, when the writer has not come round: both deliver.
#[test]
fn nothing_is_refused_while_the_writer_is_elsewhere() {
    for gap in circbuf_tests::GAPS {
        let outcome = play(gap, [Checks, Frame, Frame, Copies, Checks]);
        let both =
            Outcome { delivered_by_plain_check: true, is_damaged: false, by_law: [Ok(()), Ok(())] };
        assert_eq!(outcome, both, "{gap:?}");
    }
}
