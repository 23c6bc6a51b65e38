//! The camera as a PCI function, whose datasheet is [`circbuf_abi::pci`].
//!
//! [`Function`] is the device: configuration space, registers, interrupt vectors, and the host's
//! memory as far as it was mapped for DMA. It has no socket and can be driven by calls. [`serve`]
//! puts it behind one connection of vfio-user, whose other end is a driver or a QEMU.
//!
//! The FPGA writes into the host's memory itself, wherever its pieces lie: nothing is copied on the
//! way. Where the host does not promise by a seal that its memory stays, it is written by system
//! calls, because a store into memory that is gone would end the process.

mod config;
mod engine;
mod function;
mod gate;
mod host;
mod latch;
mod registers;
mod server;

pub use function::{Function, FunctionError};
pub(crate) use host::HostRing;
pub use host::MapError;
pub(crate) use latch::Vectors;
pub use server::{ServeError, serve};

#[cfg(test)]
mod tests;
