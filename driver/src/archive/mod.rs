//! The archive: segments of records on disk, an index beside each, and what reads them again.
//!
//! A record is a slab as it stands in memory (see [`crate::record`]), so a frame goes to disk
//! without another copy. Nothing that was written is ever written again; the only thing that is
//! done to a segment later is to cut off or erase what was begun and never finished.
//!
//! After a power cut at any moment, whatever it leaves of what was not synced yet, [`recover()`]
//! gives every record that was reported as durable, perhaps more whole ones behind them, and
//! nothing that is not whole; and the index never names what is not there. The tests cut the power
//! at every point (`power`).

mod directory;
mod disk;
mod engine;
mod error;
mod index;
mod options;
mod outage;
#[cfg(test)]
mod power;
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
#[cfg_attr(not(target_pointer_width = "64"), path = "no_uring.rs")]
mod uring;
mod verify;
mod walk;
mod witness;
mod writer;

// The disk; in tests one whose power can be cut.
#[cfg(not(test))]
use disk as store;
#[cfg(test)]
use power::disk as store;

pub use error::{ArchiveError, ReadError, RecoverError};
pub use index::{INDEX_ENTRY_BYTES, IndexEntry, IndexEntryError};
pub use options::{ArchiveCounters, ArchiveOptions, Durability, EngineChoice, Session};
pub use reader::{ArchiveReader, Scan, SegmentPath};
pub use recover::{Cut, RecoverReport, recover};
pub use scan::{Content, Entry, Extent, Found};
pub use segment::{SEGMENT_HEADER_BYTES, SegmentError, SegmentHeader};
pub use verify::{Problem, Problems, VerifyReport, verify};
pub use writer::Archive;
