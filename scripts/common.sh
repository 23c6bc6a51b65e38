# Sourced by the scripts beside it: the built program, a scratch directory, and how to fail.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cargo build --release --quiet --manifest-path "$root/Cargo.toml" --workspace --bins
PATH="${CARGO_TARGET_DIR:-$root/target}/release:$PATH"
# Debian's own Python is the one that Debian's numpy and PIL belong to.
python=/usr/bin/python3
[ -x "$python" ] || python=python3

# Rings belong on tmpfs where there is one.
scratch=$(mktemp -d)
if [ -w /dev/shm ]; then ring_dir=$(mktemp -d -p /dev/shm); else ring_dir=$(mktemp -d); fi
children=()
clean_up() {
  for child in "${children[@]}"; do
    # One that has ended already, or was killed, must not end the cleaning up.
    kill -KILL "$child" 2>/dev/null && wait "$child" 2>/dev/null || true
  done
  rm -rf "$scratch" "$ring_dir"
}
trap clean_up EXIT

# usage: the comment at the head of the script.
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2; exit 2; }

# count VALUE: the value, if it is a number above 0.
count() { if [[ ${1:-} =~ ^[1-9][0-9]*$ ]]; then echo "$1"; else usage; fi; }

fail() { printf '%s: FAILED: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }
ok() { printf '%s: ok: %s\n' "$(basename "$0")" "$*"; }

# json FILE EXPRESSION: evaluates a Python expression on the object o in the file.
json() {
  "$python" -c 'import json,sys; o=json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$1" "$2"
}

# expect FILE EXPRESSION: fails unless it is true.
expect() { [ "$(json "$1" "$2")" = True ] || fail "$2 does not hold in $(cat "$1")"; }

# wait_until COMMAND...: tries it again and again, for a minute at most.
wait_until() {
  local tries
  for tries in $(seq 600); do
    if "$@"; then return 0; fi
    sleep 0.1
  done
  fail "never came true in $tries tries: $*"
}
