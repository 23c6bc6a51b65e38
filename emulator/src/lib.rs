//! The FPGA of a camera in software.
#![deny(missing_docs)]

pub mod model;
