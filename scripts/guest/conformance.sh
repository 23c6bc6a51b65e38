# shellcheck shell=bash
# shellcheck disable=SC2154,SC2086,SC1091  # names from the script that sources it; options are several words
# Sourced by vfio-guest.sh: the scenarios of conformance.sh through a real kernel's VFIO. Each has a camera of its own
# in the guest, in the order of the list, and is held against a ring file out here.
source "$(dirname "${BASH_SOURCE[0]}")/../conformance/devices.sh"

# The first of the cameras' slots on the guest's bus.
readonly first_slot=4

# references: what the cameras are held against, two at a time: a loaded machine has to follow.
references() {
  local name mode options
  while IFS='|' read -r name mode options; do
    is_played vfio "$mode" || continue
    run_bare "$scratch/$name.bare" $options &
    [ "$(jobs -pr | wc -l)" -lt 2 ] || wait -n
  done < <(scenarios)
  wait
}

# conformance: boots a guest with all the cameras, and judges what it made of them.
conformance() {
  local name mode options socket served slot=$first_slot cameras=() names=() compared place failed=0 said prefix
  while IFS='|' read -r name mode options; do
    is_played vfio "$mode" || continue
    serve "$scratch/$name.vfio" $options
    children+=("$served")
    socket="\"socket\":{\"type\":\"unix\",\"path\":\"$socket\"}"
    cameras+=(-device "{\"driver\":\"vfio-user-pci\",\"addr\":\"$(printf %x "$slot").0\",$socket}")
    names+=("$name $mode")
    slot=$((slot + 1))
  done < <(scenarios)
  references > "$scratch/references.log" 2>&1 &
  compared=$!
  boot conformance -device intel-iommu,caching-mode=on "${cameras[@]}"
  wait "$compared" || fail "$(cat "$scratch/references.log")"
  mkdir "$scratch/results"
  tar -xf "$scratch/disk" -C "$scratch/results"
  for place in "${!names[@]}"; do
    read -r name mode <<< "${names[place]}"
    prefix=$scratch/$name.vfio
    mv "$scratch/results/$place" "$prefix.archive"
    mv "$scratch/results/$place.books" "$prefix.books"
    mv "$scratch/results/$place.log" "$prefix.log"
    if said=$(judge "$mode" "$scratch/$name.bare" && judge "$mode" "$prefix" "$scratch/$name.bare"); then
      printf 'host: ok: %-12s %s\n' "$name" "$(tail -n 1 <<< "$said")"
    else
      printf 'host: FAULT: %s: %s\n' "$name" "$said"
      failed=$((failed + 1))
    fi
  done
  rm -r "$scratch/results"
  [ $failed = 0 ] || fail "$failed scenarios are not the same behind VFIO as on a ring file"
  ok "${#names[@]} scenarios are the same behind VFIO as on a ring file"
}
