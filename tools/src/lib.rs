//! What the programs `circbuf` and `test_mmap` are made of: ring forensics, hex dumps, Exif, export,
//! and the comparison of an archive with the ledger of its camera.
#![deny(missing_docs)]

pub mod answer_key;
pub mod dump;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub mod exec;
pub mod exif;
pub mod export;
pub mod ring_file;
pub mod save;
pub mod size;
pub mod stderr;
pub mod stdout;
