//! The FPGA of a camera in software.
//!
//! A [`Source`](source::Source) makes pictures: drawn, read from files or a pipe, or noise. At the
//! time that its [`Pace`](pace::Pace) sets, the [`Camera`](camera::Camera) hands the next one to
//! the [`Fpga`](fpga::Fpga). The FPGA writes it upwards into a ring, in chunks of 32 bytes: the
//! stuffed scan, zeros, a trailer with time and length, and a gap. In the register page it
//! announces every burst before and after it is written. When the frame is whole, the interrupt
//! handler stamps a header into the gap in front of it.
//!
//! The FPGA never waits for a reader: who reads too slowly is overwritten. It knows nothing of
//! readers at all. What they share is memory, a [`RingFile`](ring_file::RingFile): a named file
//! on a tmpfs or disk, or a memfd for a driver in the same process. What was really written stands
//! in the [`Ledger`](ledger::Ledger), for whoever wants to prove what a driver says.
//!
//! The bytes are described in [`circbuf_abi::ring`], the register page in
//! [`circbuf_abi::registers`].
//!
//! # Example
//! A camera in virtual time, which does not sleep and gives the same bytes every time:
//! ```
//! use std::sync::atomic::AtomicBool;
//!
//! use circbuf_emulator::camera::{Camera, Limit, Options};
//! use circbuf_emulator::clock::Clock;
//! use circbuf_emulator::ledger::Ledger;
//! use circbuf_emulator::model::Model;
//! use circbuf_emulator::ring_file::RingFile;
//! use circbuf_emulator::source::{Source, SourceOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let source = Source::open(&"noise:1000-200000".parse()?, &SourceOptions::default())?;
//! let mut options = Options::of(Model::Nc353);
//! options.clock = Clock::Virtual;
//! options.pace.fps = Some(12.0);
//! options.limit = Limit { frames: Some(10), time: None };
//! options.ledger = Ledger::in_memory();
//!
//! let ring = RingFile::memfd(Model::Nc353.ring_bytes())?;
//! let camera = Camera::new(ring, source, options)?;
//! // A driver would duplicate and map `camera.ring().ring_fd()` here.
//! let report = camera.run(&AtomicBool::new(false))?;
//!
//! for frame in &report.ledger {
//!     println!("{:3} at {:#09x}: {} bytes", frame.number, frame.offset, frame.length);
//! }
//! assert_eq!(report.frames, 10);
//! assert_eq!(report.ledger[9].time().usec, 750_000);
//! # Ok(())
//! # }
//! ```
#![deny(missing_docs)]

pub mod camera;
mod channel;
pub mod clock;
#[allow(unsafe_code)]
mod dma;
pub mod encode;
pub mod escape;
pub mod font;
pub mod fpga;
pub mod framecode;
mod interrupt;
pub mod jpeg_file;
pub mod ledger;
pub mod model;
pub mod pace;
#[cfg(test)]
mod rebuild;
pub mod report;
pub mod ring_file;
pub mod source;
