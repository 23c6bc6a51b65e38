#!/usr/bin/env bash
# What the program reaches, as ratios to a reference in the same run, and on which machine. Writes
# BENCHMARKS.md; takes some ten minutes, on a machine that does nothing else.
#   bench.sh [--short | --memory]
# With --short only what needs no disk and no other program, printed and not written. With --memory the hour
# that the memory is watched, alone; what it wrote stays when the rest is measured anew.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=${1:-all}
case $mode in
  all | --short | --memory) ;;
  *) sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac

# section TITLE WHAT COMMAND...: what a command prints.
section() {
  local title=$1 what=$2
  shift 2
  printf '\n## %s\n\n%s\n\n    %s\n\n```text\n' "$title" "$what" "$*"
  "$@" 2> "$log" | sed '/./,$!d' || { cat "$log" >&2; exit 1; }
  printf '```\n'
}

machine() {
  local model cores
  model=$(lscpu | sed -n 's/^Model name: *//p')
  cores=$(nproc)
  printf '%s, %s cores, L2 %s, L3 %s, Linux %s, %s, commit %s.\n' "$model" "$cores" \
    "$(lscpu | sed -n 's/^L2 cache: *//p')" "$(lscpu | sed -n 's/^L3 cache: *//p')" \
    "$(uname -r)" "$(rustc --version | cut -d' ' -f1,2)" "$(git rev-parse --short HEAD)"
}

bench() { section "$1" "$2" cargo bench -p "$3" --bench "$4" -- ratios; }

memory() {
  section "Memory over an hour" "12 frames of 2048x1536 a second, archived; commit $(git rev-parse --short HEAD). Goals: at most ring, slabs and 32 MiB; constant." \
    scripts/measure.sh --seconds 3600
}

all() {
  printf '# Benchmarks\n\nWritten by `scripts/bench.sh`. Ratios compare with a reference that took turns with it in the same\n'
  printf 'run; they are medians. Absolute figures are those of one machine on one day:\n\n'
  machine
  bench "Copy and check" "A frame from the ring into a slab, nobody writes. Goals: 0.92 of memcpy, with CRC-32C 0.88, into slabs in turns 1.30." \
    circbuf-driver kernels
  bench "The whole driver beside a camera at full speed" "The camera waits for the driver, so that every frame is taken; the worker runs on the capturing thread. The last column is the part of the time in which the camera waits for the driver: where it is nothing, the camera is the limit, and twice memcpy and memchr cannot be had where a bare memcpy has not got it. Goals at 225 KB: 0.80 of a bare memcpy, twice of memcpy and memchr; 0.80 of memcpy for the kernel alone." \
    circbuf-driver throughput
  bench "End of a frame to checked in its slab" "Frames that are not archived: one that is, is summed at its end. What a driver cannot do without is the second row: to notice the end, to copy the last burst, and to look at header, trailer and reserved, all of which come from the cache of the camera's core, each at the price of a notification. Goals: at most 5 notifications where the device tells how far it is in a frame, otherwise 1.2 of notification and copy." \
    circbuf-driver latency
  bench "From the tail to the worker" "Two threads. Goals: at most 2 bare one-way notifications when both spin, 1.2 of waking by an eventfd when the worker sleeps." \
    circbuf-driver handoff
  bench "After an overrun" "From the poll that finds the ring lapped to the first frame that can still be had. Goal: linear in frames, not in bytes, where headers prove the frames; on a bare ring a word of every chunk is looked at, because nothing else tells whether a trailer's length leads over one frame or, damaged, over several (perf record: 15 % of this benchmark's time, the camera's included, is that look, MappedRing::length_word)." \
    circbuf-driver resync
  bench "The camera at full speed" "Nobody reads. Goal: 0.6 of memcpy into the same kind of mapping." \
    circbuf-emulator load
  [ "$mode" != --short ] || return 0
  section "Archive" "Against fio with blocks of the same size from the same kind of pages. Goal: 0.90; CPU 0.02 s a GB." \
    scripts/bench-archive.sh
  section "Capturing while archiving" "Every 100th frame is archived, the camera at full speed waits for the driver, the worker runs inline. Goal: 0.95 of not archiving." \
    scripts/bench-archiving.sh
  section "A PCI function" "Over vfio-user, against a ring of the camera's own. Goals: throughput 0.9, latency at most 2." \
    scripts/bench-pci.sh
  section "CPU at 1000 frames a second" "Frames of 180 KB, archived; seconds of CPU a second." \
    scripts/measure-cpu.sh adaptive
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
case $mode in
  --short) all ;;
  --memory)
    { sed '/^## Memory over an hour/,$d' BENCHMARKS.md; memory | sed 1d; } > BENCHMARKS.md.new
    ;;
  all) { all; echo; sed -n '/^## Memory over an hour/,$p' BENCHMARKS.md; } > BENCHMARKS.md.new ;;
esac
[ "$mode" = --short ] || mv BENCHMARKS.md.new BENCHMARKS.md
