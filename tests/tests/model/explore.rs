//! Visits every state that can be reached, the nearest first.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::ops::AddAssign;

use super::machine::{Machine, Move};
use super::reader::{Copied, Verdict};

/// What was found.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Found {
    /// States visited.
    pub states: usize,
    /// Of these, how many end in a refusal, or in a delivery of a whole frame.
    pub refused: usize,
    pub whole: usize,
    /// And in that of a whole frame with another one's header.
    pub other_header: usize,
    /// The shortest way to the delivery that was looked for.
    pub way: Option<Vec<Move>>,
}

impl AddAssign for Found {
    fn add_assign(&mut self, other: Found) {
        self.states += other.states;
        self.refused += other.refused;
        self.whole += other.whole;
        self.other_header += other.other_header;
        self.way = self.way.take().or(other.way);
    }
}

/// Far more than any of these worlds has: an endless exploration is an error in the model.
const STATES_MAX: usize = 20_000_000;

/// Explores everything, or until a copy is delivered that is `sought`.
pub fn explore(machine: &Machine, sought: impl Fn(Copied) -> bool) -> Found {
    let mut found = Found::default();
    let mut seen = HashSet::<u64, BuildHasherDefault<Identity>>::default();
    let mut ways = vec![(0u32, Move::Interrupt)];
    let mut queue = VecDeque::from([(0u32, machine.initial())]);
    seen.insert(fingerprint(&machine.initial()));
    let mut moves = vec![];
    while let Some((id, state)) = queue.pop_front() {
        machine.moves(&state, &mut moves);
        for &happens in &moves {
            let mut next = state;
            machine.apply(&mut next, happens);
            if !seen.insert(fingerprint(&next)) {
                continue;
            }
            assert!(ways.len() < STATES_MAX, "the model does not end");
            ways.push((id, happens));
            match machine.verdict(&next) {
                None => queue.push_back((ways.len() as u32 - 1, next)),
                Some(Verdict::Delivered(copied)) if sought(copied) => {
                    found.way = Some(way_to(&ways, ways.len() - 1));
                    found.states = ways.len();
                    return found;
                }
                Some(Verdict::Refused) => found.refused += 1,
                Some(Verdict::Delivered(Copied::Whole)) => found.whole += 1,
                Some(Verdict::Delivered(_)) => found.other_header += 1,
            }
        }
    }
    found.states = ways.len();
    found
}

fn way_to(ways: &[(u32, Move)], last: usize) -> Vec<Move> {
    let mut way = vec![];
    let mut id = last;
    while id > 0 {
        way.push(ways[id].1);
        id = ways[id].0 as usize;
    }
    way.reverse();
    way
}

/// A state is known again by 64 bits: that two of some millions agree by chance is less likely than
/// one in a million.
fn fingerprint(state: &impl Hash) -> u64 {
    let mut hasher = Mixer(0);
    state.hash(&mut hasher);
    hasher.finish()
}

/// Multiplies and rotates, which is quick for the single bytes that a state consists of.
#[derive(Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u8(byte));
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(byte.into());
    }

    fn write_u16(&mut self, value: u16) {
        self.write_u64(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    }

    fn write_isize(&mut self, value: isize) {
        self.write_u64(value as u64);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ self.0 >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        mixed ^ mixed >> 32
    }
}

/// For what is a fingerprint already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only u64 are put in");
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
