#!/usr/bin/env bash
# CPU of the driver's threads at 1000 frames of 180 KB a second, --proc none, archiving as by default (200
# frames a second) and every frame; the camera is a process of its own. With each way to wait, or with one.
#   measure-cpu.sh [--seconds N] [spin|adaptive|sleep ...]   default 10, all
source "$(dirname "$0")/common.sh"
seconds=10
[ "${1:-}" != --seconds ] || { seconds=$(count "${2:-}"); shift 2; }
[ $# -gt 0 ] || set -- adaptive sleep spin
for wait in "$@"; do
  case $wait in spin | adaptive | sleep) ;; *) usage ;; esac
done
cd "$scratch"
ring=$ring_dir/ring
hertz=$(getconf CLK_TCK)
by_thread() {
  local task
  for task in /proc/$driver/task/*; do
    printf '%s %s\n' "$(cat "$task/comm")" "$(sed 's/.*) //' "$task/stat" | awk '{ print $12 + $13 }')"
  done
}
complete() { "$python" -c 'import sys; p=open(sys.argv[1],"rb").read(); print(int.from_bytes(p[0x118:0x120],"little"))' "$ring.regs"; }
# A second into the run every page of the ring has been touched.
goes_on() { [ "$(complete)" -gt 2000 ]; }

for wait in "$@"; do
  for policy in fps=200 every; do
    rm -rf "$ring" "$ring.regs" A
    circbuf emulate --ring "$ring" --model nc393 --source noise:184320 --fps 1000 --bus-mb-s unlimited \
      --seconds $((seconds + 8)) 2> camera.log &
    camera=$!
    children+=($camera)
    wait_until test -e "$ring"
    circbuf run --device "$ring" --wait "$wait" --proc none --archive A --arch-policy "$policy" --json \
      > run.json 2> run.log &
    driver=$!
    children+=($driver)
    wait_until goes_on
    by_thread > before.txt
    sleep "$seconds"
    by_thread > after.txt
    wait $camera || fail "camera: $(cat camera.log)"
    wait $driver || fail "driver: $(cat run.log)"
    echo "--wait $wait, --arch-policy $policy: CPU over $seconds s, latencies p50 in us, frames lost"
    paste before.txt after.txt | awk -v s="$seconds" -v hz="$hertz" '
      { cpu = ($4 - $2) / hz / s; total += cpu; printf "  %-10s %6.3f cores\n", $1, cpu }
      END { printf "  %-10s %6.3f cores\n", "all", total }'
    json run.json '"  tail %(tail)s, proc %(proc)s; " % {k: o["latency_us"][k]["p50"] for k in ("tail", "proc")} + str(o["ring"]["passed"]) + " frames, ring lost " + str(sum(o["ring"]["lost"].values())) + ", arch lost " + str(sum(o["consumers"]["arch"]["lost"].values()))'
    expect run.json 'o["closes"]'
  done
done
