//! The FPGA: takes a compressed picture and a time, and writes a frame into the ring.
//!
//! It advances by bounded steps and has neither thread nor clock, so that a test can stop it
//! between any two chunks. It never waits for a reader.
mod function;

use std::sync::Arc;

use circbuf_abi::pci::VECTOR_FRAME;
use circbuf_abi::registers::{STATE_ENDED, STATE_RUNNING};
use circbuf_abi::ring::{
    CHUNK_BYTES, GAP_BYTES, PAYLOAD_BYTES_MAX, TRAILER_BYTES, TRAILER_MARKER, trailer,
};

use crate::dma::{RegisterPage, RingMemory, Statics};
use crate::fault::{Doctored, Manner, Service};
use crate::interrupt::Interrupt;
use crate::model::{FrameTime, Gap, Geometry, Picture, RingSizeError, check_ring_bytes};
use crate::pci::Vectors;
use crate::ring_file::{Identity, RingFile, RingFileError};

/// Bytes from one publication of `written` to the next. Each takes the register page's cache line
/// back from a driver that looks at it; more of them would cost the writer more than they give.
const WRITTEN_BYTES: u64 = 8192;

/// A picture that the FPGA cannot write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The trailer's length field cannot tell this length.
    #[error("a payload of {payload_bytes} bytes, but a frame has 1 to {PAYLOAD_BYTES_MAX}")]
    Length {
        /// Length of the payload in bytes.
        payload_bytes: usize,
    },
    /// The slot is larger than the register page promises.
    #[error(
        "a payload of {payload_bytes} bytes takes a slot of {slot_bytes}, \
         but the largest slot of this ring was set to {max_slot_bytes}"
    )]
    Slot {
        /// Length of the payload in bytes.
        payload_bytes: usize,
        /// The slot that it would take, in bytes.
        slot_bytes: u64,
        /// The largest slot in bytes, as in the register page.
        max_slot_bytes: u64,
    },
}

/// An FPGA that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The ring is too small for the largest frame, or no multiple of a page.
    #[error(transparent)]
    RingSize(#[from] RingSizeError),
    /// The ring cannot be mapped or given its name.
    #[error(transparent)]
    RingFile(#[from] RingFileError),
}

/// How the FPGA behaves and what its register page tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setup {
    /// What happens to the gap behind a frame.
    pub gap: Gap,
    /// Whether there is an interrupt handler, which stamps frame headers.
    pub stamped: bool,
    /// Length of the largest payload, in stuffed bytes.
    pub payload_bytes_max: u32,
    /// The kind of picture.
    pub geometry: Geometry,
    /// Time from one frame to the next in nanoseconds; 0 if it is not fixed.
    pub frame_period_ns: u64,
}

/// How far the frame is after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There is more to do.
    Writing,
    /// The frame is whole, stamped and counted.
    Whole,
    /// The ring's memory is gone: the frame was given up, and nobody is told of it. Only a PCI
    /// function's host can do that.
    Lost,
}

/// The FPGA with its ring and its register page.
#[derive(Debug)]
pub struct Fpga {
    ring: RingMemory,
    registers: RegisterPage,
    /// `None` if the ring is a PCI host's.
    file: Option<RingFile>,
    vectors: Option<Arc<Vectors>>,
    statics: Statics,
    /// Whether an epoch has begun.
    has_begun: bool,
    gap: Gap,
    interrupt: Option<Interrupt>,
    max_slot_bytes: u64,
    epoch: u64,
    frames: u64,
    /// Where the next chunk is written.
    cursor: u64,
    current: Option<Current>,
    /// Whether the gap in front of `cursor` is to be zeroed when the next frame begins.
    owes_gap: bool,
    /// Behind the last whole frame, if it is not published yet.
    unpublished: Option<u64>,
}

/// What an FPGA is made of.
struct Parts {
    ring: RingMemory,
    registers: RegisterPage,
    file: Option<RingFile>,
    vectors: Option<Arc<Vectors>>,
}

