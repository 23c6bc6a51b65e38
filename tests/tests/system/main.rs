//! The whole system by its libraries: what an emulated camera writes, and what a driver makes of it.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod determinism;
mod forensics;
mod golden;
mod handing_on;
mod lies;
mod overrun;
mod pci;
mod plain_check;
mod starvation;
mod threads;
