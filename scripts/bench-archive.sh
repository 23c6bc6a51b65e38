#!/usr/bin/env bash
# How fast the archive is written to a disk, against fio in the same run: records past the page cache,
# by io_uring with registered buffers and a registered file, into space that is reserved. Both write
# blocks of the same size from the same kind of pages. Prints rows of a Markdown table, and where strace is
# there the system calls in which one more run of the archive has spent its time.
#   bench-archive.sh [--mib N] [--rounds N] [--payload BYTES] [--depth N] [--dir D]
# Default 4096, 5, 230400 (a record of 233,472 bytes), 8, the target directory. Takes N MiB on the disk of
# D; everything is removed at the end.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
mib=4096 rounds=5 payload=230400 depth=8 dir=${CARGO_TARGET_DIR:-$root/target}
while [ $# -gt 0 ]; do
  case $1 in
    --mib) mib=$2 ;;
    --rounds) rounds=$2 ;;
    --payload) payload=$2 ;;
    --depth) depth=$2 ;;
    --dir) dir=$2 ;;
    *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
  shift 2
done
# Record header, frame header, payload, zeros and trailer, up to a multiple of 4096.
block=$(((96 + 32 + (payload + 15) / 32 * 32 + 32 + 4095) / 4096 * 4096))
if ! command -v fio > /dev/null; then
  echo "bench-archive.sh needs fio: apt install fio, dnf install fio or brew install fio" >&2
  exit 2
fi
python=/usr/bin/python3
[ -x "$python" ] || python=python3

bench=$(cargo bench --quiet --manifest-path "$root/Cargo.toml" -p circbuf-driver --bench archive --no-run \
  --message-format json | "$python" -c '
import json, sys
built = [json.loads(line).get("executable") for line in sys.stdin]
print([path for path in built if path][-1])')
mkdir -p "$dir"
scratch=$(mktemp -d -p "$dir" bench-archive.XXXXXX)
trap 'rm -rf "$scratch"' EXIT

ours() { "$bench" --dir "$scratch/archive" --mib "$mib" --payload "$payload" --depth "$depth" --pages "$1"; }

# fio takes huge pages from a pool that has to be set aside beforehand, and the archive takes them from the
# system; by the tunables of glibc (2.35 and newer) fio does the same.
fio_once() {
  local tunables= options=()
  if [ "$1" = huge ]; then
    tunables=glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1073741824:glibc.malloc.top_pad=8388608
    options=(--iomem_align=2097152)
  fi
  GLIBC_TUNABLES=$tunables fio --name=archive --filename="$scratch/fio" --rw=write --bs="$block" --size="${mib}m" \
    --ioengine=io_uring --iodepth="$depth" --direct=1 --fixedbufs --registerfiles --fallocate=posix \
    --end_fsync=1 --unlink=1 --output-format=json "${options[@]}" > "$scratch/fio.json"
  "$python" - "$scratch/fio.json" "$1" <<'PYTHON'
import json, sys
job = json.load(open(sys.argv[1]))["jobs"][0]
seconds = job["write"]["runtime"] / 1000
user, system = (job[key] * seconds / 100 for key in ("usr_cpu", "sys_cpu"))
print(json.dumps({"bytes": job["write"]["io_bytes"], "seconds": seconds, "user": user, "system": system,
                  "engine": "fio", "pages": sys.argv[2]}))
PYTHON
}

# The most that fio has in huge pages while it runs, in KiB.
watch_fio() {
  local task kib most=0
  fio_once huge > /dev/null &
  while kill -0 $! 2> /dev/null; do
    for task in $(pgrep -f "filename=$scratch/fio" || true); do
      kib=$(awk '/^AnonHugePages/ { print $2 }' "/proc/$task/smaps_rollup" 2> /dev/null || true)
      [ "${kib:-0}" -le "$most" ] || most=$kib
    done
    sleep 0.02
  done
  wait $!
  echo "$most"
}

kinds=(small)
huge_kib=$(watch_fio)
if [ "$huge_kib" -gt 0 ]; then
  kinds+=(huge)
else
  echo "fio gets no huge pages here: only small ones are compared" >&2
fi
for round in $(seq "$rounds"); do
  for kind in "${kinds[@]}"; do
    # Who is first takes turns: a disk may be faster after a rest.
    if [ $((round % 2)) = 1 ]; then
      ours "$kind"; fio_once "$kind"
    else
      fio_once "$kind"; ours "$kind"
    fi
  done
done | tee "$scratch/rounds" >&2

"$python" - "$scratch/rounds" "$depth" "$block" <<'PYTHON'
import json, statistics, sys
runs = [json.loads(line) for line in open(sys.argv[1])]
print("| archive to disk | GB/s | fio GB/s | ratio (median, least to most) | of the time, sealing | CPU s/GB | fio CPU s/GB |")
print("| --- | --- | --- | --- | --- | --- | --- |")
for kind in dict.fromkeys(run["pages"] for run in runs):
    fio = [run for run in runs if run["pages"] == kind and run["engine"] == "fio"]
    own = [run for run in runs if run["pages"] == kind and run["engine"] != "fio"]
    speed = lambda run: run["bytes"] / run["seconds"] / 1e9
    cost = lambda run: (run["user"] + run["system"]) / run["bytes"] * 1e9
    ratios = [speed(a) / speed(b) for a, b in zip(own, fio)]
    middle = lambda of, what: statistics.median(map(what, of))
    how = own[0]["engine"] + (", direct" if own[0]["direct"] else ", buffered")
    print(f"| blocks of {int(sys.argv[3]):,} bytes, depth {sys.argv[2]}, {kind} pages, {how}, {len(ratios)} rounds "
          f"| {middle(own, speed):.2f} | {middle(fio, speed):.2f} "
          f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) "
          f"| {100 * middle(own, lambda run: run['sealing'] / run['seconds']):.1f} % "
          f"| {middle(own, cost):.3f} | {middle(fio, cost):.3f} |")
PYTHON

if command -v strace > /dev/null; then
  echo
  strace -f -c -w -o "$scratch/calls" "$bench" --dir "$scratch/archive" --mib "$mib" --payload "$payload" \
    --depth "$depth" --pages small > /dev/null
  sed -n 1,7p "$scratch/calls"
fi
