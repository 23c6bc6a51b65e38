#!/usr/bin/env bash
# One suite for all kinds of devices: each is driven through the same scenarios (conformance/scenarios), judged by the
# camera's ledger, and held against a ring file: same frames, same books, same verdicts. What may differ, and why,
# stands in conformance/compare.py. `vfio` is driven in a guest, by a real kernel's VFIO, and judged out here; with
# CIRCBUF_NO_GUEST=1 it is left out. What the guest needs is fetched once (guest/boot.sh). Ends with a table of frames
# delivered. A minute, two on a loaded machine, where what is compared is the same.
#   conformance.sh [file] [node] [vfio-user] [vfio]     default: all of them
# shellcheck disable=SC2154,SC2086,SC1091  # names from what is sourced; options are several words
here=$(dirname "${BASH_SOURCE[0]}")
[ $# -gt 0 ] || set -- file node vfio-user vfio
devices=()
for device in "$@"; do
  case $device in
    vfio) if [ "${CIRCBUF_NO_GUEST:-}" = 1 ]; then echo "CIRCBUF_NO_GUEST=1: vfio is left out"; continue; fi ;;
    file | node | vfio-user) ;;
    *) sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
  devices+=("$device")
done
[ ${#devices[@]} -gt 0 ] || exit 0
source "$here/common.sh"
source "$here/conformance/devices.sh"
source "$here/conformance/guest.sh"

# Whatever is held against something needs that as well. `bare` and `file` come first, so that they can be.
mapfile -t columns < <(for device in "${devices[@]}"; do printf '%s\n' "$(reference "$device")" "$device"; done | sort -u)
mapfile -t out_here < <(printf '%s\n' "${columns[@]}" | sed '/^vfio$/d')

# How many scenarios are played at a time: most of each is waiting.
readonly lanes=4

# play SCENARIO MODE OPTIONS...: on all devices at once, and judges them when all have ended, which costs CPU.
play() {
  local name=$1 mode=$2 device runs=()
  shift 2
  for device in "${out_here[@]}"; do
    is_played "$device" "$mode" || continue
    "run_$device" "$scratch/$name.$device" "$@" &
    runs+=("$device $!")
    echo "$!" >> "$scratch/groups"
  done
  for run in "${runs[@]}"; do
    wait "${run#* }" || touch "$scratch/$name.${run% *}.failed"
  done
  for run in "${runs[@]}"; do
    judged "$name" "$mode" "${run% *}"
  done
}

# judged SCENARIO MODE DEVICE: leaves a cell of the table.
judged() {
  local name=$1 mode=$2 device=$3 prefix=$scratch/$1.$3 against said cell=FAILED
  against=$scratch/$name.$(reference "$device")
  [ "$against" != "$prefix" ] || against=
  if [ -e "$prefix.failed" ]; then
    said=$(cat "$prefix.log" "$prefix.camera" 2> /dev/null || :)
  elif said=$(judge "$mode" "$prefix" ${against:+"$against"}); then
    cell=$(sed -E 's/^([0-9]+) emitted, ([0-9]+).*/\2 of \1/' <<< "$said")
  fi
  echo "$cell" > "$prefix.cell"
  [ "$cell" != FAILED ] || said="FAILED: $said"
  printf '%-12s %-10s %s\n' "$name" "$device" "$said"
}

# lane NUMBER: plays every so manieth scenario.
lane() {
  local turn=0 name mode options
  set -m # so that a run and all that it started can be ended by one signal
  while IFS='|' read -r name mode options; do
    turn=$((turn + 1))
    [ $((turn % lanes)) != "$1" ] || play "$name" "$mode" $options
  done < <(scenarios)
}

# table: how many frames were delivered, of how many: scenarios down, devices across.
table() {
  local name mode device cell
  printf '\n%-12s' scenario
  printf ' %-10s' "${columns[@]}"
  while IFS='|' read -r name mode _; do
    printf '\n%-12s' "$name"
    for device in "${columns[@]}"; do
      cell=-
      ! is_played "$device" "$mode" || cell=$(cat "$scratch/$name.$device.cell")
      printf ' %-10s' "$cell"
    done
  done < <(scenarios)
  printf '\n\n'
}

# What runs in the lanes is ended with them.
end_runs() {
  local run
  [ ${#played[@]} = 0 ] || kill -KILL "${played[@]}" 2> /dev/null || :
  while read -r run; do
    kill -KILL -- "-$run" 2> /dev/null || :
  done < "$scratch/groups"
}
played=()
: > "$scratch/groups"
trap 'end_runs; clean_up' EXIT

guest=
[ ${#out_here[@]} = ${#columns[@]} ] || begin_vfio
for number in $(seq 0 $((lanes - 1))); do
  lane "$number" &
  children+=("$!")
  played+=("$!")
done
for lane in "${played[@]}"; do wait "$lane" || fail "scenarios were not played to their end"; done
[ -z "$guest" ] || end_vfio
table
failed=$(cat "$scratch"/*.cell | grep -c FAILED || :)
if [ "$failed" != 0 ]; then
  rm -f "$scratch"/{disk,image}
  mv "$scratch" "$scratch.failed"
  fail "$failed of the above are not as they have to be; ledgers, archives and books stay in $scratch.failed"
fi
ok "$(scenarios | wc -l) scenarios are the same on: ${devices[*]}"
