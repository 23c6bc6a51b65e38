//! A camera that is a PCI function ([`circbuf_abi::pci`] is its datasheet): one bring-up, whoever
//! stands between the driver and the function.

mod address;
mod error;
mod function;
mod memory;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod no_vfio;
mod transport;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[allow(unsafe_code)]
mod vfio;
mod vfio_error;
mod vfio_user;
#[allow(unsafe_code)]
mod wire;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

pub use address::PciAddress;
pub use error::{DeviceErrors, PciError};
pub(super) use function::Function;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
use no_vfio as vfio;
use transport::Transport;
pub use vfio_error::{DmaError, GroupError, SetupError, VfioError};

/// Where a PCI function is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PciPlace {
    /// Behind the socket of a vfio-user server, such as an emulator's.
    VfioUser(PathBuf),
    /// On a bus of this machine, bound to the kernel's vfio-pci.
    Vfio(PciAddress),
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
            PciPlace::Vfio(address) => write!(f, "vfio:{address}"),
        }
    }
}

/// A name that is no place of a PCI function.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{name}' is no PCI function; vfio:0000:01:00.0 (an address as `lspci -D` lists them), or \
     vfio-user:SOCKET"
)]
pub struct PciPlaceError {
    /// As it was given.
    pub name: String,
}

impl FromStr for PciPlace {
    type Err = PciPlaceError;

    fn from_str(name: &str) -> Result<PciPlace, PciPlaceError> {
        let place = match name.split_once(':') {
            Some(("vfio-user", socket)) if !socket.is_empty() => {
                Some(PciPlace::VfioUser(PathBuf::from(socket)))
            }
            Some(("vfio", address)) => PciAddress::parse(address).map(PciPlace::Vfio),
            _ => None,
        };
        place.ok_or_else(|| PciPlaceError { name: name.to_owned() })
    }
}

impl PciPlace {
    fn connect(&self) -> Result<Transport, PciError> {
        match self {
            PciPlace::VfioUser(socket) => vfio_user::VfioUser::connect(socket)
                .map(Transport::VfioUser)
                .map_err(|source| PciError::Connect { device: self.to_string(), source }),
            PciPlace::Vfio(address) => Ok(Transport::Vfio(Box::new(vfio::Vfio::open(*address)?))),
        }
    }
}

#[cfg(test)]
mod tests;
