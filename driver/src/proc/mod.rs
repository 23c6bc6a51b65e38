//! Processors: what is done with a frame's content.
//!
//! Any `FnMut(&Frame)` is one. Those that come with the driver stand here.

pub mod decode;
pub mod framecode;
pub mod measure;
