//! A frame as it is to be written.
use std::borrow::Cow;

use circbuf_abi::header::{HEADER_BYTES, SIGNATURE_OFFSET};
use circbuf_abi::ring::{TRAILER_BYTES, trailer};

use super::FaultSet;
use super::lawful::{Written, trailer_length, word};
use crate::fpga::{Fpga, trailer_of};
use crate::ledger::LedgerEntry;
use crate::model::{FrameTime, Gap, Geometry, Picture};

/// A frame as it is to be written, sound or not: what [`Injector::frame`](super::Injector::frame)
/// makes of a picture and a time, and [`Fpga::begin_doctored`] begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doctored<'a> {
    pub(super) payload: Cow<'a, [u8]>,
    /// CRC-32C of the payload as it came, if it is known.
    crc32c: Option<u32>,
    pub(super) manner: Manner,
    /// When it was really exposed, by the camera's clock.
    pub(super) time: FrameTime,
    pub(super) faults: FaultSet,
    pub(super) damaged: bool,
    pub(super) undetectable: bool,
    pub(super) restarts: bool,
    pub(super) sprints: bool,
    pub(super) stall_ns: u64,
}

/// How the FPGA and the interrupt handler treat a frame, its payload apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Manner {
    /// What the handler takes for the kind of picture.
    pub(crate) geometry: Geometry,
    pub(crate) trailer: [u8; TRAILER_BYTES],
    /// What happens to the gap; `None`: as always.
    pub(crate) gap: Option<Gap>,
    pub(crate) service: Service,
    /// So far below the end is the pointer that is published.
    pub(crate) pointer_low_bytes: u64,
}

/// What the interrupt handler does behind a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    /// It stamps the header.
    Stamps(Stamp),
    /// It does not run; the pointer is the FPGA's own and moves all the same.
    Lost,
    /// It does not run before the next frame is complete, and then for that one only.
    Coalesced,
}

/// What becomes of a header on its way into the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stamp {
    /// Nothing.
    Sound,
    /// One bit changes, counted from the lowest of the first byte.
    Flipped { bit: usize },
    /// Other bytes take its place.
    Clobbered([u8; HEADER_BYTES]),
}

impl Manner {
    /// That of a sound frame.
    fn sound(geometry: Geometry, payload_bytes: usize, time: FrameTime) -> Self {
        Self {
            geometry,
            trailer: trailer_of(time, payload_bytes as u32),
            gap: None,
            service: Service::Stamps(Stamp::Sound),
            pointer_low_bytes: 0,
        }
    }

    /// The length that the handler reads from the trailer and stamps.
    pub(crate) fn stamped_length(&self) -> u32 {
        trailer_length(&self.trailer)
    }
}

impl Stamp {
    /// What reaches the slot of this header.
    pub(crate) fn on(self, mut header: [u8; HEADER_BYTES]) -> [u8; HEADER_BYTES] {
        match self {
            Self::Sound => header,
            Self::Flipped { bit } => {
                header[bit / 8] ^= 1 << (bit % 8);
                header
            }
            Self::Clobbered(bytes) => {
                debug_assert!(bytes[SIGNATURE_OFFSET..][..2] != [0xFF, 0xFF], "no header");
                bytes
            }
        }
    }
}

impl<'a> Doctored<'a> {
    /// A frame with nothing wrong.
    #[must_use]
    pub fn sound(picture: &Picture<'a>, time: FrameTime) -> Self {
        let frame = Self::of(Cow::Borrowed(picture.payload), picture.geometry(), time);
        Self { crc32c: picture.crc32c, ..frame }
    }

    pub(super) fn of(payload: Cow<'a, [u8]>, geometry: Geometry, time: FrameTime) -> Self {
        Self {
            manner: Manner::sound(geometry, payload.len(), time),
            payload,
            crc32c: None,
            time,
            faults: FaultSet::EMPTY,
            damaged: false,
            undetectable: false,
            restarts: false,
            sprints: false,
            stall_ns: 0,
        }
    }

    /// The bytes to hand to [`Fpga::step`].
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// What was done to it.
    #[must_use]
    pub fn faults(&self) -> FaultSet {
        self.faults
    }

    /// Whether it must not be handed on.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// Whether the FPGA is reset before it. [`Fpga::begin_doctored`] does that.
    #[must_use]
    pub fn restarts(&self) -> bool {
        self.restarts
    }

    /// Whether it is written without pace, bus and credit.
    #[must_use]
    pub fn sprints(&self) -> bool {
        self.sprints
    }

    /// How long the bus pauses in the middle of it, in nanoseconds.
    #[must_use]
    pub fn stall_ns(&self) -> u64 {
        self.stall_ns
    }

    /// The same frame with a payload of its own.
    #[must_use]
    pub fn into_owned(self) -> Doctored<'static> {
        Doctored { payload: Cow::Owned(self.payload.into_owned()), ..self }
    }

    /// What the ledger says of this frame, which `fpga` has begun and of which it has not written a
    /// byte yet.
    #[must_use]
    pub fn ledger_entry(&self, fpga: &Fpga) -> LedgerEntry {
        let (payload, time) = match self.undetectable {
            true => self.as_read(),
            false => (Cow::Borrowed(&*self.payload), self.time),
        };
        LedgerEntry {
            number: fpga.frames(),
            epoch: fpga.epoch(),
            start: fpga.cursor(),
            offset: fpga.cursor() % fpga.ring_bytes(),
            length: payload.len() as u32,
            crc32c: self.known_crc32c().unwrap_or_else(|| crc_fast::crc32_iscsi(&payload)),
            sec: time.sec,
            usec: time.usec,
            faults: self.faults,
            damaged: self.damaged,
            undetectable: self.undetectable,
        }
    }

    /// Of a payload that nothing was done to.
    fn known_crc32c(&self) -> Option<u32> {
        let known = self.crc32c.filter(|_| self.faults.is_empty());
        debug_assert!(
            known.is_none_or(|crc| crc == crc_fast::crc32_iscsi(&self.payload)),
            "as it came"
        );
        known
    }

    pub(crate) fn manner(&self) -> &Manner {
        &self.manner
    }

    pub(super) fn written(&self) -> Written<'_> {
        let trailer = self.manner.trailer;
        Written { payload: &self.payload, trailer, header: None, before: None }
    }

    /// Payload and time as whoever believes the trailer reads them.
    fn as_read(&self) -> (Cow<'_, [u8]>, FrameTime) {
        let bytes = &self.manner.trailer;
        let time = FrameTime {
            sec: word(bytes, trailer::SECONDS),
            usec: word(bytes, trailer::MICROSECONDS),
        };
        let length = self.written().length();
        let payload = match self.payload.get(..length) {
            Some(front) => Cow::Borrowed(front),
            None => {
                let mut longer = self.payload.to_vec();
                longer.resize(length, 0);
                Cow::Owned(longer)
            }
        };
        (payload, time)
    }
}
