//! The kinds of faults.
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::FaultsError;

/// What can go wrong with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// For a whole ring and a slot, frames follow each other without pace, bus or credit, so that
    /// the writer laps whoever is behind.
    ///
    /// Nothing is wrong in the camera: it is what a reader sees that was not scheduled for so long.
    /// The frames are good. A driver counts those that it did not reach as overrun, and must not
    /// hand on one that was overwritten while it was copied. All frames of the sprint are marked.
    Sprint,
    /// Compression stops in mid-frame: the payload ends somewhere, and the trailer has length and
    /// time of the frame before.
    ///
    /// An aborted 393 enters the trailer phase without latching the length
    /// (`bit_stuffer_raw_metadata.v`); after a reset the latches are zero. That the header stands in
    /// the slot in front all the same is a simplification: a handler that trusts this length looks
    /// for the frame's start elsewhere. A driver refuses it: the slot has another length, or the
    /// trailer equals the one in front of the frame.
    Aborted,
    /// Zeros stand where the trailer belongs, and the handler stamps the length 0 that it reads.
    ///
    /// What a reader finds if the last chunk is still in the DMA buffer (353) or behind a stale cache
    /// line (393). A driver refuses the frame and goes on behind it.
    NoTrailer,
    /// A trailer that no frame can have: length 0 or 0xFFFFFF or off by a chunk, 1,000,000
    /// microseconds or more, or a marker that is not FF. The handler stamps the length it reads.
    ///
    /// Off by a chunk were the 393's drivers of 2016 (`INSERTED_BYTES`), and the 353's FPGA is if an
    /// FF comes last; the others stand for whatever a bus or a bug does. A driver refuses the frame
    /// and finds the next one at its place.
    BadTrailer,
    /// FF FF stands in the payload.
    ///
    /// The 393's escape table lacks a pattern (`bit_stuffer_escape.v`), and its RAW mode does not
    /// stuff at all. Such bytes can pass for a signature, so a driver refuses the frame.
    Unescaped,
    /// One bit of payload, trailer or stamped header is wrong. A header is never right first.
    ///
    /// The FPGA sends no checksum. A driver finds a flip that breaks the frame's form; one that only
    /// changes pixels, parameters or time leaves a lawful frame, which the ledger calls
    /// undetectable.
    BitFlip,
    /// From this frame on the camera's clock is 1 to 3600 s behind what it was.
    ///
    /// Software sets the clock of a camera. The frames are good: a driver with counters does not care
    /// for the time, one without must not be blind for an hour.
    TimeBack,
    /// From this frame on the camera's clock is 1 to 3600 s ahead of what it was.
    ///
    /// As [`FaultKind::TimeBack`]: the frames are good, and none is missing.
    TimeForward,
    /// The frame has the time of the one before.
    ///
    /// A clock that stands still, or a latch that was not renewed. The frame is good, but if it also
    /// has the same length, it cannot be told from an aborted one.
    TimeRepeat,
    /// The bus pauses for 10 to 100 ms in the middle of the frame.
    ///
    /// Other masters of the bus (disk, Ethernet, three more channels) go first. The frame is good and
    /// late; a driver must not take the old trailer behind the pause for it.
    Stall,
    /// The payload is noise of quite another size: 1 to 16 bytes, or up to a third of the ring.
    ///
    /// Dark and saturated pictures differ so much. The register page promises slots of a quarter of
    /// the ring if this kind is planned; larger ones break the promise, and a driver may refuse them,
    /// though they are good.
    Sizes,
    /// The slot ends where the ring ends: the first frame that can is filled up with noise.
    ///
    /// The 393's pointer is then 0, the 353's may be the ring's size, and a camera's own arithmetic
    /// differs in the two (`X393_BUFFADD`). The frame is good.
    ExactWrap,
    /// For two laps, noise in equal slots, the largest that divide the ring: each frame of the second
    /// lap starts where an old one did.
    ///
    /// Raw frames have such sizes. A new header then stands where the old one stood, so that a
    /// signature that is whole after the copy proves nothing. The frames are good, and all marked.
    AlignedLap,
    /// The gap behind the frame is left as it is.
    ///
    /// As in the listing of firmware 7.1. The signature of a lap before survives there until the next
    /// frame is stamped. The frame is good.
    GapSkip,
    /// The gap behind the frame is zeroed only when the next frame begins.
    ///
    /// As on a 353, whose last chunk waits in the processor's DMA buffer. The frame is good.
    GapLate,
    /// Something overwrites the header before the frame is published: zeros, or random bytes without
    /// a signature.
    ///
    /// The 393's driver put headers 32 bytes too high at lengths of 17 to 19 modulo 32. A driver
    /// refuses the frame, whose trailer is whole.
    HeaderClobbered,
    /// Another picture size and colour mode, until the next fault of this kind switches back. Only
    /// the frames at which it changes are marked.
    ///
    /// Software sets them between frames. The frames are good: the header tells what they are, the
    /// register page what they were at the start.
    Geometry,
    /// The interrupt handler does not run: the slot has no header. The FPGA's pointer moves all the
    /// same.
    ///
    /// A driver cannot know the frame's parameters and refuses it; its trailer leads to the next.
    IrqLost,
    /// The interrupt handler runs once for this frame and the next: both appear together, and only
    /// the next one has a header.
    ///
    /// There is one pending bit a channel (`cmprs_status.v`), and the 353 merges frame sync and
    /// compressor done. A driver refuses this frame and takes the next.
    IrqCoalesced,
    /// The pointer is one chunk low behind a frame whose gap is the first chunk of the ring; the next
    /// frame puts it right. The first frame that can is filled up with noise.
    ///
    /// The 393's FPGA of early 2016 told 0x00 instead of 0x20 there. The frame is good.
    PointerOff,
    /// Before this frame the FPGA is reset: its pointer returns to 0, the epoch counts up, time goes
    /// on.
    ///
    /// Software resets the compressor, for one to change the picture's size. The frame is good; what
    /// a driver had not read of the ring before is gone. A camera that waits for its driver waits
    /// here until everything is read.
    Restart,
}

