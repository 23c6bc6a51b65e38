//! A target without a fuzzer: the corpus, the seeds, and mutations of both.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::Target;
use crate::Random;

const BYTES_MAX: usize = 1 << 16;
const WORDS: [u32; 8] = [0, 1, 31, 32, 0x00FF_FFFF, 0xFFFF_FFFF, 0x8000_0000, 0xFF00_0010];

/// Tries every seed, every file of the corpus, and so many mutations, which are the same each time.
pub(super) fn run(target: &Target, mutations: u64) {
    let inputs = [(target.seeds)(), corpus(target.name)].concat();
    inputs.iter().for_each(|input| try_one(target, input));
    let mut random = Random::of(1);
    for _ in 0..mutations {
        let [input, other] = [(); 2].map(|()| &inputs[random.below(inputs.len() as u64) as usize]);
        try_one(target, &mutate(&mut random, input, other));
    }
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let dir: PathBuf = [env!("CARGO_MANIFEST_DIR"), "fuzz", "corpus", name].iter().collect();
    let files = std::fs::read_dir(dir).expect("every target has a corpus");
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("it is there").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("it is there")).collect()
}

/// Keeps an input that fails.
fn try_one(target: &Target, input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| (target.check)(input))).is_ok() {
        return;
    }
    let path = Path::new(&std::env::temp_dir()).join(format!("circbuf-{}.failed", target.name));
    let kept = std::fs::write(&path, input).map(|()| path);
    let name = target.name;
    panic!("{name} fails for {kept:?}; in tests/fuzz/corpus/{name} it is tried first");
}

/// An input with a few changes, some of them pieces of `other`.
fn mutate(random: &mut Random, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    (0..1 + random.below(6)).for_each(|_| change(random, &mut bytes, other));
    bytes.truncate(BYTES_MAX);
    bytes
}

fn change(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    if bytes.is_empty() {
        return bytes.extend(other);
    }
    let length = bytes.len() as u64;
    let at = random.below(length) as usize;
    // Small steps more often than large ones.
    let steps = random.below(9);
    let reach = 1 + random.below(1 << steps).min(length - at as u64 - 1) as usize;
    match random.below(9) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.any() as u8,
        2 => bytes[at] = bytes[at].wrapping_add_signed(random.any() as i8 / 16),
        3 => drop(bytes.drain(at..at + reach)),
        4 => {
            let copied = bytes[at..at + reach].to_vec();
            bytes.splice(at..at, copied);
        }
        5 => {
            let word = random.one_of(&WORDS).to_le_bytes();
            bytes.iter_mut().skip(at).zip(word).for_each(|(byte, new)| *byte = new);
        }
        6 => bytes.truncate(at),
        7 => {
            let from = random.below(other.len().max(1) as u64) as usize;
            let piece = other[from.min(other.len())..].iter().copied().take(reach);
            bytes.splice(at..at, piece);
        }
        _ => (0..reach).for_each(|step| bytes[at + step] = random.any() as u8),
    }
}
