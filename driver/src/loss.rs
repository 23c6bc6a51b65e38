//! Frames that are missing, as data: how many, why, and when.

use byteorder::{ByteOrder, LittleEndian};
use circbuf_abi::ring::MICROSECONDS;
use serde::{Deserialize, Serialize};

use crate::frame::Frame;
use crate::record::LOSS_BODY_BYTES;
use crate::ring::Timestamp;

/// Why frames are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossReason {
    /// The writer lapped the reader before it looked.
    Overrun,
    /// Overwritten, or changed, while it was copied.
    Torn,
    /// The bytes are no frame.
    Corrupt,
    /// No slab was free.
    NoSlab,
    /// The consumer's queue was full.
    QueueFull,
    /// The archive could not be written.
    Io,
}

impl LossReason {
    /// All reasons, in the order of their codes in a loss record, which count from 1.
    pub const ALL: [LossReason; 6] = [
        LossReason::Overrun,
        LossReason::Torn,
        LossReason::Corrupt,
        LossReason::NoSlab,
        LossReason::QueueFull,
        LossReason::Io,
    ];

    /// The name that stands in tables and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            LossReason::Overrun => "overrun",
            LossReason::Torn => "torn",
            LossReason::Corrupt => "corrupt",
            LossReason::NoSlab => "no_slab",
            LossReason::QueueFull => "queue_full",
            LossReason::Io => "io",
        }
    }

    /// The number that stands for it in a loss record.
    const fn code(self) -> u32 {
        self as u32 + 1
    }
}

/// Which point of the law of validity (see [`crate::validate`]) a refused frame failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Point 1: no lawful trailer leads from the end of the frame before to its own end.
    NoFrame,
    /// Point 1: the trailer is that of the frame before, left standing.
    Stale,
    /// Point 2: FF FF in the payload.
    Pair,
    /// Point 2: a byte between payload and trailer is not zero.
    Padding,
    /// Point 3: the trailer has changed, or the copy holds another one.
    Trailer,
    /// Point 3: no signature, a length that is not the trailer's, or the trailer in front is gone.
    Header,
    /// Point 4: the writer had come back to the slot in front, or the device was reset.
    Overtaken,
}

impl Refusal {
    /// All refusals, in the order of their codes in a loss record, which count from 1.
    pub const ALL: [Refusal; 7] = [
        Refusal::NoFrame,
        Refusal::Stale,
        Refusal::Pair,
        Refusal::Padding,
        Refusal::Trailer,
        Refusal::Header,
        Refusal::Overtaken,
    ];

    /// The name that stands in tables and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Refusal::NoFrame => "no_frame",
            Refusal::Stale => "stale",
            Refusal::Pair => "pair",
            Refusal::Padding => "padding",
            Refusal::Trailer => "trailer",
            Refusal::Header => "header",
            Refusal::Overtaken => "overtaken",
        }
    }
}

/// A stretch of missing frames with one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Why.
    pub reason: LossReason,
    /// What exactly was wrong with frames that are torn or corrupt; `None` for other reasons.
    pub refusal: Option<Refusal>,
    /// Number of the first missing frame.
    pub sequence: u64,
    /// How many, at least 1.
    pub count: u64,
    /// Whether a frame counter told the count; otherwise it is estimated from times.
    pub exact: bool,
    /// Exposure time of the first one, or of the last frame before it; `None` if unknown.
    pub first: Option<Timestamp>,
    /// Exposure time of the last one; `None` if unknown.
    pub last: Option<Timestamp>,
}

impl Loss {
    /// Joins `next` to this stretch if it has the same reason and follows it without a frame
    /// between; gives it back if not.
    ///
    /// # Errors
    /// `next` itself, if it is a stretch of its own.
    pub fn join(&mut self, next: Loss) -> Result<(), Loss> {
        let follows = self.sequence + self.count == next.sequence;
        let alike = |loss: &Loss| (loss.reason, loss.refusal, loss.exact);
        if alike(self) != alike(&next) || !follows {
            return Err(next);
        }
        self.count += next.count;
        self.last = next.last.or(self.last);
        Ok(())
    }

