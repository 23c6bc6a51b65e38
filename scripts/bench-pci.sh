#!/usr/bin/env bash
# A camera as a PCI function (vfio-user, its status page mapped) against the same camera with a ring of its own,
# in turns, with frames of 225 KB and a driver that spins. Throughput: a camera at full speed that waits for its
# driver. Latency: from a frame's time to its detection, median, at 500 frames a second; the ring is a file, and
# the camera a process of its own in both.
#   bench-pci.sh [--rounds N] [--frames N]   default 7, 200000 for the throughput
source "$(dirname "$0")/common.sh"
rounds=7 frames=200000
while [ $# -gt 0 ]; do
  case $1 in
    --rounds) rounds=$(count "${2:-}") ;;
    --frames) frames=$(count "${2:-}") ;;
    *) usage ;;
  esac
  shift 2 || usage
done
cd "$scratch"

run() {
  circbuf run --wait spin --proc none --json "$@" > run.json 2> run.log || fail "driver: $(cat run.log)"
  expect run.json 'o["closes"]'
}

# emulate OPTIONS...: a camera in the background, until it ends.
emulate() {
  circbuf emulate --source noise:230400 "$@" 2> camera.log &
  camera=$!
  children+=($camera)
}
ended() { wait $camera || fail "camera: $(cat camera.log)"; }

throughput() {
  case $1 in
    ring) run --source noise:230400 --unpaced --lossless --frames "$frames" ;;
    pci)
      emulate --socket cam --unpaced --frames "$frames"
      run --device "vfio-user:cam" --lossless
      ended
      ;;
  esac
  expect run.json "o['ring']['passed'] == $frames"
  json run.json 'o["ring"]["passed"] / o["elapsed_s"]'
}

latency() {
  local at device
  case $1 in
    ring) at=(--ring "$ring_dir/ring") device=$ring_dir/ring ;;
    pci) at=(--socket cam) device=vfio-user:cam ;;
  esac
  rm -rf A "$ring_dir"/ring*
  emulate "${at[@]}" --fps 500 --bus-mb-s unlimited --seconds 3
  run --device "$device" --archive A --arch-policy every
  ended
  circbuf archive ls A --json > records.json
  json records.json 'sorted(f["realtime_ns"] / 1e3 - f["sec"] * 1e6 - f["usec"] for f in o["frames"])[len(o["frames"]) // 2]'
}

for _ in $(seq "$rounds"); do
  echo "$(throughput ring) $(throughput pci) $(latency ring) $(latency pci)"
done | "$python" -c '
import sys
rounds = [tuple(map(float, line.split())) for line in sys.stdin]
def spread(what, ratios):
    ratios.sort()
    print("%s: %.2f (%.2f to %.2f)" % (what, ratios[len(ratios) // 2], ratios[0], ratios[-1]))
for ring, pci, late_ring, late_pci in rounds:
    print("ring %.0f frames/s, %.0f us; PCI %.0f frames/s, %.0f us" % (ring, late_ring, pci, late_pci))
spread("throughput of PCI to a ring", [pci / ring for ring, pci, _, _ in rounds])
spread("latency of PCI to a ring", [pci / ring for _, _, ring, pci in rounds])'
