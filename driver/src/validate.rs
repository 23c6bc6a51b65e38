//! The law of validity: which bytes of a ring are a frame.
//!
//! The FPGA never waits. While a frame is copied out of the ring the writer may come round and
//! overwrite it, so that what counts is looked at *after* the copy.
//!
//! # The law
//!
//! A frame is handed on only if all of this holds, in this order:
//!
//! 1. *Start and end.* Its start S is known (the end of the frame before), and the trailer stands
//!    where `padded(len)` says: marker FF, a length of at least 1 that fits the largest slot,
//!    microseconds below 1,000,000. The type says so: this makes a [`Candidate`].
//! 2. *Copy*, every byte once, into memory of our own; in the same pass no FF FF in the payload; every
//!    pad byte zero. Where the device tells how far it is inside a frame, what lies below `written` may
//!    be copied before the frame is complete; it is part of the frame that starts at S in that epoch,
//!    and of no other.
//! 3. *Afterwards* the trailer reads the same; on a stamped ring the slot in front is as it was copied,
//!    and has the signature FF FF and the trailer's length; and where there are no counters, the trailer
//!    of the frame before, in front of that slot, reads the same, looked at last.
//! 4. *Then*: the device is in the same epoch, and `reserved <= S - 32 + ring`: the writer had not
//!    come back to the slot when the copy was done. This makes a [`crate::frame::Frame`].
//!
//! A camera's node has no counters, but a pointer that moves at the ends of frames and wraps
//! ([`crate::pointer`]). It is `written` and `complete` at once, but that a header may have to be waited
//! for; its `reserved` is two of the largest slots ahead of it, and its epoch ends when it was not
//! looked at in time. So point 4 looks at it once more behind the copy: in time, and no more than a ring
//! but for these slots and the gap behind S.
//!
//! Where several points fail, a refusal names the fourth first ([`Refusal::Overtaken`]): where the
//! writer has been, nothing else that was read means anything. Otherwise it names the first.
//!
//! # How a start is known
//!
//! With counters, from boundaries that they told: `complete` with `frames`. Between two of them frames
//! are found by a chain of trailers from the upper one that arrives at the lower one exactly. If it does
//! not, a frame between them is damaged, and the others are believed as far as they are proven: by
//! their headers, or on a bare ring by 32 zero bytes in front, or in a chain from the upper boundary by
//! a trailer in front that is older and leads on, and by an end at the first trailer behind. A frame is
//! never numbered by guess: what does not add up to the counted number is lost. A trailer that is equal
//! to the one in front of the slot, bit for bit, is stale: an aborted compression left it, and
//! [`Refusal::Stale`] says so. On a bare ring a start is believed only behind a plausible trailer or a
//! gap of zeros, or if the epoch starts there. All this counts only if `reserved` says afterwards that
//! the writer had not come to what stands in front.
//!
//! Without counters, it is the end of the frame that was read before, or behind an overrun one that a
//! search of the ring chose. What stands in front of the slot must then be the trailer of the frame
//! that was read, or an older one than the frame's own: a newer one, or none, the writer may have left
//! on its way to the slot, and the frame is lost. In front of the first frame of a ring that is not
//! full there is nothing, which is believed.
//!
//! # Why a frame that passes is whole
//!
//! With counters, by point 4 alone: the writer announces in `reserved` what it is about to touch,
//! and fences, before it touches it. If a byte of the copy had been of the next lap, the `reserved` that
//! is loaded behind the copy would be beyond the slot. That it was all there before the copy began
//! says `complete`, which is published behind the frame and its header; and of what is copied before that,
//! `written` in the same epoch, behind those bytes. Points 1 to 3 are left with
//! what no counter tells: bytes that never were a frame.
//!
//! Without counters, by point 3: the FPGA writes upwards, so on its way to a frame it destroys the
//! trailer in front of the slot first, then the slot, then the payload. An older trailer that is there
//! *after* the copy proves that header and payload were whole during it; what was there before proves
//! nothing about what was copied later. The header alone does not: it has FF FF and the length until
//! its last word is zeroed, when the parameters are gone already, and where the slot is skipped it
//! keeps them while the payload behind it is overwritten. What the trailer in front cannot tell is
//! whether the handler was done with the header: that is left to the signature, stamped last.
//!
//! # What is assumed of the hardware, and what happens otherwise
//!
//! | assumed | with counters, else | without counters, else |
//! |---|---|---|
//! | `reserved` stored and fenced before the bytes | torn frames are delivered | - |
//! | `complete` behind the bytes and the header | old bytes are delivered | - |
//! | `written` stored, with release ordering, behind the bytes | old bytes are delivered: no point asks later whether they were there | - |
//! | bytes in address order, chunk by chunk, the gap zeroed (if it is) before the payload behind it | nothing: `reserved` covers the burst | torn frames |
//! | payload visible before the trailer | nothing: `complete` covers it | torn frames |
//! | signature stamped last | nothing | frames with another's parameters |
//! | the handler is done with a slot before the writer comes round | torn frames | torn frames |
//! | no slot larger than the device's `max_slot` | refusals; behind a pointer torn frames | refusals |
//! | no reset without a new epoch | torn frames; behind a pointer, which has none to tell, mostly noticed: the pointer jumps, or the chain of frames breaks | - |
//! | behind a pointer: a bus no faster than is believed, and an interrupt no later than the end of the next frame | torn frames | - |
//!
//! Not promised:
//! * without counters, the parameters in the header of the first frame of a ring (in front of it there is
//!   nothing to destroy), and where the gap is skipped, that they are not those of the lap before;
//! * on a bare ring without counters, that payload does not look like a trailer, or, where the gap is
//!   skipped, that a frame is whole once the writer has come round;
//! * anywhere without headers: refusal of payload that imitates a trailer in every byte, with a length
//!   that leads back to S, and the zeros around it, in or beside a damaged frame. No chain and no number
//!   of frames tells that from a frame. The same goes for old trailers in gaps that are skipped, where
//!   two or more damaged frames lie side by side.
//!
//! # How it is known
//!
//! A model in `tests/tests/model` explores every order in which FPGA, interrupt handler and reader can
//! take their steps on tiny rings for two or three laps, with store buffers, and with weakly ordered
//! memory. The copy begins at the end of a frame, or ahead of it: of what is `written` any number of
//! words, at any time, before an overrun or a reset as well. The model finds no way to deliver a damaged
//! frame by the law; each of the four points switched off lets one through, on the kind of ring that the
//! point is for, and so does what was copied ahead if it is used at another start or in another epoch;
//! and these are the shortest ways past what is less than the law, or past the law where something that
//! it assumes does not hold. The simulation in `tests/sim` does the same to the driver itself, by seeds.
//!
//! In the ring, frame 0 is its header `h0 FF`, payload `a0 b0` and trailer `T0`; `..` is zero. The first
//! two words are the slot in front of the first frame, which lies at the end of the ring; cursors
//! count from behind it, in words. A row is what one party does before it is another's turn.
//!
#![doc = include_str!("validate/counterexamples.md")]

