#!/usr/bin/env bash
# scripts/adversary.sh [SECONDS]: camera and driver at full speed against each other, as two
# processes that are stopped at random (60 s if not told otherwise), then as two threads for a
# quarter of that. Every delivered frame proves its content; fails if one does not.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
run() {
  echo "adversary: $1, $2 s"
  ADVERSARY_SECONDS=$2 cargo test --quiet -p circbuf-tests --test sim -- \
    --exact "adversary::processes::$1" --nocapture 2> "$log" | grep -v '^seed\|^Kind' ||
    { cat "$log" >&2; exit 1; }
}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
run two_processes "$seconds"
run two_threads $(((seconds + 3) / 4))
