//! How many faults were injected.
use super::FaultKind;

/// What was injected so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    faults: [u64; FaultKind::ALL.len()],
    frames: u64,
    damaged: u64,
    undetectable: u64,
}

impl Tally {
    /// How often each kind was injected, those apart that were not.
    pub fn by_kind(&self) -> impl Iterator<Item = (FaultKind, u64)> {
        FaultKind::ALL.into_iter().zip(self.faults).filter(|(_, faults)| *faults > 0)
    }

    /// Number of faults; one that lasts for many frames counts once.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.faults.iter().sum()
    }

    /// Number of frames that a fault touched.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Number of frames among them that must not be handed on.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    /// Number of damaged frames that no driver can tell from good ones.
    #[must_use]
    pub fn undetectable(&self) -> u64 {
        self.undetectable
    }

    pub(super) fn add_fault(&mut self, kind: FaultKind) {
        self.faults[kind as usize] += 1;
    }

    pub(super) fn add_frame(&mut self, damaged: bool, undetectable: bool) {
        self.frames += 1;
        self.damaged += u64::from(damaged);
        self.undetectable += u64::from(undetectable);
    }
}