/// The frame that is being written.
#[derive(Debug, Clone, Copy)]
struct Current {
    manner: Manner,
    payload_bytes: usize,
    start: u64,
    /// Behind the gap, where the next frame starts.
    end: u64,
    sent_bytes: usize,
    trailer_sent: bool,
}

impl Fpga {
    /// Maps `file`, fills in its register page and gives the ring its name.
    ///
    /// # Errors
    /// The ring holds fewer than four of the largest slots, or cannot be mapped or named.
    pub fn new(mut file: RingFile, setup: Setup) -> Result<Self, SetupError> {
        let max_slot_bytes = slot_bytes(setup.payload_bytes_max);
        check_ring_bytes(file.ring_bytes(), max_slot_bytes)?;
        let (ring, registers) = file.map()?;
        let statics = statics(&setup, file.ring_bytes(), file.identity()?);
        let registers = RegisterPage::new(registers);
        registers.describe(&statics);
        file.publish()?;
        let parts =
            Parts { ring: RingMemory::new(ring), registers, file: Some(file), vectors: None };
        Ok(Self { has_begun: true, ..Self::of(parts, statics, setup.gap) })
    }

    fn of(parts: Parts, statics: Statics, gap: Gap) -> Self {
        Self {
            ring: parts.ring,
            registers: parts.registers,
            file: parts.file,
            vectors: parts.vectors,
            interrupt: statics.stamped.then(Interrupt::new),
            max_slot_bytes: statics.max_slot_bytes,
            statics,
            has_begun: false,
            gap,
            epoch: 0,
            frames: 0,
            cursor: 0,
            current: None,
            owes_gap: false,
            unpublished: None,
        }
    }

    /// Begins a frame at [`cursor`](Self::cursor); [`step`](Self::step) writes it.
    ///
    /// # Errors
    /// The payload is empty or larger than the largest one that the register page promises.
    ///
    /// # Panics
    /// If the frame before is not whole.
    pub fn begin(&mut self, picture: &Picture<'_>, time: FrameTime) -> Result<(), FrameError> {
        self.measure(picture.payload)?;
        self.begin_doctored(&Doctored::sound(picture, time));
        Ok(())
    }

    /// Begins a frame as an [`Injector`](crate::fault::Injector) made it, with a reset before it if
    /// it restarts. Where the frame is larger than the register page promises, the injector means it.
    ///
    /// # Panics
    /// If the frame before is not whole, or with a frame that was made for a larger ring.
    pub fn begin_doctored(&mut self, frame: &Doctored<'_>) {
        assert!(self.current.is_none(), "the frame before is not whole");
        let payload_bytes = frame.payload().len();
        let slot_bytes = slot_bytes(payload_bytes as u32);
        assert!(slot_bytes <= self.ring.bytes() / 2, "the frame was made for this ring");
        if frame.restarts() {
            self.reset();
        }
        self.registers.set_state(STATE_RUNNING);
        self.current = Some(Current {
            manner: *frame.manner(),
            payload_bytes,
            start: self.cursor,
            end: self.cursor + slot_bytes,
            sent_bytes: 0,
            trailer_sent: false,
        });
    }

    /// Writes at most `burst_bytes` (at least one chunk) of the frame that was begun with this
    /// `payload`. All of them are announced at once; what is written of them is published every 8 KiB,
    /// for a driver that streams behind the FPGA. When all its bytes are written, the next step is the
    /// interrupt: the header is stamped, and the frame is published as complete.
    ///
    /// # Panics
    /// If no frame was begun, or with a payload of another length.
    pub fn step(&mut self, payload: &[u8], burst_bytes: u64) -> Progress {
        let mut frame = self.current.take().expect("a frame was begun");
        assert!(payload.len() == frame.payload_bytes, "the payload is that of `begin`");
        if self.cursor == frame.end {
            self.complete(&frame);
            return Progress::Whole;
        }
        let chunk = CHUNK_BYTES as u64;
        let burst_bytes = (burst_bytes / chunk).max(1) * chunk;
        let until = frame.end.min(self.cursor.saturating_add(burst_bytes));
        self.registers.reserve(until);
        if self.cursor == frame.start {
            self.zero_owed_gap();
        }
        while self.cursor < until {
            let part = until.min(self.cursor + WRITTEN_BYTES);
            while self.cursor < part {
                self.emit(&mut frame, payload, part);
            }
            if self.ring.is_lost() {
                return Progress::Lost;
            }
            self.registers.publish_written(part);
        }
        self.current = Some(frame);
        Progress::Writing
    }