use std::sync::atomic::{Ordering, fence};

use circbuf_abi::ring::{TRAILER_BYTES, ZEROS_MAX, ZEROS_MIN};

use crate::copy::Manner;
use crate::device::Device;
use crate::loss::{LossReason, Refusal};
use crate::record::{PAYLOAD_OFFSET, RECORD_HEADER_BYTES};
use crate::ring::{FrameHeader, Trailer, padded, slot};
use crate::slab::Slab;

/// A frame that was found but not copied: parsed, not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Cursor of the payload's first byte.
    pub start: u64,
    /// Number of resets of the device before.
    pub epoch: u64,
    /// The frame's number.
    pub sequence: u64,
    /// The trailer as it was found.
    pub trailer: Trailer,
    /// Whether the slot in front has to be stamped.
    pub stamped: bool,
    /// What stands in front of the slot, where no counter protects it: the trailer of the frame before,
    /// which the writer comes to first. `None` where counters do.
    pub before: Option<Trailer>,
}

impl Candidate {
    /// Cursor of the next frame's start.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.start + slot(self.trailer.length)
    }

    fn end(&self) -> u64 {
        self.start + padded(self.trailer.length)
    }
}

/// A refused candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Point 4 if it did not hold, otherwise the first point that did not.
    pub refusal: Refusal,
    /// Torn if the writer was, or may have been, at it; corrupt if these bytes were there all the time.
    pub reason: LossReason,
}

/// Copies a candidate into `slab`, at the place it has in a record, and checks points 2 to 4.
///
/// The header in the slab is the one from the ring; where the ring has none it is made from the
/// device's geometry.
///
/// # Errors
/// With the point that did not hold. The slab's content is worthless then.
///
/// # Panics
/// If the slab is too small for the frame.
pub fn copy_and_check(
    device: &Device,
    candidate: &Candidate,
    slab: &mut Slab,
) -> Result<(), Refused> {
    copy_in_manner(device, candidate, slab, Manner::default())
}

