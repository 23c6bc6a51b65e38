# shellcheck shell=sh disable=SC2317,SC3045  # functions are called by name; busybox has ulimit -l
# Run in the guest by init: every mistake of a set-up is made and has to be told with its mend, and then the driver
# has to do its work. Archives and books go out through a disk.
set -u

faults=0
ok() { echo "guest: ok: $*"; }
bad() { echo "guest: FAULT: $*"; faults=$((faults + 1)); }

# The camera is known by its ids, the function beside it and the disk by their drivers.
find_function() {
  for device in /sys/bus/pci/devices/*; do
    if [ "$(cat "$device/vendor"):$(cat "$device/device")" = "$1" ]; then basename "$device"; fi
  done
}
camera=$(find_function 0x1af4:0x10fc)
beside=${camera%.*}.1
disk=$(basename "$(readlink /sys/class/nvme/nvme0/device)")

# told CODE WORDS GOT: fails unless a command ended with this exit code, and said these words to /tmp/out.
told() {
  if [ "$3" = "$1" ] && grep -q -- "$2" /tmp/out; then ok "$(grep -- "$2" /tmp/out)"
  else bad "not ended with $1 and '$2' but with $3: $(cat /tmp/out)"
  fi
}

# ends CODE WORDS COMMAND...
ends() {
  wanted=$1 words=$2
  shift 2
  "$@" > /tmp/out 2>&1
  told "$wanted" "$words" $?
}

# refused WORDS COMMAND...: no such device or no access.
refused() { ends 5 "$@"; }

drive() { circbuf run --device "vfio:$1" --seconds 1; }
as_camera() { su camera -s /bin/sh -c "$1"; }

# streams NAME FRAMES SHELL...: archives frames, with the books beside the archive; SHELL runs the command.
streams() {
  name=$1 frames=$2
  shift 2
  if "$@" "circbuf run --device vfio:$camera --frames $frames --archive /tmp/results/$name --arch-policy every --json \
    > /tmp/results/$name.books 2> /tmp/out.$name"
  then
    # Nothing but what it drives is worth a line.
    if grep -q 'warn:\|error:' "/tmp/out.$name"; then bad "$name: $(cat "/tmp/out.$name")"; fi
    ok "$name: $frames frames"
  else bad "$name: ended with $?: $(cat "/tmp/out.$name")"
  fi
}

# In the order in which they need each other. vfio_virqfd is there in Linux 6.1 alone.
load_vfio() {
  for module in irqbypass vfio vfio_virqfd vfio_iommu_type1 vfio-pci-core vfio-pci; do
    if [ -e "/modules/$module.ko" ]; then insmod "/modules/$module.ko" || bad "insmod $module"; fi
  done
}

before_vfio() {
  ends 2 'an address as .lspci -D. lists them' drive 1.2.3
  refused 'no such PCI device' drive 0000:7f:00.0
  refused 'modprobe vfio-pci' drive "$camera"
  load_vfio
}

before_binding() {
  refused '(now: no driver): scripts/vfio-bind.sh' drive "$camera"
  refused '(now: driver nvme)' drive "$disk"
  vfio-bind.sh "$camera" > /tmp/out 2>&1 || bad "vfio-bind.sh: $(cat /tmp/out)"
  group=/dev/vfio/$(basename "$(readlink "/sys/bus/pci/devices/$camera/iommu_group")")
  if grep -q "node $group" /tmp/out && grep -q "in the way: $beside .* driver serial" /tmp/out
  then ok "vfio-bind.sh binds, and tells what is in the way"
  else bad "vfio-bind.sh: $(cat /tmp/out)"
  fi
  refused "is not viable, .*$beside (driver serial)" drive "$camera"
  vfio-bind.sh "$beside" > /tmp/out || bad "vfio-bind.sh: $(cat /tmp/out)"
  refused "name the PCI function of a camera" drive "$beside"
}

without_rights() {
  refused "no access to $group (owner 0, group 0, mode 0600)" as_camera "circbuf run --device vfio:$camera"
  chmod 600 /dev/vfio/vfio
  refused 'no access to /dev/vfio/vfio' as_camera "circbuf run --device vfio:$camera"
  chmod 666 /dev/vfio/vfio
  mv "$group" /dev/moved
  refused "$group is missing, though the device is bound" drive "$camera"
  mv /dev/moved "$group"
  chown camera "$group"
  refused 'MiB of locked memory, and the limit is 0.0625 MiB' \
    as_camera "ulimit -l 64; circbuf run --device vfio:$camera"
}

# The ordinary user that owns the group's node, and root.
working() {
  ulimit -l 65536
  streams user 40 as_camera
  chown root "$group"
  streams root 40 sh -c
}

# becomes COMMAND...: tries it until it comes true, for half a minute at most.
becomes() {
  tries=0
  until "$@"; do
    tries=$((tries + 1))
    if [ $tries = 300 ]; then bad "never came true: $*"; return; fi
    sleep 0.1
  done
}

# driving FILE: begins to drive the camera, and returns when it does. What the last driver said there is no sign of it.
driving() {
  rm -f "$1"
  circbuf run --device "vfio:$camera" --seconds 60 > "$1" 2>&1 &
  driver=$!
  becomes grep -qs 'ring of' "$1"
}

has_interrupted() {
  raised=$(awk '/vfio-msix.0/ { print $2 }' /proc/interrupts)
  [ "${raised:-0}" -gt 10 ]
}

# While one process drives the device, interrupts come and nobody else gets it; when that process is killed, the
# kernel takes the device back.
in_use() {
  driving /tmp/first
  becomes has_interrupted
  ok "$raised interrupts by MSI-X"
  refused 'is in use by another process' drive "$camera"
  kill -KILL $driver
  wait $driver
}

# surprised WORDS COMMAND...: what the bus may do to a device while it is driven has to end the driver, with 1 and
# these words.
surprised() {
  words=$1
  shift
  driving /tmp/out
  "$@"
  wait $driver
  told 1 "$words" $?
}

reset_camera() { echo 1 > "/sys/bus/pci/devices/$camera/reset"; }

# set_command BYTE: writes the low byte of the camera's command register.
set_command() {
  printf '%b' "$1" | dd of="/sys/bus/pci/devices/$camera/config" bs=1 seek=4 conv=notrunc 2> /dev/null
}

surprises() {
  surprised 'bus mastering is off' set_command '\0002'
  surprised 'the device is gone' set_command '\0004'
  # Somebody else's reset looks like a device that went away, or like one that has stopped.
  surprised 'the device is gone\|the device has stopped' reset_camera
  reset_camera
  streams after-reset 20 sh -c
}

rebinding() {
  vfio-bind.sh --unbind "$camera" > /tmp/out 2>&1 || bad "vfio-bind.sh --unbind: $(cat /tmp/out)"
  refused '(now: no driver)' drive "$camera"
  vfio-bind.sh --unbind "$beside" > /tmp/out 2>&1
  if grep -q 'driver serial' /tmp/out; then ok "vfio-bind.sh --unbind gives $beside back to its driver"
  else bad "vfio-bind.sh --unbind: $(cat /tmp/out)"
  fi
  vfio-bind.sh "$camera" > /dev/null
  vfio-bind.sh "$beside" > /dev/null
  streams after-rebind 20 sh -c
}

# conforms LANE OF: drives every so manieth camera of the plan. Whether that is as it has to be is judged outside, but
# for a driver that fails.
conforms() {
  awk "NR % $2 == $1" /plan | while read -r name address drive; do
    result=/tmp/results/$name
    { vfio-bind.sh "$address" && $drive --device "vfio:$address" --archive "$result.archive" > "$result.books"; } \
      > "$result.bound" 2> "$result.log" || touch "$result.failed"
  done
}

conformance() {
  ulimit -l 65536
  for lane in 0 1 2 3; do conforms $lane 4 & done
  wait
  ok "drove $(wc -l < /plan) cameras"
}

mkdir -m 777 /tmp/results
case ${checks:-camera} in
  camera)
    before_vfio
    before_binding
    without_rights
    working
    in_use
    surprises
    rebinding
    ;;
  conformance)
    load_vfio
    conformance
    ;;
  no-iommu)
    load_vfio
    refused 'the IOMMU is off: enable VT-d or AMD-Vi in the firmware' drive "$disk"
    if vfio-bind.sh "$disk" > /tmp/out 2>&1 || ! grep -q 'has no IOMMU group' /tmp/out
    then bad "vfio-bind.sh without IOMMU: $(cat /tmp/out)"
    fi
    ;;
  no-remapping)
    load_vfio
    serial=$(basename /sys/bus/pci/drivers/serial/0000:*)
    vfio-bind.sh "$serial" > /dev/null
    refused 'the IOMMU does not remap interrupts' drive "$serial"
    ;;
  *) bad "no such checks: $checks" ;;
esac
tar -cf /dev/nvme0n1 -C /tmp/results .
exit $((faults > 0))
