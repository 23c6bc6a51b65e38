//! What was really written, to hold what comes out against it.

use std::cell::Cell;

use circbuf_driver::frame::Frame;
use circbuf_driver::record::RecordHeader;
use circbuf_driver::ring::Timestamp;
use circbuf_tests::{SteppedCamera, Truth};

/// What the driver promises on a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promise {
    /// With counters: whole frames, and each by its number.
    Counted,
    /// With a pointer: whole frames, and each by its number as long as the driver says so.
    Pointed,
    /// Stamped in gaps that are zeroed: whole frames; times have to tell which is which.
    Stamped,
    /// Bare bytes: no more than that the books close.
    Books,
}

/// How the driver numbers frames that it counts itself.
#[derive(Debug, Default)]
pub(crate) struct Numbering {
    /// Number by the camera less that by the driver, once it is known.
    pub(crate) ahead: Cell<Option<u64>>,
    /// Below this number it promises them.
    pub(crate) until: Cell<u64>,
}

/// The camera's frames, and what is promised of them.
#[derive(Clone, Copy)]
pub(crate) struct Truths<'a> {
    camera: &'a SteppedCamera,
    promise: Promise,
    numbering: &'a Numbering,
}

impl<'a> Truths<'a> {
    pub(crate) fn of(
        camera: &'a SteppedCamera,
        promise: Promise,
        numbering: &'a Numbering,
    ) -> Truths<'a> {
        Truths { camera, promise, numbering }
    }

    pub(crate) fn check(&self, frame: &Frame) {
        self.check_parts(frame.record_header(), frame.time(), frame.payload());
        // A fault may change the kind of picture, or the header.
        let is_known = self.promise != Promise::Books && self.camera.faults().is_none();
        let quality2 = frame.geometry().quality2;
        assert!(!is_known || quality2 == 0x5050, "stamped or by the register page");
    }

    pub(crate) fn check_parts(&self, header: &RecordHeader, time: Timestamp, payload: &[u8]) {
        let ring_bytes = self.camera.fpga().file().ring_bytes();
        let place = (header.epoch, header.cursor);
        let is_there = |truth: &Truth| match self.promise {
            Promise::Counted => place == (truth.entry.epoch, truth.entry.start),
            Promise::Pointed => header.cursor % ring_bytes == truth.entry.offset,
            Promise::Stamped | Promise::Books => true,
        };
        let is_it = |truth: &Truth| {
            let entry = &truth.entry;
            let written = (entry.length, entry.crc32c, entry.sec, entry.usec);
            let crc32c = crc_fast::crc32_iscsi(payload);
            is_there(truth) && (payload.len() as u32, crc32c, time.sec, time.usec) == written
        };
        let truth = match self.promise {
            Promise::Counted => self.camera.truth(header.sequence),
            Promise::Pointed => self.pointed(header.sequence, is_it),
            Promise::Stamped => self.camera.truth_at(time),
            Promise::Books => return,
        };
        let truth = truth.unwrap_or_else(|| panic!("no frame was like {header:?} {time}"));
        let entry = &truth.entry;
        assert!(truth.is_lawful(), "damaged and delivered: {header:?} {entry:?}");
        assert!(is_it(truth), "{header:?} {time} {entry:?}");
    }

    /// The frame of a number that the driver promises, or else one that is like it. The first frame tells
    /// where the driver began to count.
    fn pointed(&self, sequence: u64, is_it: impl Fn(&Truth) -> bool) -> Option<&Truth> {
        let like = || self.camera.truths().find(|(_, truth)| is_it(truth));
        if sequence >= self.numbering.until.get() {
            return like().map(|(_, truth)| truth);
        }
        let ahead = self.numbering.ahead.get().or_else(|| Some(like()?.0.wrapping_sub(sequence)));
        self.numbering.ahead.set(ahead);
        self.camera.truth(sequence.wrapping_add(ahead?))
    }
}
