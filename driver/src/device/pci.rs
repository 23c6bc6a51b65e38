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
use std::path::{Path, PathBuf};
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
    /// Size of the ring, a multiple of 4096, or of a huge page; `None` takes what the device was made for,
    /// rounded up to whole pages.
    pub ring_bytes: Option<u64>,
    /// Takes huge pages of the system's usual size for the ring, which have to be set aside before
    /// (`vm.nr_hugepages`): fewer entries in the tables of processor and IOMMU.
    pub huge_pages: bool,
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

/// Bytes that the path of a socket may have: 108 stand in an address (unix(7)), and the last one is zero.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// A name that is no place of a PCI function.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PciPlaceError {
    /// No kind of device, or no address.
    #[error(
        "'{name}' is no PCI function; vfio:0000:01:00.0 (an address as `lspci -D` lists them), or \
         vfio-user:SOCKET"
    )]
    Unknown {
        /// As it was given.
        name: String,
    },
    /// A socket without a path.
    #[error("vfio-user: names no socket; put its path behind it, as in vfio-user:SOCKET")]
    NoSocket,
    /// A path that no socket can have.
    #[error(
        "{}: a socket's path has {SOCKET_PATH_BYTES_MAX} bytes at most, this one {bytes}; give it a \
         shorter one, or go nearer (cd) and name it from there", path.display()
    )]
    LongSocket {
        /// The path.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
}

/// Looks whether a socket can have this path.
///
/// # Errors
/// [`PciPlaceError::LongSocket`] if it is too long.
pub fn check_socket_path(path: &Path) -> Result<(), PciPlaceError> {
    match path.as_os_str().len() {
        ..=SOCKET_PATH_BYTES_MAX => Ok(()),
        bytes => Err(PciPlaceError::LongSocket { path: path.to_owned(), bytes }),
    }
}

impl FromStr for PciPlace {
    type Err = PciPlaceError;

    fn from_str(name: &str) -> Result<PciPlace, PciPlaceError> {
        let unknown = || PciPlaceError::Unknown { name: name.to_owned() };
        match name.split_once(':') {
            Some(("vfio-user", "")) => Err(PciPlaceError::NoSocket),
            Some(("vfio-user", socket)) => {
                let socket = PathBuf::from(socket);
                check_socket_path(&socket)?;
                Ok(PciPlace::VfioUser(socket))
            }
            Some(("vfio", address)) => {
                PciAddress::parse(address).map(PciPlace::Vfio).ok_or_else(unknown)
            }
            _ => Err(unknown()),
        }
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
