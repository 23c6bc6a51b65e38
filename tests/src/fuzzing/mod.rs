//! What holds for any bytes, as functions of bytes.
//!
//! Each target reads its bytes as a file, or as a program that makes one (frames laid into a ring,
//! records into a segment), so that a mutated byte changes a step and not only a checksum. The
//! targets are run by libFuzzer (`tests/fuzz`, `scripts/fuzz.sh`) and, from the same corpus but
//! without looking at coverage, by `tests/tests/fuzzed.rs` wherever `cargo test` runs.
//!
//! A target panics where a property does not hold.

mod archive;
mod config;
mod decode;
mod faults;
mod index;
mod input;
mod jpeg;
mod law;
mod npy;
mod ring;
mod scratch;
mod seeded;
mod tail;
mod walker;
mod y4m;

pub use config::{check as check_config, seeds as config_seeds};

/// A function of bytes, and bytes with which it begins.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The name of its binary in `tests/fuzz`, and of its folder in the corpus.
    pub name: &'static str,
    /// Panics if a property does not hold for these bytes.
    pub check: fn(&[u8]),
    /// Lawful inputs.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets but that of the configuration, whose reader belongs to the program: see
/// [`check_config`].
pub const TARGETS: [Target; 9] = [
    Target { name: "walker", check: walker::check, seeds: walker::seeds },
    Target { name: "tail", check: tail::check, seeds: tail::seeds },
    Target { name: "archive", check: archive::check, seeds: archive::seeds },
    Target { name: "index", check: index::check, seeds: index::seeds },
    Target { name: "jpeg", check: jpeg::check, seeds: jpeg::seeds },
    Target { name: "npy", check: npy::check, seeds: npy::seeds },
    Target { name: "y4m", check: y4m::check, seeds: y4m::seeds },
    Target { name: "decode", check: decode::check, seeds: decode::seeds },
    Target { name: "faults", check: faults::check, seeds: faults::seeds },
];

impl Target {
    /// Tries every seed, every file of the corpus, and so many mutations of them, which follow from a
    /// seed.
    ///
    /// # Panics
    /// If a property does not hold; the message names the file with the input.
    pub fn run_seeded(&self, mutations: u64) {
        seeded::run(self, mutations);
    }

    /// Writes the seeds as files where a fuzzer finds them: into the directory that the variable
    /// `FUZZ_SEEDS` names, if it is set.
    ///
    /// # Panics
    /// If they cannot be written.
    pub fn write_seeds(&self) {
        let Some(dir) = std::env::var_os("FUZZ_SEEDS").map(std::path::PathBuf::from) else {
            return;
        };
        for (number, seed) in (self.seeds)().into_iter().enumerate() {
            std::fs::write(dir.join(format!("seed-{number}")), seed).expect("there is room");
        }
    }
}

/// The target of this name.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn target(name: &str) -> Target {
    TARGETS.into_iter().find(|target| target.name == name).expect("a target of this name")
}
