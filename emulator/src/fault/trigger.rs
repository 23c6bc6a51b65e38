//! When a fault falls due, and what waits since then.
use std::collections::VecDeque;

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::Rng as _;

use super::{Fault, FaultKind, When};

/// One of the faults, while the camera runs.
#[derive(Debug)]
pub(super) struct Trigger {
    kind: FaultKind,
    when: When,
    /// Times that are past, of [`When::AtSeconds`].
    past: usize,
}

impl Trigger {
    pub(super) fn new(fault: &Fault) -> Self {
        let Fault { kind, mut when } = fault.clone();
        match &mut when {
            When::At(frames) => frames.sort_unstable(),
            When::AtSeconds(seconds) => seconds.sort_by(f64::total_cmp),
            When::Every(_) | When::Rate(_) => {}
        }
        Self { kind, when, past: 0 }
    }

    pub(super) fn kind(&self) -> FaultKind {
        self.kind
    }

    /// How often it falls due at frame `number`, exposed `elapsed_s` seconds after the first one.
    pub(super) fn due(
        &mut self,
        number: u64,
        elapsed_s: f64,
        random: &mut Xoshiro256PlusPlus,
    ) -> u64 {
        match &self.when {
            When::At(frames) => u64::from(frames.binary_search(&number).is_ok()),
            When::Every(frames) => u64::from(number > 0 && number.is_multiple_of(*frames)),
            When::Rate(rate) => u64::from(unit(random) < *rate),
            When::AtSeconds(seconds) => {
                let past = seconds.partition_point(|second| *second <= elapsed_s);
                let due = past.saturating_sub(self.past);
                self.past += due;
                due as u64
            }
        }
    }
}

/// Faults that are due, in the order in which they fell due; of each kind one, and how many there are.
#[derive(Debug, Default)]
pub(super) struct Due {
    kinds: VecDeque<FaultKind>,
    counts: [u64; FaultKind::ALL.len()],
}

impl Due {
    pub(super) fn add(&mut self, kind: FaultKind, faults: u64) {
        let count = &mut self.counts[kind as usize];
        if *count == 0 && faults > 0 {
            self.kinds.push_back(kind);
        }
        *count += faults;
    }

    /// Takes the first one of those that can strike.
    pub(super) fn take(&mut self, can_strike: impl Fn(FaultKind) -> bool) -> Option<FaultKind> {
        let place = self.kinds.iter().position(|&kind| can_strike(kind))?;
        let kind = self.kinds.remove(place)?;
        let count = &mut self.counts[kind as usize];
        *count -= 1;
        if *count > 0 {
            self.kinds.push_back(kind);
        }
        Some(kind)
    }
}

/// A number from 0 below 1.
fn unit(random: &mut Xoshiro256PlusPlus) -> f64 {
    const BITS: u32 = f64::MANTISSA_DIGITS;
    (random.next_u64() >> (u64::BITS - BITS)) as f64 / (1_u64 << BITS) as f64
}
