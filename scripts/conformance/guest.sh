# shellcheck shell=bash
# shellcheck disable=SC2154,SC2086,SC1091  # names from common.sh and devices.sh; options are several words
# Sourced by conformance.sh: its scenarios by a real kernel's VFIO. One guest, booted once, has a camera for each of
# them, and drives some at a time, by a plan that it finds in its root: the scenario, the camera's address, the driver's
# command.
source "$(dirname "${BASH_SOURCE[0]}")/../guest/boot.sh"

# Of the guest's bus: the first that is behind those which QEMU fills by itself.
readonly first_slot=4

# What the guest's memory has room for. A guest stands still for seconds on a loaded machine: unless frames have to be
# lost, the camera waits rather than lap its driver.
readonly driven_in_guest=("${drive[@]}" --slab-bytes 8MiB --wait sleep)

# of_vfio COMMAND...: for each scenario that it is played through, with its name, mode and options.
of_vfio() {
  local name mode options
  while IFS='|' read -r name mode options; do
    ! is_played vfio "$mode" || "$@" "$name" "$mode" $options
  done < <(scenarios)
}

# plug SCENARIO MODE OPTIONS...: a camera into the guest's next slot, and what is to be done with it into the plan.
plug() {
  local name=$1 mode=$2 slot=$((first_slot + ${#plugged[@]})) socket served driver=("${driven_in_guest[@]}")
  shift 2
  [ "$mode" = timed ] || driver+=(--lossless)
  serve "$scratch/$name.vfio" "$@"
  children+=("$served")
  plugged+=("$served")
  cameras+=(-device "$(camera_at "$slot" "$socket")")
  printf '%s 0000:00:%02x.0 %s\n' "$name" "$slot" "${driver[*]}" >> "$scratch/plan"
}

# unplug SCENARIO MODE: what the guest made of it goes where other devices have it, and is judged.
unplug() {
  local name=$1 result
  for result in "$scratch/results/$name".*; do
    mv "$result" "$scratch/$name.vfio.${result##*.}"
  done
  judged "$name" "$2" vfio
}

# begin_vfio: boots the guest.
begin_vfio() {
  local cameras=()
  plugged=()
  of_vfio plug
  prepare_guest "$scratch/plan"
  start_guest conformance -device intel-iommu,caching-mode=on "${cameras[@]}"
}

# end_vfio: waits for the guest. Its cameras end with it, but for those that nobody drove to their end.
end_vfio() {
  local camera
  end_guest
  for camera in "${plugged[@]}"; do
    kill -INT "$camera" 2> /dev/null || :
    wait "$camera" || fail "a camera of the guest ended badly: $(cat "$scratch"/*.vfio.camera)"
  done
  children=()
  unpack_results
  of_vfio unplug
}
