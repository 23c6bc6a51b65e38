#!/usr/bin/env bash
# The driver against a real kernel's VFIO, on any machine: boots a virtual machine whose IOMMU is switched on and
# whose PCI bus has our emulated camera, and runs `circbuf run --device vfio:...` in there. Frames that the
# guest archived are held against the camera's ledger out here, and every mistake of a set-up is made in there
# once (guest/checks.sh); and the scenarios of conformance.sh are driven through it (guest/conformance.sh).
#   vfio-guest.sh [--repeat N]
# Neither root nor KVM is needed. QEMU (10.1 or newer) and a Debian kernel are fetched once, into
# CIRCBUF_GUEST_DIR (default: ~/.cache/circbuf-guest), unless this machine has such a QEMU. With
# CIRCBUF_NO_GUEST=1 nothing is done. A guest that hangs is ended after CIRCBUF_GUEST_SECONDS (default: 180).
# shellcheck disable=SC2154,SC1091  # names from what is sourced
set -euo pipefail
if [ "${CIRCBUF_NO_GUEST:-}" = 1 ]; then
  echo "vfio-guest.sh: CIRCBUF_NO_GUEST=1: VFIO was not tried against a real kernel"
  exit 0
fi
export -n CIRCBUF_GUEST_DIR CIRCBUF_GUEST_SECONDS CIRCBUF_NO_GUEST # circbuf knows no such options
repeat=1
while [ $# -gt 0 ]; do
  case $1 in
    --repeat) repeat=${2:?--repeat takes a number}; shift 2 ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
done
here=$(dirname "${BASH_SOURCE[0]}")
source "$here/common.sh"
source "$here/guest/fetch.sh"
source "$here/guest/image.sh"
source "$here/guest/conformance.sh"
[ "$(uname -m)" = x86_64 ] || fail "needs an x86-64 machine, whose programs the guest can run"
need awk find flock gzip ldd strip tar timeout

cache=${CIRCBUF_GUEST_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/circbuf-guest}
mkdir -p "$cache"
exec 9> "$cache/lock"
flock 9
choose_qemu
choose_kernel
exec 9>&-
kernel=$(find "$kernel_root" -name 'vmlinuz*' -print -quit)

# Frames that the camera damages: the first of the guest's archives has to be without them.
readonly faults=unescaped@10,no-trailer@17,bad-trailer@23,aborted@31

# start_camera: serves the emulated camera at $scratch/socket, and keeps the truth in $scratch/ledger.
start_camera() {
  rm -f "$scratch/socket" "$scratch/ledger"
  circbuf emulate --socket "$scratch/socket" --ledger "$scratch/ledger" --ring-bytes 8MiB \
    --source synthetic:16 --fps 60 --fault "$faults" > "$scratch/camera.log" 2>&1 &
  camera=$!
  children+=("$camera")
  wait_until test -S "$scratch/socket"
}

stop_camera() {
  kill -INT "$camera"
  wait "$camera" || fail "the emulated camera ended badly: $(cat "$scratch/camera.log")"
  children=()
}

# boot CHECKS DEVICE...: runs the guest and its checks of that name to the end, and fails unless it says that all
# is well. It has a disk, on which what it archived comes out as a tar.
boot() {
  local checks=$1 limit=${CIRCBUF_GUEST_SECONDS:-180} ended=0
  shift
  rm -f "$scratch/disk"
  truncate -s 256M "$scratch/disk"
  timeout --foreground --kill-after=5 "$limit" "${qemu[@]}" \
    -machine q35,memory-backend=memory -accel tcg -cpu max -m 512 -nographic -no-reboot -nodefaults \
    -object memory-backend-memfd,id=memory,size=512M,share=on \
    -serial "file:$scratch/console" -kernel "$kernel" -initrd "$scratch/image" \
    -append "console=ttyS0 quiet intel_iommu=on no_timer_check panic=-1 checks=$checks" \
    -drive "if=none,id=disk,format=raw,file=$scratch/disk" -device nvme,serial=results,drive=disk \
    "$@" > "$scratch/qemu.log" 2>&1 || ended=$?
  sed -n '/^guest: /p' "$scratch/console" | tr -d '\r'
  if grep -q '^guest: verdict 0 ' "$scratch/console"; then return; fi
  tail -n 40 "$scratch/console" "$scratch/qemu.log" "$scratch/camera.log" >&2
  case $ended in
    0) fail "the guest found faults" ;;
    124 | 137) fail "the guest hung, and was ended after $limit s" ;;
    *) fail "QEMU ended with $ended" ;;
  esac
}

# compare: holds what the guest archived against the truth.
compare() {
  local archive name said=$scratch/verify
  mkdir "$scratch/results"
  tar -xf "$scratch/disk" -C "$scratch/results"
  for archive in "$scratch"/results/*/; do
    name=$(basename "$archive")
    circbuf archive verify "$archive" > "$said" || fail "archive $name: $(cat "$said")"
    circbuf verify --ledger "$scratch/ledger" --archive "$archive" --books "${archive%/}.books" > "$said" \
      || fail "archive $name: $(cat "$said")"
    echo "host: ok: archive $name: $(sed -n '1s/.*in the archive //p;s/^  damaged/damaged/p' "$said" | paste -sd ' ')"
    [ "$name" != user ] || grep -q 'damaged 4, found 4, accepted 0' "$said" \
      || fail "the driver in the guest did not meet the faults: $(cat "$said")"
  done
  rm -r "$scratch/results"
}

# one_run: the camera behind an IOMMU, with a function of another driver beside it, which shares its group
# because both are one device of the bus.
one_run() {
  local socket="\"socket\":{\"type\":\"unix\",\"path\":\"$scratch/socket\"}"
  start_camera
  boot camera -device intel-iommu,caching-mode=on \
    -device "{\"driver\":\"vfio-user-pci\",\"addr\":\"5.0\",\"multifunction\":true,$socket}" \
    -device pci-serial,addr=5.1
  stop_camera
  compare
}

: > "$scratch/camera.log"
make_image "$scratch/image" "$(command -v circbuf)"
boot no-iommu
boot no-remapping -device intel-iommu,intremap=off -device pci-serial
conformance
for run in $(seq "$repeat"); do
  started=$SECONDS
  one_run
  ok "run $run of $repeat, $((SECONDS - started)) s"
done
