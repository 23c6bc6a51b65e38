//! By what a reader decides whether to deliver what it has copied.

/// Less than the law, or the law.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// FF FF and length in front of the frame, before the copy.
    SignatureBefore,
    /// The same after the copy.
    SignatureAfter,
    Law(Law),
}

/// The law of validity, of which parts can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Law {
    /// Point 1: a trailer is believed only where it leads back to a known start, and if it is newer.
    pub start_and_end: bool,
    /// Point 2: no FF FF in the payload.
    pub content: bool,
    /// Point 3: trailer and header read the same afterwards.
    pub kept: bool,
    /// Point 4: the writer had not come back.
    pub reach: bool,
    /// Point 4: and the FPGA was not reset.
    pub epoch: bool,
    /// Point 4 of a copy that began before its frame was complete.
    pub reach_ahead: bool,
    /// What was copied ahead belongs to the frame that starts there.
    pub ahead_start: bool,
    /// In that epoch.
    pub ahead_epoch: bool,
    /// Where there is a pointer: `reserved` is the largest slot ahead of it.
    pub margin: bool,
    /// Where there is a pointer: for how long it is believed.
    pub clock: Clock,
    /// Point 3, where there are no counters: what stands in front of the header slot, and is
    /// overwritten before it, reads the same afterwards as well.
    pub guard: Guard,
}

/// A pointer that wraps, read again, proves something only if it cannot have gone round meanwhile. A
/// clock tells how many words the bus can have moved since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// Not looked at.
    Off,
    /// Up to the ring but for one largest slot.
    UpTo,
    /// Less than that.
    Below,
}

/// What has to stand in front of a header slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Not looked at.
    Off,
    /// The trailer of an older frame.
    Trailer,
    /// That, or nothing: the first frame of a ring is delivered as well.
    TrailerOrNothing,
}

impl Law {
    pub const WHOLE: Law = Law {
        start_and_end: true,
        content: true,
        kept: true,
        reach: true,
        epoch: true,
        reach_ahead: true,
        ahead_start: true,
        ahead_epoch: true,
        margin: true,
        clock: Clock::Below,
        guard: Guard::Trailer,
    };
}
