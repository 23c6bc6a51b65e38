//! A camera that is a PCI function ([`circbuf_abi::pci`] is its datasheet): one bring-up, whoever
//! stands between the driver and the function.

mod error;
mod function;
mod memory;
mod transport;
mod vfio_user;
#[allow(unsafe_code)]
mod wire;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

pub use error::{DeviceErrors, PciError};
pub(super) use function::Function;
use transport::Transport;

/// Where a PCI function is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PciPlace {
    /// Behind the socket of a vfio-user server, such as an emulator's.
    VfioUser(PathBuf),
}

/// How a PCI function is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PciOptions {
    /// Size of the ring, a multiple of 4096; `None` takes what the device was made for.
    pub ring_bytes: Option<u64>,
    /// Lets the device wait for the driver, as no camera does: for tests and benchmarks.
    pub credit: bool,
}

impl fmt::Display for PciPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PciPlace::VfioUser(socket) => write!(f, "vfio-user:{}", socket.display()),
        }
    }
}

/// A name that is no place of a PCI function.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{name}' is no PCI function; vfio-user:SOCKET")]
pub struct PciPlaceError {
    /// As it was given.
    pub name: String,
}

impl FromStr for PciPlace {
    type Err = PciPlaceError;

    fn from_str(name: &str) -> Result<PciPlace, PciPlaceError> {
        match name.split_once(':') {
            Some(("vfio-user", socket)) if !socket.is_empty() => {
                Ok(PciPlace::VfioUser(PathBuf::from(socket)))
            }
            _ => Err(PciPlaceError { name: name.to_owned() }),
        }
    }
}

impl PciPlace {
    fn connect(&self) -> Result<Transport, PciError> {
        match self {
            PciPlace::VfioUser(socket) => vfio_user::VfioUser::connect(socket)
                .map(Transport::VfioUser)
                .map_err(|source| PciError::Connect { device: self.to_string(), source }),
        }
    }
}

#[cfg(test)]
mod tests;