    /// Checks that `payload` can be written.
    pub(crate) fn measure(&self, payload: &[u8]) -> Result<(), FrameError> {
        let length = u32::try_from(payload.len())
            .ok()
            .filter(|bytes| (1..=PAYLOAD_BYTES_MAX).contains(bytes))
            .ok_or(FrameError::Length { payload_bytes: payload.len() })?;
        let (slot_bytes, max_slot_bytes) = (slot_bytes(length), self.max_slot_bytes);
        if slot_bytes > max_slot_bytes {
            let payload_bytes = payload.len();
            return Err(FrameError::Slot { payload_bytes, slot_bytes, max_slot_bytes });
        }
        Ok(())
    }

    /// Resets the FPGA: an unfinished frame is abandoned, the next one starts at the beginning of
    /// the ring in a new epoch. What is in the ring stays, as on a camera.
    pub fn reset(&mut self) {
        self.epoch += 1;
        self.current = None;
        self.cursor = 0;
        self.owes_gap = false;
        self.unpublished = None;
        self.registers.reset(self.epoch, self.frames);
    }

    /// Tells the driver that nothing will be written again. The last frame is published, if it was
    /// waiting for another one.
    pub fn end(&mut self) {
        if let Some(complete) = self.unpublished.take() {
            self.registers.publish_complete(complete, self.frames);
        }
        self.registers.set_state(STATE_ENDED);
    }

    /// Where the next byte goes, counted since the beginning of the epoch; between two frames,
    /// where the next one starts.
    #[must_use]
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Number of resets.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Number of whole frames; a reset does not clear it.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// The ring's memory, for a driver that maps it on its own.
    #[must_use]
    pub fn file(&self) -> &RingFile {
        self.file.as_ref().expect("an FPGA that is not behind PCI was made with a file")
    }

    /// Size of the ring in bytes.
    #[must_use]
    pub fn ring_bytes(&self) -> u64 {
        self.ring.bytes()
    }

    /// The largest slot that the register page promises.
    pub(crate) fn max_slot_bytes(&self) -> u64 {
        self.max_slot_bytes
    }

    /// Whether there is an interrupt handler.
    #[must_use]
    pub fn is_stamped(&self) -> bool {
        self.interrupt.is_some()
    }

    /// What will be in the slot of the next frame if nobody stamps it.
    pub(crate) fn unstamped_slot(&self) -> [u8; GAP_BYTES] {
        match self.owes_gap {
            true => [0; GAP_BYTES],
            false => self.ring.load_gap(self.slot_of(self.cursor)),
        }
    }

    /// The slot in front of the first frame of an epoch lies at the end of the ring, and what is
    /// there stays.
    fn zero_owed_gap(&mut self) {
        if std::mem::take(&mut self.owes_gap) {
            self.ring.zero_gap(self.slot_of(self.cursor));
        }
    }

    fn slot_of(&self, start: u64) -> u64 {
        (start + self.ring.bytes()) - GAP_BYTES as u64
    }

    /// Writes what comes next: whole chunks of payload, or a chunk with the rest of it, or the gap.
    fn emit(&mut self, frame: &mut Current, payload: &[u8], until: u64) {
        let rest = &payload[frame.sent_bytes..];
        let room = (until - self.cursor) as usize;
        let whole = rest.len().min(room) / CHUNK_BYTES * CHUNK_BYTES;
        let emitted = if whole > 0 {
            self.ring.store(self.cursor, &rest[..whole]);
            frame.sent_bytes += whole;
            whole
        } else if frame.trailer_sent {
            // The camera's pointer passes over the gap, whatever is done with its bytes.
            match frame.manner.gap.unwrap_or(self.gap) {
                Gap::Zero => self.ring.zero_gap(self.cursor),
                Gap::Late => self.owes_gap = true,
                Gap::Skip => {}
            }
            GAP_BYTES
        } else {
            self.emit_tail(frame, rest);
            CHUNK_BYTES
        };
        self.cursor += emitted as u64;
    }

