use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

/// A sysfs with one camera at 0000:01:00.0, in group 7, bound to vfio-pci.
struct Sysfs {
    root: TempDir,
}

const CAMERA: &str = "0000:01:00.0";

impl Sysfs {
    fn new() -> Sysfs {
        let sysfs = Sysfs { root: tempfile::tempdir().unwrap() };
        sysfs.folder("bus/pci/drivers/vfio-pci");
        sysfs.function(CAMERA, Some(7), Some("vfio-pci"));
        sysfs
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn folder(&self, path: &str) {
        fs::create_dir_all(self.path(path)).unwrap();
    }

    fn function(&self, address: &str, group: Option<u32>, driver: Option<&str>) {
        let folder = format!("bus/pci/devices/{address}");
        self.folder(&folder);
        if let Some(driver) = driver {
            let link = self.path(&folder).join("driver");
            symlink(format!("../../../../bus/pci/drivers/{driver}"), link).unwrap();
        }
        let Some(group) = group else { return };
        let members = format!("kernel/iommu_groups/{group}/devices");
        self.folder(&members);
        symlink(self.path(&folder), self.path(&members).join(address)).unwrap();
        let link = self.path(&folder).join("iommu_group");
        symlink(format!("../../../../kernel/iommu_groups/{group}"), link).unwrap();
    }

    fn remove(&self, link: &str) {
        fs::remove_file(self.path("bus/pci/devices").join(CAMERA).join(link)).unwrap();
    }

    fn find(&self, address: &str) -> Result<Bound, SetupError> {
        Bound::find(self.root.path(), PciAddress::parse(address).unwrap())
    }

    fn refusal(&self) -> String {
        self.find(CAMERA).unwrap_err().to_string()
    }
}

#[test]
fn a_bound_function_is_found_with_its_group() {
    let sysfs = Sysfs::new();
    let function = sysfs.find(CAMERA).unwrap();
    assert_eq!((function.group, function.address.to_string()), (7, CAMERA.to_owned()));
    assert_eq!(function.folder(), sysfs.path("bus/pci/devices").join(CAMERA));
}

#[test]
fn what_is_not_there_is_told() {
    let absent = Sysfs::new().find("0000:02:00.0").unwrap_err().to_string();
    assert_eq!(absent, "0000:02:00.0: no such PCI device; `lspci -D` lists those there are");
}

#[test]
fn an_iommu_that_is_off_is_told_from_a_device_without_one() {
    let sysfs = Sysfs::new();
    sysfs.remove("iommu_group");
    assert!(sysfs.refusal().contains("no IOMMU stands in front"), "{}", sysfs.refusal());
    fs::remove_dir_all(sysfs.path("kernel/iommu_groups")).unwrap();
    assert!(sysfs.refusal().contains("the IOMMU is off: enable VT-d"), "{}", sysfs.refusal());
    sysfs.folder("kernel/iommu_groups");
    assert!(sysfs.refusal().contains("the IOMMU is off"), "an empty folder says the same");
}

#[test]
fn a_missing_module_is_told() {
    let sysfs = Sysfs::new();
    fs::remove_dir(sysfs.path("bus/pci/drivers/vfio-pci")).unwrap();
    assert!(sysfs.refusal().contains("modprobe vfio-pci"), "{}", sysfs.refusal());
}

#[test]
fn the_driver_that_has_the_function_is_named() {
    let sysfs = Sysfs::new();
    sysfs.remove("driver");
    assert!(sysfs.refusal().contains("(now: no driver): scripts/vfio-bind.sh 0000:01:00.0"));
    sysfs.function("0000:01:00.1", Some(7), Some("xdma"));
    let bound = sysfs.find("0000:01:00.1").unwrap_err().to_string();
    assert!(bound.contains("(now: driver xdma)"), "{bound}");
}

#[test]
fn those_that_make_a_group_unviable_are_listed() {
    let sysfs = Sysfs::new();
    sysfs.function("0000:00:1f.2", Some(7), Some("ahci"));
    sysfs.function("0000:00:01.0", Some(7), Some("pcieport"));
    sysfs.function("0000:01:00.2", Some(7), None);
    sysfs.function("0000:00:02.0", Some(8), Some("i915"));
    let held = sysfs.find(CAMERA).unwrap().held_by_the_kernel();
    assert_eq!(held, ["0000:00:1f.2 (driver ahci)"]);
}

#[test]
fn reserved_regions_are_read_as_the_kernel_writes_them() {
    let sysfs = Sysfs::new();
    let function = sysfs.find(CAMERA).unwrap();
    assert!(function.reserved().is_err(), "a kernel may not tell");
    let text = "0x000000007d800000 0x000000007fffffff direct\n\
                0x00000000fee00000 0x00000000feefffff msi\n";
    fs::write(sysfs.path("kernel/iommu_groups/7/reserved_regions"), text).unwrap();
    let told: Vec<String> = function.reserved().unwrap().iter().map(Reserved::to_string).collect();
    assert_eq!(told, ["0x7d800000-0x7fffffff (direct)", "0xfee00000-0xfeefffff (msi)"]);
}
