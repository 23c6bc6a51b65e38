//! The nouns that the emulator (which writes a ring) and the driver (which reads one) share:
//! constants, field offsets and plain structs. There is no parser and no encoder here. Both sides
//! write their verbs on their own, so that one misunderstanding cannot make both wrong together;
//! golden bytes made by hand prove either.
//!
//! All integers are little endian.
#![deny(missing_docs)]

pub mod framecode;
pub mod header;
pub mod jpeg;
pub mod node;
pub mod pci;
pub mod registers;
pub mod ring;
