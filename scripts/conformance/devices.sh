# shellcheck shell=bash
# shellcheck disable=SC2154,SC2086,SC1091  # names from common.sh; options are several words
# Sourced by the scripts that hold devices against each other, behind common.sh: how each device is driven through a
# scenario, and how what came of it is judged. Everything of a run stands in files PREFIX.ledger, .archive, .books...
source "$(dirname "${BASH_SOURCE[0]}")/scenarios"

readonly drive=(circbuf run --arch-policy every --arch-queue 1000 --durability none --json)

# ring_run PREFIX OPTIONS...: a ring file. Its driver waits until there is one, and misses no frame.
ring_run() {
  local prefix=$1 ring driver
  ring=$ring_dir/$(basename "$prefix")
  shift
  "${drive[@]}" --device "$ring" --timeout 30 --archive "$prefix.archive" > "$prefix.books" 2> "$prefix.log" &
  driver=$!
  wait_until grep -q 'no such ring yet' "$prefix.log"
  circbuf emulate --ring "$ring" $camera_options "$@" --ledger "$prefix.ledger" 2> "$prefix.camera" < /dev/null
  wait "$driver"
  rm -f "$ring" "$ring.regs"
}

run_file() { ring_run "$@"; }
run_bare() { ring_run "$@" --bare; }

# A node cannot say that its camera has ended: the driver ends with 1, because no frame comes any more.
run_node() {
  local prefix=$1 ended=0
  shift
  circbuf exec $camera_options "$@" --ledger "$prefix.ledger" --delay 2 -- \
    "${drive[@]}" --device /dev/circbuf0 $node_options --timeout 3 --archive "$prefix.archive" \
    > "$prefix.books" 2> "$prefix.log" < /dev/null || ended=$?
  [ "$ended" = 1 ] && [ "$(json "$prefix.books" 'o["ended_by"]')" = silence ]
}

# serve PREFIX OPTIONS...: the camera as a PCI function, which begins when a driver starts it. Leaves its process in
# $served, and its socket beside rings, whose names are short.
serve() {
  local prefix=$1
  socket=$ring_dir/$(basename "$prefix").socket
  shift
  circbuf emulate --socket "$socket" $camera_options "$@" --ledger "$prefix.ledger" \
    2> "$prefix.camera" < /dev/null &
  served=$!
  wait_until test -S "$socket"
}

run_vfio-user() {
  local prefix=$1 socket served
  serve "$@"
  "${drive[@]}" --device "vfio-user:$socket" --archive "$prefix.archive" > "$prefix.books" 2> "$prefix.log"
  wait "$served"
}

# reference DEVICE: what it is held against: a ring file, without headers where the device has none.
reference() { case $1 in vfio* | bare) echo bare ;; *) echo file ;; esac; }

# is_played DEVICE MODE: whether the device can have these faults.
is_played() { [ "$2" != stamped ] || [ "$(reference "$1")" = file ]; }

# judge MODE PREFIX [PREFIX OF THE REFERENCE]: says what came of a run, and fails if it is not as it has to be.
judge() {
  local prefix=$2
  circbuf archive verify "$prefix.archive" > "$prefix.said" || { cat "$prefix.said"; return 1; }
  circbuf verify --ledger "$prefix.ledger" --archive "$prefix.archive" --books "$prefix.books" --json \
    > "$prefix.verdict" 2> "$prefix.said" || { cat "$prefix.said" "$prefix.log"; return 1; }
  circbuf archive ls --json "$prefix.archive" > "$prefix.frames"
  "$python" "$(dirname "${BASH_SOURCE[0]}")/compare.py" "$@"
}
