//! A userspace driver for the circular frame buffer of a camera.
//!
//! The camera's FPGA compresses frames and writes them into a ring in memory. It never waits: who
//! reads too slowly is overwritten. This driver follows the writer, never hands on a frame that was
//! torn, and can say of every frame what became of it.
//!
//! The way of a frame: a [`Tail`](tail::Tail) finds it in a [`Device`](device::Device), by the
//! device's counters or by what stands in the ring, as a [`Candidate`](validate::Candidate): parsed,
//! not trusted. It is copied once, into a [`Slab`](slab::Slab), and looked at again afterwards:
//! [`validate`] has the law by which it is a [`Frame`](frame::Frame) then, or refused and counted.
//! [`Capture`](capture::Capture) does this in one bounded step, without thread or clock, and offers
//! the frame to bounded queues ([`dispatch`]), each with a [`Policy`](policy::Policy) that says which
//! frames it takes and what gives way. At the other ends are processors, which are closures, and the
//! [`Archive`](archive::Archive), which writes the slab as it is. When the last of them drops the
//! frame, its slab is free again. A [`Pipeline`](pipeline::Pipeline) runs all this on threads.
//!
//! What was lost, and why, stands in the books ([`stats`]), which close at any moment.
//!
//! # Example
//! A camera in this process, and a driver that looks at every frame:
//! ```
//! use circbuf_driver::device::Device;
//! use circbuf_driver::dispatch::Delivery;
//! use circbuf_driver::pipeline::{Options, Pipeline, Processor};
//! use circbuf_emulator::camera::{self, Camera, Limit};
//! use circbuf_emulator::model::Model;
//! use circbuf_emulator::ring_file::RingFile;
//! use circbuf_emulator::source::{Source, SourceOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let source = Source::open(&"synthetic:4".parse()?, &SourceOptions::default())?;
//! let mut camera_options = camera::Options::of(Model::Nc353);
//! camera_options.limit = Limit { frames: Some(25), time: None };
//! let ring = RingFile::memfd(Model::Nc353.ring_bytes())?;
//! let camera = Camera::new(ring, source, camera_options)?;
//!
//! // A ring file or a camera's node would be `Device::open(path, None)?`.
//! let device = Device::from_fds(camera.ring().ring_fd(), Some(camera.ring().registers_fd()))?;
//! let look: Processor = Box::new(|delivery: &Delivery| {
//!     let (frame, lost) = (&delivery.frame, &delivery.lost);
//!     lost.iter().for_each(|loss| println!("{} lost: {}", loss.count, loss.reason.name()));
//!     println!("{:4} {} {} bytes", frame.sequence(), frame.time(), frame.payload().len());
//! });
//! let driver = Pipeline::start(device, vec![look], None, &Options::default())?;
//! let camera = camera.spawn()?;
//!
//! let finished = driver.join();
//! finished.snapshot.check_balance()?;
//! assert_eq!(finished.snapshot.ring.frames_expected, Some(25));
//! assert_eq!(camera.join()?.frames, 25);
//! # Ok(())
//! # }
//! ```
#![deny(missing_docs)]

// In the order in which a frame meets them. `unsafe` is allowed in these files and nowhere else.
pub mod device;
pub mod mapped_ring;
#[allow(unsafe_code)]
pub mod mapping;
#[allow(unsafe_code)]
mod sigbus;

pub mod checksum;
pub mod copy;
mod follow;
pub mod frame;
pub mod pointer;
pub mod record;
pub mod registers;
pub mod ring;
pub mod slab;
pub mod tail;
pub mod validate;

pub mod archive;
pub mod capture;
pub mod clock;
pub mod dispatch;
pub mod latency;
pub mod loss;
pub mod pipeline;
pub mod policy;
pub mod proc;
pub mod stats;
pub mod wait;

pub mod forensics;
pub mod jpeg;

#[cfg(test)]
mod hand_camera;