    /// The loss of one frame that was found whole.
    pub(crate) fn of_frame(frame: &Frame, reason: LossReason) -> Loss {
        let (sequence, time) = (frame.sequence(), Some(frame.time()));
        Loss { reason, refusal: None, sequence, count: 1, exact: true, first: time, last: time }
    }

    /// Adds `next`, of whatever reason, as if it followed.
    pub(crate) fn absorb(&mut self, next: Loss) {
        self.count += next.count;
        self.exact &= next.exact;
        self.refusal = self.refusal.filter(|_| self.refusal == next.refusal);
        self.last = next.last.or(self.last);
    }

    /// Writes the body of a loss record (see [`crate::record`]); the first sequence number stands
    /// in the record's header.
    ///
    /// # Panics
    /// If `body` is shorter than [`LOSS_BODY_BYTES`].
    pub(crate) fn encode(&self, body: &mut [u8]) {
        LittleEndian::write_u32(body, self.reason.code());
        let refusal = self.refusal.map_or(0, |refusal| refusal as u32 + 1);
        LittleEndian::write_u32(&mut body[4..], refusal << 8 | u32::from(self.exact));
        LittleEndian::write_u64(&mut body[8..], self.count);
        let (first, last) = (self.first.unwrap_or_default(), self.last.unwrap_or_default());
        LittleEndian::write_u32_into(
            &[first.sec, first.usec, last.sec, last.usec],
            &mut body[16..LOSS_BODY_BYTES],
        );
    }

    /// Reads the body of a loss record; `None` if its fields cannot be those of a loss.
    pub(crate) fn decode(body: &[u8; LOSS_BODY_BYTES], sequence: u64) -> Option<Loss> {
        let half = |offset| LittleEndian::read_u32(&body[offset..]);
        let reason = LossReason::ALL.into_iter().find(|reason| reason.code() == half(0))?;
        let (refusal, exact) = match (half(4) >> 8) as usize {
            0 => (None, half(4)),
            code => (Some(*Refusal::ALL.get(code - 1)?), half(4) & 0xFF),
        };
        let count = LittleEndian::read_u64(&body[8..]);
        let times = [16, 24].map(|at| Timestamp { sec: half(at), usec: half(at + 4) });
        let lawful = exact <= 1 && count >= 1 && times.iter().all(|t| t.usec < MICROSECONDS);
        let [first, last] = times.map(|time| (time != Timestamp::default()).then_some(time));
        lawful.then_some(Loss { reason, refusal, sequence, count, exact: exact == 1, first, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_of_a_loss_record_stands_byte_for_byte_as_drawn() {
        let first = Some(Timestamp { sec: 0x0102_0304, usec: 0x0D_BBA0 });
        let (reason, refusal) = (LossReason::Torn, Some(Refusal::Header));
        let exact = true;
        let loss = Loss { reason, refusal, sequence: 9, count: 3, exact, first, last: None };
        let mut body = [0xEE; LOSS_BODY_BYTES];
        loss.encode(&mut body);
        let mut by_hand = Vec::new();
        by_hand.extend(*b"\x02\0\0\0\x01\x06\0\0\x03\0\0\0\0\0\0\0");
        by_hand.extend(*b"\x04\x03\x02\x01\xA0\xBB\x0D\0\0\0\0\0\0\0\0\0");
        assert_eq!(body[..], by_hand[..]);
        assert_eq!(Loss::decode(&body, 9), Some(loss));
    }

    #[test]
    fn a_body_that_is_no_loss_is_refused() {
        let (reason, exact) = (LossReason::Io, false);
        let loss =
            Loss { reason, refusal: None, sequence: 0, count: 1, exact, first: None, last: None };
        let mut body = [0; LOSS_BODY_BYTES];
        loss.encode(&mut body);
        for (place, value) in [(0, 0), (0, 7), (4, 2), (5, 8), (6, 1), (8, 0), (23, 1), (31, 1)] {
            let mut other = body;
            other[place] = value;
            assert_eq!(Loss::decode(&other, 0), None, "byte {place} = {value}");
        }
    }
}
