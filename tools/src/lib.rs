//! What the programs `circbuf` and `test_mmap` are made of: ring forensics, hex dumps, Exif and
//! export.
#![deny(missing_docs)]

pub mod dump;
pub mod exif;
pub mod export;
pub mod ring_file;
pub mod save;
pub mod stdout;
