//! For tests: a disk whose power can be cut. An archive is written on it and put on tape; then the
//! disk is made as it may be after a cut at each point of the tape, and recovered.

pub(super) mod disk;
mod proof;
mod tape;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};

use tape::{Change, Tape};

/// What a disk writes at once or not at all.
const SECTOR_BYTES: usize = 512;

/// Chance: all that can happen, one after the other, or some of it, by a seed.
enum Chance {
    /// What was chosen, and of how many.
    All {
        chosen: Vec<(usize, usize)>,
        at: usize,
    },
    Some(Xoshiro256PlusPlus),
}

impl Chance {
    fn all() -> Chance {
        Chance::All { chosen: Vec::new(), at: 0 }
    }

    fn some(seed: u64, time: usize) -> Chance {
        Chance::Some(Xoshiro256PlusPlus::seed_from_u64(seed << 32 | time as u64))
    }

    fn pick(&mut self, options: usize) -> usize {
        match self {
            Chance::Some(random) => (random.next_u64() % options as u64) as usize,
            Chance::All { chosen, at } => {
                if *at == chosen.len() {
                    chosen.push((0, options));
                }
                *at += 1;
                chosen[*at - 1].0
            }
        }
    }

    /// Goes on to the next of all; false if that was the last.
    fn next(&mut self) -> bool {
        let Chance::All { chosen, at } = self else { return false };
        *at = 0;
        while let Some((choice, options)) = chosen.pop() {
            if choice + 1 < options {
                chosen.push((choice + 1, options));
                return true;
            }
        }
        false
    }
}

/// The files of a disk.
type Files = BTreeMap<String, Vec<u8>>;

/// The disk after a power cut at this time of the tape: what is certain, and what chance has left of
/// everything else that was begun.
fn after_cut(tape: &Tape, time: usize, chance: &mut Chance) -> Files {
    let mut contents: BTreeMap<u32, Vec<u8>> = (0..).zip(tape.before.values().cloned()).collect();
    let mut names: BTreeMap<String, u32> = tape.before.keys().cloned().zip(0..).collect();
    for event in tape.events.iter().filter(|event| event.begun <= time) {
        let certain = event.certain.is_some_and(|certain| certain <= time);
        match &event.change {
            Change::Write { file, offset, bytes } => {
                let content = contents.entry(*file).or_default();
                match certain {
                    true => write_whole(content, *offset as usize, bytes),
                    false => write_some(content, *offset as usize, bytes, chance),
                }
            }
            _ if !certain && chance.pick(2) == 0 => {}
            Change::SetLen { file, bytes } => {
                contents.entry(*file).or_default().resize(*bytes as usize, 0);
            }
            Change::Reserve { file, end } => {
                grow(contents.entry(*file).or_default(), *end as usize)
            }
            Change::Link { name, file } => drop(names.insert(name.clone(), *file)),
            Change::Rename { from, to, file } => {
                names.retain(|name, number| name != from || number != file);
                names.insert(to.clone(), *file);
            }
            Change::Unlink { name } => drop(names.remove(name)),
        }
    }
    let content = |number| contents.get(&number).cloned().unwrap_or_default();
    names.into_iter().map(|(name, number)| (name, content(number))).collect()
}

fn grow(content: &mut Vec<u8>, end: usize) {
    content.resize(content.len().max(end), 0);
}

fn write_whole(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    grow(content, offset + bytes.len());
    content[offset..][..bytes.len()].copy_from_slice(bytes);
}

/// Of a write that is not certain, chance leaves nothing, all, the file's length alone, or some
/// sectors; where the others should be stands what stood there, or zeros, or anything.
fn write_some(content: &mut Vec<u8>, offset: usize, bytes: &[u8], chance: &mut Chance) {
    let sectors = (offset + bytes.len()).div_ceil(SECTOR_BYTES) - offset / SECTOR_BYTES;
    let ways = if matches!(chance, Chance::All { .. }) { 6 } else { 8 };
    let left: Vec<bool> = match chance.pick(ways) {
        0 => return,
        1 => return write_whole(content, offset, bytes),
        2 => vec![false; sectors],
        3 => (0..sectors).map(|sector| sector == 0).collect(),
        4 => (0..sectors).map(|sector| sector != 0).collect(),
        5 => return write_whole(content, offset, &bytes[..bytes.len() / 2]),
        6 => (0..sectors).map(|_| chance.pick(2) == 0).collect(),
        _ => {
            let old = content.len();
            grow(content, offset + bytes.len());
            content[old.max(offset)..].fill(0xA5);
            (0..sectors).map(|_| chance.pick(2) == 0).collect()
        }
    };
    grow(content, offset + bytes.len());
    for (at, byte) in bytes.iter().enumerate() {
        if left[(offset + at) / SECTOR_BYTES - offset / SECTOR_BYTES] {
            content[offset + at] = *byte;
        }
    }
}
