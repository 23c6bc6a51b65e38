//! Why a PCI device cannot be used, each time with the mend.

use std::path::PathBuf;

use nix::errno::Errno;

use super::address::PciAddress;

/// What has to be set right before VFIO can be asked for a device.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Nothing is at the address.
    #[error("{address}: no such PCI device; `lspci -D` lists those there are")]
    Absent {
        /// As asked for.
        address: PciAddress,
    },
    /// No device of the machine has an IOMMU group.
    #[error(
        "{address}: the IOMMU is off: enable VT-d or AMD-Vi in the firmware and boot with \
         intel_iommu=on (a VFIO without IOMMU is not supported)"
    )]
    IommuOff {
        /// The device.
        address: PciAddress,
    },
    /// Other devices have a group, this one has none.
    #[error(
        "{address}: no IOMMU stands in front of this device, though others have one: put the card \
         into another slot"
    )]
    NoGroup {
        /// The device.
        address: PciAddress,
    },
    /// The module vfio-pci is not loaded.
    #[error(
        "the kernel's VFIO is missing: modprobe vfio-pci (a kernel without CONFIG_VFIO_PCI has no \
         such module)"
    )]
    NoVfio,
    /// Another driver has the device, or none.
    #[error(
        "{address}: not bound to vfio-pci (now: {}): scripts/vfio-bind.sh {address}",
        driver.as_deref().map_or("no driver".to_owned(), |driver| format!("driver {driver}"))
    )]
    NotBound {
        /// The device.
        address: PciAddress,
        /// The driver that has it.
        driver: Option<String>,
    },
}

/// Why VFIO does not hand out a device that is bound to it.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// The node of the group may not be opened.
    #[error(
        "no access to {} ({owner}): install scripts/99-circbuf-vfio.rules and join its group, or \
         chown it", path.display()
    )]
    Access {
        /// The node.
        path: PathBuf,
        /// Owner and mode.
        owner: String,
    },
    /// The node of the group is open already.
    #[error("{} is in use by another process, and has one user at a time", path.display())]
    Busy {
        /// The node.
        path: PathBuf,
    },
    /// The node is not there, though sysfs speaks of the group.
    #[error(
        "{} is missing, though the device is bound: is /dev that of this machine (in a container: \
         pass the node in)?", path.display()
    )]
    NoNode {
        /// The node.
        path: PathBuf,
    },
    /// Drivers of the kernel hold other devices of the group.
    #[error(
        "IOMMU group {group} is not viable, for the kernel still uses a part of it: {}; bind these \
         to vfio-pci as well (scripts/vfio-bind.sh), or put the card into another slot",
        list(held)
    )]
    NotViable {
        /// Number of the group.
        group: u32,
        /// The other devices, each with its driver.
        held: Vec<String>,
    },
    /// Nothing keeps the device from raising interrupts of others.
    #[error(
        "the IOMMU does not remap interrupts: enable that (and x2APIC) in the firmware; who trusts \
         the card can do without: modprobe vfio_iommu_type1 allow_unsafe_interrupts=1"
    )]
    NoRemapping,
    /// Whatever else.
    #[error("VFIO refuses {what}: {source}")]
    Refused {
        /// What was asked for.
        what: String,
        /// What the crate says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Why a ring cannot be laid open to the device.
#[derive(Debug, thiserror::Error)]
pub enum DmaError {
    /// The limit of locked memory is too small.
    #[error(
        "the ring needs {} MiB of locked memory, and the limit is {limit}: ulimit -l, or \
         scripts/circbuf-memlock.conf", needs.div_ceil(1 << 20)
    )]
    Memlock {
        /// Bytes.
        needs: u64,
        /// The limit, for people.
        limit: String,
    },
    /// The IOMMU does not take the addresses.
    #[error(
        "the IOMMU refuses {bytes} bytes at {iova:#x} ({source}); reserved are {}",
        list(reserved)
    )]
    Addresses {
        /// First address as the device would see it.
        iova: u64,
        /// Size.
        bytes: u64,
        /// What the kernel keeps for itself.
        reserved: Vec<String>,
        /// What the system said.
        source: Errno,
    },
    /// No room between what is reserved.
    #[error("no {bytes} bytes of addresses are free for the ring; reserved are {}", list(reserved))]
    NoRoom {
        /// Size.
        bytes: u64,
        /// What the kernel keeps for itself.
        reserved: Vec<String>,
    },
    /// Whatever else.
    #[error("cannot lay {bytes} bytes open to the device at {iova:#x}: {source}")]
    Refused {
        /// First address as the device would see it.
        iova: u64,
        /// Size.
        bytes: u64,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Why the kernel's VFIO gives no camera.
#[derive(Debug, thiserror::Error)]
pub enum VfioError {
    /// The machine is not set up for it.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// VFIO does not hand the device out.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The device is built otherwise than the datasheet says.
    #[error("{address}: {how}; name the PCI function of a camera")]
    Built {
        /// The device.
        address: PciAddress,
        /// What is missing.
        how: String,
    },
    /// This program was built for a machine whose VFIO it does not know.
    #[error("{address}: VFIO is supported on x86_64 and aarch64 alone, and not by this build")]
    Unsupported {
        /// The device.
        address: PciAddress,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "unknown (see dmesg)".to_owned() } else { names.join(", ") }
}
