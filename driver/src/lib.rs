//! A userspace driver for the circular frame buffer of a camera.
#![deny(missing_docs)]

// In the order in which a frame meets them. `unsafe` is allowed in these files and nowhere else.
pub mod device;
pub mod mapped_ring;
#[allow(unsafe_code)]
pub mod mapping;
#[allow(unsafe_code)]
mod sigbus;

pub mod copy;
pub mod frame;
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

pub mod forensics;
pub mod jpeg;

#[cfg(test)]
mod hand_camera;
