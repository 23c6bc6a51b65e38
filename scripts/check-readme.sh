#!/usr/bin/env bash
# Runs every command of README.md as it stands there, but for the two that CI runs by themselves
# (demo and tests). The installation goes into a scratch directory.
source "$(dirname "$0")/common.sh"
cd "$scratch"
awk '/^```sh$/ { inside = 1; next } /^```$/ { inside = 0 } inside' "$root/README.md" |
  grep -v '^cargo ' | sed 's/ *#.*//' > commands.sh
grep -q '^cargo install --path tools ' "$root/README.md" || fail "the installation has changed"
cargo install --quiet --locked --path "$root/tools" --root "$scratch/installed"
PATH="$scratch/installed/bin:$PATH"
commands=$(grep -c '^[a-z]' commands.sh)
[ "$commands" -ge 10 ] || fail "only $commands commands found in README.md"
sed -i "s|/dev/shm/ring|$ring_dir/ring|g" commands.sh
cat commands.sh
# pipefail: a command that fails in the middle of a pipe counts as well.
bash -e -o pipefail commands.sh > out.txt 2> err.txt || fail "$(tail -5 err.txt)"
ok "$commands commands"
