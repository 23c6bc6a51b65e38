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
//! in the [`Ledger`](ledger::Ledger), for whoever wants to prove what a driver says. The camera can be a
//! PCI function as well ([`pci`]), which writes by DMA into memory that its driver gives it.
//!
//! The bytes are described in [`circbuf_abi::ring`], the register page in
//! [`circbuf_abi::registers`].
//!
//! To begin with, look at [`camera`] for a whole camera, and at [`fpga`] for one that a test stops
//! between any two chunks; [`source`] has what can be compressed, [`model`] which cameras there are.
//!
//! # Example
//! A camera in virtual time, which does not sleep and gives the same bytes every time, and a driver
//! that holds what it finds against the ledger. `credit` makes the camera wait for the driver, as
//! no camera does, so that nothing is lost:
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::AtomicU64;
//!
//! use circbuf_driver::device::Device;
//! use circbuf_driver::pipeline::{Options, Pipeline, Processor};
//! use circbuf_emulator::camera::{self, Camera, Limit};
//! use circbuf_emulator::clock::Clock;
//! use circbuf_emulator::ledger::Ledger;
//! use circbuf_emulator::model::Model;
//! use circbuf_emulator::ring_file::RingFile;
//! use circbuf_emulator::source::{Source, SourceOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let source = Source::open(&"noise:1000-200000".parse()?, &SourceOptions::default())?;
//! let credit = Arc::new(AtomicU64::new(0));
//! let mut options = camera::Options::of(Model::Nc353);
//! options.clock = Clock::Virtual;
//! options.pace.fps = Some(12.0);
//! options.limit = Limit { frames: Some(10), time: None };
//! options.ledger = Ledger::in_memory();
//! options.credit = Some(Arc::clone(&credit));
//! let camera = Camera::new(RingFile::memfd(Model::Nc353.ring_bytes())?, source, options)?;
//!
//! let device = Device::from_fds(camera.ring().ring_fd(), Some(camera.ring().registers_fd()))?;
//! let (sender, frames) = std::sync::mpsc::channel();
//! let keep: Processor = Box::new(move |delivery| {
//!     let frame = &delivery.frame;
//!     let _ = sender.send((frame.sequence(), crc_fast::crc32_iscsi(frame.payload())));
//! });
//! let options = Options { credit: Some(credit), ..Options::default() };
//! let driver = Pipeline::start(device, vec![keep], None, &options)?;
//! let report = camera.spawn()?.join()?;
//! driver.join().snapshot.check_balance()?;
//!
//! let truth: Vec<_> = report.ledger.iter().map(|frame| (frame.number, frame.crc32c)).collect();
//! assert_eq!(frames.iter().collect::<Vec<_>>(), truth);
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
pub mod fault;
pub mod font;
pub mod fpga;
pub mod framecode;
mod interrupt;
pub mod jpeg_file;
pub mod ledger;
pub mod model;
pub mod node;
pub mod pace;
pub mod pci;
#[cfg(test)]
mod rebuild;
pub mod report;
pub mod ring_file;
pub mod source;
