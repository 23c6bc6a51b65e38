#!/usr/bin/env bash
# The driver against a real kernel's VFIO, on any machine: boots a virtual machine whose IOMMU is switched on and
# whose PCI bus has our emulated camera, and runs `circbuf run --device vfio:...` in there. Frames that the
# guest archived are held against the camera's ledger out here, and every mistake of a set-up is made in there
# once (guest/checks.sh).
#   vfio-guest.sh [--repeat N]
# What it needs is fetched once: guest/boot.sh tells where to and how. With CIRCBUF_NO_GUEST=1 nothing is done.
# conformance.sh boots such a guest for its scenarios.
# shellcheck disable=SC2154,SC1091  # names from what is sourced
set -euo pipefail
if [ "${CIRCBUF_NO_GUEST:-}" = 1 ]; then
  echo "vfio-guest.sh: CIRCBUF_NO_GUEST=1: VFIO was not tried against a real kernel"
  exit 0
fi
repeat=1
while [ $# -gt 0 ]; do
  case $1 in
    --repeat) repeat=${2:?--repeat takes a number}; shift 2 ;;
    *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
done
here=$(dirname "${BASH_SOURCE[0]}")
source "$here/common.sh"
source "$here/guest/boot.sh"

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

boot() {
  start_guest "$@"
  end_guest "$scratch/camera.log"
}

# compare: holds what the guest archived against the truth.
compare() {
  local archive name said=$scratch/verify
  unpack_results
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
  start_camera
  boot camera -device intel-iommu,caching-mode=on -device "$(camera_at 5 "$scratch/socket")" -device pci-serial,addr=5.1
  stop_camera
  compare
}

: > "$scratch/camera.log"
prepare_guest
boot no-iommu
boot no-remapping -device intel-iommu,intremap=off -device pci-serial
for run in $(seq "$repeat"); do
  started=$SECONDS
  one_run
  ok "run $run of $repeat, $((SECONDS - started)) s"
done