/// The same in a given manner. What was copied ahead must have been below `written`. The checksum becomes
/// that of the record's body: of the header and what it precedes.
pub(crate) fn copy_in_manner(
    device: &Device,
    candidate: &Candidate,
    slab: &mut Slab,
    mut manner: Manner<'_>,
) -> Result<(), Refused> {
    // SYNC POINT: payload before trailer, header before signature. What is loaded below was there
    // when the tail saw these two; counters order more than that, but a ring may have none.
    fence(Ordering::Acquire);
    let seen = device.ring().header(candidate.start);
    let length = candidate.trailer.length;
    let header = if candidate.stamped { seen } else { synthesised(device, length) };
    if let Some(checksum) = &mut manner.checksum {
        checksum.update(&header.0);
    }
    let body = &mut slab[PAYLOAD_OFFSET..][..padded(length) as usize];
    let ring = device.ring();
    let content = match ring.copy_frame(candidate.start, length, body, manner) {
        true => Err(Refusal::Pair),
        false => check_padding(body, candidate),
    };
    let kept = still_stands(device, candidate, &seen);
    let reach = not_overtaken(device, candidate);
    judge(content, kept, reach)?;
    slab[RECORD_HEADER_BYTES..PAYLOAD_OFFSET].copy_from_slice(&header.0);
    Ok(())
}

/// Points 3 and 4 of a candidate that cannot be copied, because no slab is free: whether it is lost
/// for that reason, or would have been refused anyway.
///
/// # Errors
/// With the point that did not hold.
pub fn check_in_place(device: &Device, candidate: &Candidate) -> Result<(), Refused> {
    fence(Ordering::Acquire);
    let kept = still_stands(device, candidate, &device.ring().header(candidate.start));
    let reach = not_overtaken(device, candidate);
    judge(Ok(()), kept, reach)
}

/// Point 2, the part behind the payload.
fn check_padding(body: &[u8], candidate: &Candidate) -> Result<(), Refusal> {
    let (front, trailer) = body.split_at(body.len() - TRAILER_BYTES);
    let zeros = &front[candidate.trailer.length as usize..];
    debug_assert!((ZEROS_MIN..=ZEROS_MAX).contains(&zeros.len()));
    if zeros.iter().any(|&byte| byte != 0) {
        return Err(Refusal::Padding);
    }
    let mut chunk = [0; 32];
    chunk[32 - TRAILER_BYTES..].copy_from_slice(trailer);
    match Trailer::parse(&chunk) == candidate.trailer {
        true => Ok(()),
        false => Err(Refusal::Trailer),
    }
}

/// Point 3.
fn still_stands(device: &Device, candidate: &Candidate, seen: &FrameHeader) -> Result<(), Refusal> {
    // Keeps the loads of the copy above the loads below.
    fence(Ordering::Acquire);
    let ring = device.ring();
    if ring.trailer(candidate.end()) != candidate.trailer {
        return Err(Refusal::Trailer);
    }
    let header = ring.header(candidate.start);
    let lawful = header.is_stamped() && header.length() == candidate.trailer.length;
    if candidate.stamped && !(lawful && header == *seen) {
        return Err(Refusal::Header);
    }
    // SYNC POINT: the slot, then what the writer destroys before it. Otherwise half a header that was
    // copied before it was stamped could be compared with the half that is left of it.
    fence(Ordering::Acquire);
    match candidate.before.is_none_or(|before| ring.trailer_before(candidate.start) == before) {
        true => Ok(()),
        false => Err(Refusal::Header),
    }
}

/// Point 4.
fn not_overtaken(device: &Device, candidate: &Candidate) -> Result<(), Refusal> {
    let reach = device.reach();
    // Behind all loads from ring and page: zeros that nobody wrote look like a payload.
    if device.is_truncated() {
        return Err(Refusal::Overtaken);
    }
    let Some(reach) = reach else { return Ok(()) };
    // S - 32 + ring, written so that the first frame of an epoch does not wrap.
    let limit = candidate.start.saturating_add(device.ring().bytes() - 32);
    match reach.epoch == candidate.epoch && reach.reserved <= limit {
        true => Ok(()),
        false => Err(Refusal::Overtaken),
    }
}

/// Where the writer had come by, that says it all. Otherwise bytes that nobody was at while they were
/// read are no frame; where point 3 does not hold, somebody may have been.
fn judge(
    content: Result<(), Refusal>,
    kept: Result<(), Refusal>,
    reach: Result<(), Refusal>,
) -> Result<(), Refused> {
    let is_corrupt = kept.is_ok() && reach.is_ok() && content != Err(Refusal::Trailer);
    let reason = if is_corrupt { LossReason::Corrupt } else { LossReason::Torn };
    reach.and(content).and(kept).map_err(|refusal| Refused { refusal, reason })
}

fn synthesised(device: &Device, length: u32) -> FrameHeader {
    let geometry = device.registers().map(|registers| registers.geometry()).unwrap_or_default();
    FrameHeader::synthesise(geometry, length)
}

#[cfg(test)]
mod tests;
