//! What the kernel says of a PCI function in sysfs: asked before VFIO is, because VFIO answers most
//! mistakes of a set-up with one and the same error.

use std::fmt;
use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::super::address::PciAddress;
use super::super::vfio_error::SetupError;

/// Where sysfs is mounted.
pub(super) const SYSFS: &str = "/sys";

/// The driver that a function has to be bound to.
const VFIO_PCI: &str = "vfio-pci";

/// Drivers that may hold other functions of a group: the kernel calls the group viable all the same.
const HARMLESS: [&str; 3] = [VFIO_PCI, "pci-stub", "pcieport"];

/// A function that is bound to vfio-pci.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) address: PciAddress,
    /// Number of its IOMMU group.
    pub(super) group: u32,
    root: PathBuf,
}

/// Addresses that the IOMMU keeps for itself, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reserved {
    pub(super) addresses: RangeInclusive<u64>,
    kind: String,
}

#[cfg(test)]
impl Reserved {
    pub(super) fn new(addresses: RangeInclusive<u64>, kind: &str) -> Reserved {
        Reserved { addresses, kind: kind.to_owned() }
    }
}

impl fmt::Display for Reserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = self.addresses.clone().into_inner();
        write!(f, "{first:#x}-{last:#x} ({})", self.kind)
    }
}

impl Bound {
    /// Finds a function in the sysfs at `root`, and makes sure that VFIO can be asked for it.
    pub(super) fn find(root: &Path, address: PciAddress) -> Result<Bound, SetupError> {
        let folder = root.join("bus/pci/devices").join(address.to_string());
        if !folder.exists() {
            return Err(SetupError::Absent { address });
        }
        let group = link_name(&folder.join("iommu_group")).and_then(|name| name.parse().ok());
        let Some(group) = group else {
            return Err(match is_empty(&root.join("kernel/iommu_groups")) {
                true => SetupError::IommuOff { address },
                false => SetupError::NoGroup { address },
            });
        };
        if !root.join("bus/pci/drivers").join(VFIO_PCI).exists() {
            return Err(SetupError::NoVfio);
        }
        match link_name(&folder.join("driver")) {
            Some(driver) if driver == VFIO_PCI => {
                Ok(Bound { address, group, root: root.to_owned() })
            }
            driver => Err(SetupError::NotBound { address, driver }),
        }
    }

    /// Its folder in sysfs.
    pub(super) fn folder(&self) -> PathBuf {
        self.root.join("bus/pci/devices").join(self.address.to_string())
    }

    fn group_folder(&self) -> PathBuf {
        self.root.join("kernel/iommu_groups").join(self.group.to_string())
    }

    /// The other functions of the group that a driver of the kernel holds, as `address (driver)`.
    pub(super) fn held_by_the_kernel(&self) -> Vec<String> {
        let Ok(members) = fs::read_dir(self.group_folder().join("devices")) else { return vec![] };
        let mut held: Vec<String> = members
            .filter_map(|member| {
                let member = member.ok()?;
                let driver = link_name(&member.path().join("driver"))?;
                let name = member.file_name().to_string_lossy().into_owned();
                (!HARMLESS.contains(&driver.as_str())).then(|| format!("{name} (driver {driver})"))
            })
            .collect();
        held.sort();
        held
    }

    /// What the IOMMU keeps for itself, where the kernel tells.
    pub(super) fn reserved(&self) -> io::Result<Vec<Reserved>> {
        let text = fs::read_to_string(self.group_folder().join("reserved_regions"))?;
        Ok(text.lines().filter_map(reserved).collect())
    }
}

/// A line such as `0x00000000fee00000 0x00000000feefffff msi`.
fn reserved(line: &str) -> Option<Reserved> {
    let hex = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    let mut words = line.split_whitespace();
    let (first, last) = (hex(words.next()?)?, hex(words.next()?)?);
    let kind = words.next().unwrap_or("reserved").to_owned();
    Some(Reserved { addresses: first..=last, kind })
}

/// Last part of what a link points to; `None` where there is no link.
fn link_name(link: &Path) -> Option<String> {
    let target = fs::read_link(link).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
}

#[cfg(test)]
mod tests;