    /// Writes a chunk of the last payload bytes (or none), zeros, and the trailer if it fits.
    fn emit_tail(&self, frame: &mut Current, rest: &[u8]) {
        let mut chunk = [0; CHUNK_BYTES];
        chunk[..rest.len()].copy_from_slice(rest);
        frame.sent_bytes += rest.len();
        if trailer_fits_behind(rest.len()) {
            chunk[CHUNK_BYTES - TRAILER_BYTES..].copy_from_slice(&frame.manner.trailer);
            frame.trailer_sent = true;
            self.ring.store_trailer(self.cursor, &chunk);
        } else {
            self.ring.store(self.cursor, &chunk);
        }
    }

    fn complete(&mut self, frame: &Current) {
        self.frames += 1;
        let slot = self.slot_of(frame.start);
        let Manner { geometry, service, pointer_low_bytes, .. } = frame.manner;
        match (&mut self.interrupt, service) {
            (Some(_), Service::Coalesced) => {
                self.unpublished = Some(frame.end);
                return;
            }
            (Some(interrupt), Service::Stamps(stamp)) => {
                let length = frame.manner.stamped_length();
                interrupt.stamp(&self.ring, slot, (geometry, length), stamp);
            }
            (Some(_), Service::Lost) | (None, _) => {}
        }
        self.unpublished = None;
        self.registers.publish_complete(frame.end - pointer_low_bytes, self.frames);
        if let Some(vectors) = &self.vectors {
            vectors.signal(VECTOR_FRAME);
        }
    }
}

/// What the register page tells of a ring of `ring_bytes`.
fn statics(setup: &Setup, ring_bytes: u64, ring_identity: Identity) -> Statics {
    Statics {
        ring_bytes,
        ring_identity,
        max_slot_bytes: slot_bytes(setup.payload_bytes_max),
        geometry: setup.geometry,
        frame_period_ns: setup.frame_period_ns,
        stamped: setup.stamped,
    }
}

/// Distance in bytes from the start of a frame with so long a payload to the start of the next,
/// counted as the stuffer emits it: chunk after chunk until the trailer fits, and the gap.
#[must_use]
pub fn slot_bytes(payload_bytes: u32) -> u64 {
    let (whole, rest) =
        (payload_bytes as usize / CHUNK_BYTES, payload_bytes as usize % CHUNK_BYTES);
    let tail = if trailer_fits_behind(rest) { 1 } else { 2 };
    ((whole + tail) * CHUNK_BYTES + GAP_BYTES) as u64
}

/// Whether a chunk that begins with so many payload bytes has room for the trailer. The stuffer
/// works in words of 4 bytes, and the word in front of the trailer is always zero.
fn trailer_fits_behind(payload_bytes: usize) -> bool {
    const ZERO_WORD: usize = (CHUNK_BYTES - TRAILER_BYTES) / 4 - 1;
    payload_bytes.div_ceil(4) <= ZERO_WORD
}

/// The trailer of a sound frame.
pub(crate) fn trailer_of(time: FrameTime, payload_bytes: u32) -> [u8; TRAILER_BYTES] {
    let mut bytes = [0; TRAILER_BYTES];
    let marked = payload_bytes | u32::from(TRAILER_MARKER) << 24;
    bytes[trailer::SECONDS..][..4].copy_from_slice(&time.sec.to_le_bytes());
    bytes[trailer::MICROSECONDS..][..4].copy_from_slice(&time.usec.to_le_bytes());
    bytes[trailer::LENGTH..][..4].copy_from_slice(&marked.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests;
