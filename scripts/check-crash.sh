#!/usr/bin/env bash
# kill -9 in the middle of archiving, many times: recovery keeps every record that the index named.
#   check-crash.sh [ROUNDS]   default 20
source "$(dirname "$0")/common.sh"
cd "$scratch"
rounds=${1:-20}
RANDOM=1

# named ARCHIVE: the sequence numbers that whole index entries name.
named() {
  "$python" - "$1" <<'P'
import pathlib, sys
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.idx")):
    data = path.read_bytes()
    for at in range(0, len(data) // 64 * 64, 64):
        if data[at + 52] == 1:
            print(int.from_bytes(data[at : at + 8], "little"))
P
}
total_named=0 total_cut=0 counted=0
for round in $(seq "$rounds"); do
  rm -rf A
  durability=$(printf 'none\ninterval=50\nframe\n' | sed -n "$((round % 3 + 1))p")
  engine=$(printf 'auto\npwrite\n' | sed -n "$((round % 2 + 1))p")
  circbuf run --source noise:10000-300000 --fps 500 --bus-mb-s unlimited --archive A --arch-policy every \
    --durability "$durability" --engine "$engine" --segment-bytes 64MiB > run.log 2>&1 &
  pid=$!
  children+=($pid)
  sleep "0.$((RANDOM % 9 + 1))"
  kill -KILL $pid
  wait $pid 2> /dev/null || :
  [ -d A ] || continue
  if ! ls A/*.cbs > /dev/null 2>&1; then continue; fi
  named A > named.txt
  circbuf archive recover A --json > recover.json || fail "recover: $(cat recover.json)"
  circbuf archive verify A > verify.txt || fail "verify: $(cat verify.txt)"
  circbuf archive ls A --json > ls.json
  "$python" - <<'P' || fail "round $round ($durability, $engine): a record that the index named is gone"
import json
kept = {frame["sequence"] for frame in json.load(open("ls.json"))["frames"]}
assert kept >= {int(line) for line in open("named.txt")}
P
  counted=$((counted + 1))
  total_named=$((total_named + $(wc -l < named.txt)))
  total_cut=$((total_cut + $(json recover.json 'o["bytes_cut"]')))
done
[ $((counted * 2)) -ge "$rounds" ] || fail "only $counted of $rounds kills left an archive to be looked at"
[ "$total_named" -gt 0 ] || fail "no index named a record, so nothing was proven"
ok "$counted of $rounds kills: $total_named records that an index named are all kept, $total_cut bytes cut, every archive verifies"
