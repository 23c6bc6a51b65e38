//! The system as a whole against everything that can happen to it.
//!
//! `SIM_SEED=N` replays one seed, `SIM_FIRST=N` begins with another one than 0, `SIM_SEEDS=N` runs
//! more of them: `SIM_SEED=7 cargo test -p circbuf-tests --test sim -- --exact seeds::seeds --nocapture`.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test tells its seed")]

mod adversary;
mod archivist;
mod bench;
mod consumer;
mod disk;
mod law;
mod payload;
mod pointed;
mod seeds;
mod told;
mod truths;
mod world;
