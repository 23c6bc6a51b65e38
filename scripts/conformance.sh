#!/usr/bin/env bash
# One suite for all kinds of devices: each is driven through the same scenarios (conformance/scenarios), judged by the
# camera's ledger, and held against a ring file: same frames, same books, same verdicts. What may differ, and why,
# stands in conformance/compare.py. `vfio:` goes through the same in vfio-guest.sh. About two minutes.
#   conformance.sh [file] [node] [vfio-user]           default: all three
# shellcheck disable=SC2154,SC2086,SC1091  # names from common.sh; options are several words
here=$(dirname "${BASH_SOURCE[0]}")
for device in "$@"; do
  case $device in
    file | node | vfio-user) ;;
    *) sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
done
source "$here/common.sh"
source "$here/conformance/devices.sh"
[ $# -gt 0 ] || set -- file node vfio-user

# Whatever is held against something needs that as well.
devices=$(for device in "$@"; do printf '%s\n' "$(reference "$device")" "$device"; done | sort -u)
failed=0

# begin SCENARIO MODE OPTIONS...: on all devices at once.
begin() {
  local name=$1 mode=$2 device
  shift 2
  for device in $devices; do
    is_played "$device" "$mode" || continue
    "run_$device" "$scratch/$name.$device" "$@" &
    children+=($!)
    begun+=("$name $mode $device $!")
  done
}

# finish: waits for all that were begun, and only then judges, which costs CPU.
finish() {
  local run name mode device pid prefix
  for run in "${begun[@]}"; do
    read -r name mode device pid <<< "$run"
    prefix=$scratch/$name.$device
    wait "$pid" || fail "$name on $device: $(cat "$prefix.log" "$prefix.camera" 2> /dev/null)"
  done
  for run in "${begun[@]}"; do
    read -r name mode device pid <<< "$run"
    judged "$name" "$mode" "$device"
  done
  begun=() children=()
}

# judged SCENARIO MODE DEVICE: `bare` and `file` come first in $devices, so that they can be held against.
judged() {
  local prefix=$scratch/$1.$3 against said
  against=$scratch/$1.$(reference "$3")
  [ "$against" != "$prefix" ] || against=
  if said=$(judge "$2" "$prefix" ${against:+"$against"}); then
    printf '%-12s %-10s %s\n' "$1" "$3" "$said"
  else
    printf '%-12s %-10s FAILED: %s\n' "$1" "$3" "$said"
    failed=$((failed + 1))
  fi
}

begun=()
while IFS='|' read -r name mode options; do
  begin "$name" "$mode" $options
  # Two scenarios at a time, most of which is waiting.
  [ "$(printf '%s\n' "${begun[@]%% *}" | sort -u | wc -l)" -lt 2 ] || finish
done < <(scenarios)
[ ${#begun[@]} = 0 ] || finish
[ $failed = 0 ] || fail "$failed of the above are not as they have to be"
ok "$(scenarios | wc -l) scenarios are the same on: $*"