impl FaultKind {
    /// All kinds.
    pub const ALL: [FaultKind; 21] = [
        FaultKind::Sprint,
        FaultKind::Aborted,
        FaultKind::NoTrailer,
        FaultKind::BadTrailer,
        FaultKind::Unescaped,
        FaultKind::BitFlip,
        FaultKind::TimeBack,
        FaultKind::TimeForward,
        FaultKind::TimeRepeat,
        FaultKind::Stall,
        FaultKind::Sizes,
        FaultKind::ExactWrap,
        FaultKind::AlignedLap,
        FaultKind::GapSkip,
        FaultKind::GapLate,
        FaultKind::HeaderClobbered,
        FaultKind::Geometry,
        FaultKind::IrqLost,
        FaultKind::IrqCoalesced,
        FaultKind::PointerOff,
        FaultKind::Restart,
    ];

    /// The name that stands in faults files and ledgers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            FaultKind::Sprint => "sprint",
            FaultKind::Aborted => "aborted",
            FaultKind::NoTrailer => "no-trailer",
            FaultKind::BadTrailer => "bad-trailer",
            FaultKind::Unescaped => "unescaped",
            FaultKind::BitFlip => "bit-flip",
            FaultKind::TimeBack => "time-back",
            FaultKind::TimeForward => "time-forward",
            FaultKind::TimeRepeat => "time-repeat",
            FaultKind::Stall => "stall",
            FaultKind::Sizes => "sizes",
            FaultKind::ExactWrap => "exact-wrap",
            FaultKind::AlignedLap => "aligned-lap",
            FaultKind::GapSkip => "gap-skip",
            FaultKind::GapLate => "gap-late",
            FaultKind::HeaderClobbered => "header-clobbered",
            FaultKind::Geometry => "geometry",
            FaultKind::IrqLost => "irq-lost",
            FaultKind::IrqCoalesced => "irq-coalesced",
            FaultKind::PointerOff => "pointer-off",
            FaultKind::Restart => "restart",
        }
    }
}

impl FaultKind {
    /// Whether it is about the interrupt handler, which a bare ring has not.
    #[must_use]
    pub const fn needs_handler(self) -> bool {
        use FaultKind::{Geometry, HeaderClobbered, IrqCoalesced, IrqLost};
        matches!(self, Geometry | HeaderClobbered | IrqCoalesced | IrqLost)
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for FaultKind {
    type Err = FaultsError;

    fn from_str(name: &str) -> Result<Self, FaultsError> {
        let kind = Self::ALL.into_iter().find(|kind| kind.name() == name);
        kind.ok_or_else(|| FaultsError::Kind { name: name.to_owned() })
    }
}
