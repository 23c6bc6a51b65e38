//! A userspace driver for the circular frame buffer of a camera.
#![deny(missing_docs)]

pub mod forensics;
pub mod frame;
pub mod jpeg;
pub mod loss;
pub mod proc;
pub mod record;
pub mod ring;
pub mod slab;
