//! What is asked of an archive, and what it counts.

use std::io;

use serde::{Deserialize, Serialize};

use super::error::ArchiveError;
use super::segment::SEGMENT_HEADER_BYTES;
use crate::record::RECORD_ALIGN;
use crate::ring::Geometry;

/// What an archive is of; the same in every segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Session {
    /// A number drawn once for the session.
    pub session: u64,
    /// Number of the camera, from 0.
    pub camera: u32,
    /// Geometry at the beginning of the session; each frame tells its own.
    pub geometry: Geometry,
    /// Size of the ring in bytes.
    pub ring_bytes: u64,
}

/// When the archive makes sure that what it wrote survives a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// When a segment is sealed, or has 4096 records more; only then are they indexed. What is written
    /// survives the death of the program even so, though not that of the machine.
    None,
    /// At least every so many milliseconds while frames come. Written, synced, then indexed.
    Interval(u64),
    /// With the next [`super::Archive::poll`]. Written, synced, then indexed; frames appended in one
    /// burst share a sync.
    Frame,
}

/// How bytes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineChoice {
    /// io_uring where the system allows it, plain writes where not.
    Auto,
    /// io_uring, or an error.
    Uring,
    /// One `pwrite` after the other.
    Pwrite,
}

/// How the archive is written. [`ArchiveOptions::default`] is right for a camera on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveOptions {
    /// A new segment is begun before one exceeds this, in bytes, at least 8192. A single record
    /// that is larger still gets a segment of its own.
    pub segment_bytes: u64,
    /// A new segment is begun when one is so many seconds old, with the first record after that.
    pub segment_seconds: Option<u64>,
    /// Whether an index is written beside each segment.
    pub index: bool,
    /// When frames are made durable.
    pub durability: Durability,
    /// How bytes are written.
    pub engine: EngineChoice,
    /// Most writes in flight, 1 to 1024.
    pub depth: usize,
}

/// Most writes in flight that may be asked for.
const DEPTH_MAX: usize = 1024;

impl Default for ArchiveOptions {
    fn default() -> Self {
        ArchiveOptions {
            segment_bytes: 4 << 30,
            segment_seconds: None,
            index: true,
            durability: Durability::Interval(1000),
            engine: EngineChoice::Auto,
            depth: 8,
        }
    }
}

impl ArchiveOptions {
    pub(super) fn check(&self) -> Result<(), ArchiveError> {
        let smallest = (SEGMENT_HEADER_BYTES + RECORD_ALIGN) as u64;
        if self.segment_bytes < smallest {
            let value = self.segment_bytes;
            return Err(ArchiveError::Options { name: "segment_bytes", value, least: smallest });
        }
        if !(1..=DEPTH_MAX).contains(&self.depth) {
            let value = self.depth as u64;
            return Err(ArchiveError::Options { name: "depth", value, least: 1 });
        }
        Ok(())
    }
}

/// What an archive has done so far. Every number but `in_flight` only grows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ArchiveCounters {
    /// Frames written, and synced and indexed as far as the durability asks for it.
    pub frames_written: u64,
    /// Frames that could not be written.
    pub frames_lost_io: u64,
    /// Loss records written, as `frames_written`.
    pub losses_written: u64,
    /// Frames appended that are neither written nor lost yet.
    pub in_flight: u64,
    /// Bytes of the records written, padding included.
    pub bytes_written: u64,
    /// Segments begun.
    pub segments: u64,
    /// Frames that survive a power cut.
    pub durable: u64,
    /// Operations on files that failed.
    pub io_errors: u64,
    /// What the latest of them was.
    pub last_error: Option<String>,
    /// `io_uring` or `pwrite`.
    pub engine: &'static str,
    /// Whether the segment in use is written past the page cache.
    pub direct: bool,
}

impl ArchiveCounters {
    /// An index cannot be written: it can be made again, so that the archive goes on.
    pub(super) fn give_index_up(&mut self, error: &io::Error) {
        log::error!("the index is given up until the next segment: {error}");
        self.io_errors += 1;
        self.last_error.get_or_insert_with(|| format!("cannot write the index: {error}"));
    }
}
