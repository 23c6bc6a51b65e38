#!/bin/sh
# Gives a PCI device to vfio-pci, so that `circbuf run --device vfio:BDF` can drive it, or takes it back.
#   vfio-bind.sh BDF            bind to vfio-pci; whatever driver has the device lets go of it
#   vfio-bind.sh --unbind BDF   let the kernel find its own driver again
# BDF is an address as `lspci -D` prints it: 0000:01:00.0. As root. Until the next boot.
set -eu

fail() { echo "vfio-bind.sh: $*" >&2; exit 1; }
usage() { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }

unbind=
if [ "${1:-}" = --unbind ]; then unbind=1; shift; fi
[ $# = 1 ] || usage
case $1 in -*) usage ;; *:*:*.*) bdf=$1 ;; *:*.*) bdf=0000:$1 ;; *) usage ;; esac
pci=/sys/bus/pci
device=$pci/devices/$bdf
[ -e "$device" ] || fail "$bdf: no such PCI device; lspci -D lists those there are"
[ "$(id -u)" = 0 ] || fail "needs root: sudo $0 $*"

# The driver that has the device, or nothing.
driver() { if [ -e "$device/driver" ]; then basename "$(readlink "$device/driver")"; fi; }

release() {
  if [ -n "$(driver)" ]; then echo "$bdf" > "$device/driver/unbind"; fi
}

# Always succeeds, whether a driver took the device or not: look at it afterwards.
probe() { echo "$bdf" > $pci/drivers_probe || :; }

if [ -n "$unbind" ]; then
  if [ "$(driver)" = vfio-pci ]; then release; fi
  echo > "$device/driver_override"
  if [ -z "$(driver)" ]; then probe; fi
  now=$(driver)
  [ "$now" != vfio-pci ] || fail "$bdf is still bound to vfio-pci: does vfio-pci have its id (new_id, ids=)?"
  echo "$bdf: driver ${now:-none}"
  exit
fi

[ -e "$device/iommu_group" ] || fail "$bdf has no IOMMU group: enable VT-d or AMD-Vi in the firmware and boot \
with intel_iommu=on"
[ -e $pci/drivers/vfio-pci ] || modprobe vfio-pci || fail "this kernel has no vfio-pci"
if [ "$(driver)" != vfio-pci ]; then
  echo vfio-pci > "$device/driver_override"
  release
  probe
fi
[ "$(driver)" = vfio-pci ] || fail "$bdf was not bound: driver $(driver); see dmesg"

group=$(basename "$(readlink "$device/iommu_group")")
echo "$bdf: driver vfio-pci, node /dev/vfio/$group"
# Everything in the group has to be without a driver of the kernel's, or VFIO hands out none of it.
for other in "$device/iommu_group/devices/"*; do
  [ -e "$other/driver" ] || continue
  held=$(basename "$(readlink "$other/driver")")
  case $held in
    vfio-pci | pci-stub | pcieport) ;;
    *) echo "in the way: $(basename "$other") of the same group has driver $held; bind it to vfio-pci as well" ;;
  esac
done
