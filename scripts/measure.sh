#!/usr/bin/env bash
# Two figures: CPU of the driver's threads and proportional memory, at 12 frames of 2048x1536 a second
# into the ring of an nc353.
#   measure.sh [--seconds N]   default 30
source "$(dirname "$0")/common.sh"
seconds=30
case ${1:-} in
  "") ;;
  --seconds) seconds=$(count "${2:-}") ;;
  *) usage ;;
esac
cd "$scratch"
ring=$ring_dir/ring
limit_mib=$((19791872 / 1048576 + 64 + 32))

circbuf emulate --ring "$ring" --source synthetic:16 --width 2048 --height 1536 --fps 12 --seconds $((seconds + 15)) 2> camera.log &
camera=$!
children+=($camera)
wait_until test -e "$ring"
circbuf run --device "$ring" --proc none --archive A --json > run.json 2> run.log &
driver=$!
children+=($driver)
complete() { "$python" -c 'import sys; p=open(sys.argv[1],"rb").read(); print(int.from_bytes(p[0x110:0x118],"little"))' "$ring.regs"; }
lapped() { [ "$(complete)" -gt 19791872 ]; }
# Until the ring has been written once, its pages join the driver's memory one by one.
wait_until lapped

pss() { awk '/^Pss:/ { print $2 }' "/proc/$driver/smaps_rollup"; }
# Slabs are mapped, in huge pages, when more frames wait than ever before: they have a limit of their own.
slabs() { awk '/^AnonHugePages:/ { print $2 }' "/proc/$driver/smaps_rollup"; }
by_thread() {
  for task in /proc/$driver/task/*; do
    printf '%s %s\n' "$(cat "$task/comm")" "$(sed 's/.*) //' "$task/stat" | awk '{ print $12 + $13 }')"
  done
}
by_thread > before.txt
pss_before=$(pss) slabs_before=$(slabs) pss_most=0 rest_most=0
# By the clock: looking takes time as well, and the camera's does not wait for it.
until=$((SECONDS + seconds))
while left=$((until - SECONDS)); ((left > 0)); do
  sleep $((left < 10 ? left : 10))
  pss_after=$(pss)
  slabs_after=$(slabs)
  rest=$((pss_after - slabs_after))
  [ "$pss_after" -le "$pss_most" ] || pss_most=$pss_after
  [ "$rest" -le "$rest_most" ] || rest_most=$rest
done
by_thread > after.txt
hertz=$(getconf CLK_TCK)
echo "CPU of the driver's threads over $seconds s at 12 fps, nc353, --proc none, archiving:"
paste before.txt after.txt | awk -v s="$seconds" -v hz="$hertz" '
  { cpu = ($4 - $2) * 100 / hz / s; total += cpu; printf "  %-10s %5.2f %% of a core\n", $1, cpu }
  END { printf "  %-10s %5.2f %% of a core\n", "all", total; exit total > 10 }' ||
  fail "a driver that waits for 12 frames a second takes more than 10 % of a core"
echo "Pss: $((pss_before / 1024)) MiB, after $seconds s $((pss_after / 1024)) MiB, at most $((pss_most / 1024)) MiB (of which slabs $((slabs_before / 1024)), then $((slabs_after / 1024)) MiB); ring + slabs + 32 MiB is $limit_mib MiB"
wait $camera
wait $driver || fail "driver: $(cat run.log)"
expect run.json 'o["closes"] and o["ring"]["passed"] == o["ring"]["frames_expected"]'
[ "$pss_most" -le $((limit_mib * 1024)) ] || fail "more memory than ring + slabs + 32 MiB"
[ "$rest_most" -le $((pss_before - slabs_before + 4096)) ] || fail "memory grows"
