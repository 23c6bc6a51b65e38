//! Faults: what goes wrong in a camera, on demand.
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What can go wrong with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// The writer runs around the whole ring at once and laps the reader.
    Sprint,
    /// Compression stops in mid-frame; the trailer is that of the frame before.
    Aborted,
    /// Zeros where the trailer belongs.
    NoTrailer,
    /// A trailer that no frame can have.
    BadTrailer,
    /// FF FF in the payload.
    Unescaped,
    /// One bit of payload, header slot or trailer is wrong.
    BitFlip,
    /// The camera's clock is set back.
    TimeBack,
    /// The camera's clock is set forward.
    TimeForward,
    /// The frame has the time of the one before.
    TimeRepeat,
    /// The writer pauses in mid-frame.
    Stall,
    /// A frame of quite another size.
    Sizes,
    /// The slot ends where the ring ends.
    ExactWrap,
    /// Equal slots that divide the ring: each frame starts where an old one did.
    AlignedLap,
    /// The gap behind the frame is not zeroed.
    GapSkip,
    /// The gap behind the frame is zeroed only when the next one begins.
    GapLate,
    /// Something overwrites the stamped header.
    HeaderClobbered,
    /// Another picture size and colour mode.
    Geometry,
    /// The interrupt handler does not run: no header.
    IrqLost,
    /// The interrupt handler runs once for this frame and the next: only that one has a header.
    IrqCoalesced,
    /// The pointer is one chunk low at the end of the ring.
    PointerOff,
    /// The FPGA is reset: its pointer returns to 0, time goes on.
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

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Several faults of one frame; in JSON a list of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultSet(u32);

impl FaultSet {
    /// None.
    pub const EMPTY: FaultSet = FaultSet(0);

    /// Adds a fault.
    pub fn insert(&mut self, kind: FaultKind) {
        self.0 |= 1 << kind as u32;
    }

    /// Whether this fault is among them.
    #[must_use]
    pub const fn contains(self, kind: FaultKind) -> bool {
        self.0 & 1 << kind as u32 != 0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The faults, in the order of [`FaultKind::ALL`].
    pub fn iter(self) -> impl Iterator<Item = FaultKind> {
        FaultKind::ALL.into_iter().filter(move |&kind| self.contains(kind))
    }
}

impl FromIterator<FaultKind> for FaultSet {
    fn from_iter<I: IntoIterator<Item = FaultKind>>(kinds: I) -> Self {
        kinds.into_iter().fold(FaultSet::EMPTY, |mut set, kind| {
            set.insert(kind);
            set
        })
    }
}

impl Serialize for FaultSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for FaultSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<FaultKind>::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_json_and_sets_are_lists_of_them() {
        for kind in FaultKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
        let set: FaultSet = [FaultKind::Restart, FaultKind::Sprint].into_iter().collect();
        assert_eq!(serde_json::to_string(&set).unwrap(), r#"["sprint","restart"]"#);
        assert_eq!(serde_json::from_str::<FaultSet>(r#"["restart","sprint"]"#).unwrap(), set);
        assert!(serde_json::from_str::<FaultSet>(r#"["rust"]"#).is_err());
        assert_eq!(FaultKind::ALL.into_iter().collect::<FaultSet>().iter().count(), 21);
    }
}
