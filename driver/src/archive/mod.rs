//! The archive: segments of records on disk, an index beside each, and what reads them again.
//!
//! A record is a slab as it stands in memory (see [`crate::record`]), so a frame goes to disk
//! without another copy. Nothing that was written is ever written again; the only thing that is
//! done to a segment later is to cut off what lies behind its last whole record.

mod directory;
mod engine;
mod error;
mod index;
mod options;
mod outage;
mod queue;
mod reader;
mod recover;
mod scan;
#[cfg(test)]
mod scripted;
mod segment;
mod segment_file;
mod slot;
#[allow(unsafe_code)]
mod uring;
mod verify;
mod walk;
mod witness;
mod writer;

pub use error::{ArchiveError, ReadError, RecoverError};
pub use index::{INDEX_ENTRY_BYTES, IndexEntry, IndexEntryError};
pub use options::{ArchiveCounters, ArchiveOptions, Durability, EngineChoice, Session};
pub use reader::{ArchiveReader, Scan, SegmentPath};
pub use recover::{Cut, RecoverReport, recover};
pub use scan::{Content, Entry, Extent, Found};
pub use segment::{SEGMENT_HEADER_BYTES, SegmentError, SegmentHeader};
pub use verify::{Problem, Problems, VerifyReport, verify};
pub use writer::Archive;
