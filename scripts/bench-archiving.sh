#!/usr/bin/env bash
# What archiving costs the capture: frames a second with an archive of every Nth frame, and without one, of
# an emulated camera at full speed that waits for its driver. The two take turns. Prints a line per pair.
#   bench-archiving.sh [--rounds N] [--frames N] [--nth N] [--dir D]
# Default 9, 400000, 100, the target directory; everything is removed at the end.
source "$(dirname "$0")/common.sh"
rounds=9 frames=400000 nth=100 dir=${CARGO_TARGET_DIR:-$root/target}
while [ $# -gt 0 ]; do
  case $1 in
    --rounds) rounds=$(count "${2:-}") ;;
    --frames) frames=$(count "${2:-}") ;;
    --nth) nth=$(count "${2:-}") ;;
    --dir) dir=${2:-} ;;
    *) usage ;;
  esac
  shift 2 || usage
done
archive=$(mktemp -d -p "$dir" bench-archiving.XXXXXX)
trap 'rm -rf "$archive"; clean_up' EXIT

# rate OPTIONS...: frames a second of one run.
rate() {
  circbuf run --source noise:230400 --unpaced --lossless --inline --proc none --frames "$frames" --json "$@" \
    > "$scratch/run.json" 2> "$scratch/run.log" || fail "$(cat "$scratch/run.log")"
  expect "$scratch/run.json" 'o["closes"] and not sum(o["consumers"]["arch"]["lost"].values())'
  json "$scratch/run.json" 'o["ring"]["passed"] / o["elapsed_s"]'
}

rate > /dev/null
for _ in $(seq "$rounds"); do
  without=$(rate)
  with=$(rate --archive "$archive/A" --arch-policy "nth=$nth")
  rm -rf "$archive/A"
  echo "$with $without"
done | "$python" -c '
import sys
pairs = [tuple(map(float, line.split())) for line in sys.stdin]
for pair in pairs: print("archiving %.0f frames/s, not %.0f: %.2f" % (*pair, pair[0] / pair[1]))
ratios = sorted(a / b for a, b in pairs)
print("median %.2f (%.2f to %.2f)" % (ratios[len(ratios) // 2], ratios[0], ratios[-1]))'
