#!/usr/bin/env bash
# Holds the node of a camera, real or emulated, against what is known of it: every command of lseek in
# every situation, poll, read, stat, JPEG headers. It only reads, and sets the global read pointer.
#   scripts/node-conformance.sh [-m 353|393] [-t SECONDS] /dev/circbuf0 [/dev/jpeghead0]
# Without a camera:
#   circbuf exec --model nc393 -- scripts/node-conformance.sh /dev/circbuf0 /dev/jpeghead0
# Exit code: 0 nothing failed, 1 something did, 2 it cannot run.
set -euo pipefail
if [ $# = 0 ]; then sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; fi
source=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/tests/node/node_conformance.c
if ! command -v "${CC:-cc}" > /dev/null; then
  echo "node-conformance.sh: no C compiler; install one, or set CC to a cross compiler's and copy the program" >&2
  exit 2
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${CC:-cc}" -std=gnu11 -O1 -o "$folder/node_conformance" "$source"
status=0
"$folder/node_conformance" "$@" || status=$?
exit "$status"
