#!/usr/bin/env bash
# Camera and driver as two processes on a ring file: either order, bare or not, late, and stopped
# for several laps. What is archived is held against the camera's ledger. About a minute.
source "$(dirname "$0")/common.sh"
cd "$scratch"
ring=$ring_dir/ring

# same_as_ledger ARCHIVE: every archived frame is the one the camera emitted.
# gapless ARCHIVE: and none is missing between the first of them and the camera's last.
same_as_ledger() {
  circbuf archive verify "$1" > /dev/null || fail "$1 does not verify"
  circbuf archive ls "$1" --json > ls.json || return
  "$python" - <<'P'
import json
ledger = {e["number"]: e for e in map(json.loads, open("ledger.jsonl"))}
frames = json.load(open("ls.json"))["frames"]
for frame in frames:
    emitted = ledger[frame["sequence"]]
    for name in ("length", "sec", "usec"):
        assert frame[name] == emitted[name], (frame, emitted)
    assert frame["cursor"] == emitted["start"]
print(len(frames), "of", len(ledger), "frames archived, each as emitted")
P
}
gapless() {
  same_as_ledger "$1" > /dev/null || return
  "$python" - <<'P'
import json
emitted = sum(1 for _ in open("ledger.jsonl"))
numbers = [frame["sequence"] for frame in json.load(open("ls.json"))["frames"]]
assert numbers and numbers == list(range(numbers[0], emitted)), numbers
print(len(numbers), "of", emitted, "frames archived, from", numbers[0], "on, each as emitted")
P
}
ring_exists() { [ -e "$ring" ]; }
progress() { "$python" -c 'import sys; p=open(sys.argv[1],"rb").read(); print(int.from_bytes(p[0x118:0x120],"little"))' "$ring.regs"; }
emitted_at_least() { [ "$(progress)" -ge "$1" ]; }
# process N started: run in the background, remembered for the end
start() { "$@" & children+=($!); started=$!; }

for bare in "" --bare; do
  for first in camera driver; do
    rm -rf "$ring" "$ring.regs" A
    camera=(circbuf emulate --ring "$ring" --frames 200 --fps 50 --ledger ledger.jsonl $bare)
    driver=(circbuf run --device "$ring" --archive A --arch-policy every --json)
    if [ $first = camera ]; then
      start "${camera[@]}" 2> camera.log; camera_pid=$started
      wait_until ring_exists
      start "${driver[@]}" > run.json 2> run.log; driver_pid=$started
    else
      start "${driver[@]}" > run.json 2> run.log; driver_pid=$started
      sleep 0.5
      start "${camera[@]}" 2> camera.log; camera_pid=$started
    fi
    wait $camera_pid || fail "camera: $(cat camera.log)"
    wait $driver_pid || fail "driver: $(cat run.log)"
    expect run.json 'o["closes"] and o["ring"]["lost"] == {"overrun": 0, "torn": 0, "corrupt": 0}'
    expect run.json 'o["ring"]["passed"] == o["ring"]["frames_expected"] > 0'
    # How late the second one comes depends on the machine; the first driver misses nothing.
    [ $first = camera ] || expect run.json 'o["ring"]["passed"] == 200'
    # As an argument, the failure of a substitution would be no failure.
    told=$(gapless A) || fail "$first first${bare:+, bare}: the archive is not what the camera emitted"
    ok "$first first${bare:+, bare}: $told"
  done
done

# A driver that joins late, and is stopped for laps of a small ring.
for bare in "" --bare; do
  rm -rf "$ring" "$ring.regs" A
  start circbuf emulate --ring "$ring" --ring-bytes 1MiB --source noise:2000-20000 --fps 2000 \
    --bus-mb-s unlimited --ledger ledger.jsonl $bare 2> camera.log
  camera_pid=$started
  wait_until ring_exists
  wait_until emitted_at_least 1000
  start circbuf run --device "$ring" --archive A --arch-policy every --json > run.json 2> run.log
  driver_pid=$started
  wait_until emitted_at_least 3000
  for stop in 1 2 3; do
    kill -STOP $driver_pid
    before=$(progress)
    wait_until emitted_at_least $((before + 1000))
    kill -CONT $driver_pid
    wait_until emitted_at_least $(($(progress) + 500))
  done
  # It ends by now and not by the clock: on a busy machine all of the above takes longer.
  kill -INT $camera_pid
  wait $camera_pid || fail "camera: $(cat camera.log)"
  wait $driver_pid || fail "driver: $(cat run.log)"
  expect run.json 'o["closes"] and o["ring"]["lost_is"] == "exact"'
  expect run.json 'o["ring"]["lost"]["overrun"] > 1000 and o["ring"]["lost"]["corrupt"] == 0'
  told=$(same_as_ledger A) || fail "stopped${bare:+, bare}: the archive is not what the camera emitted"
  ok "joined late, stopped three times${bare:+, bare}: $told, $(json run.json \
    'str(o["ring"]["lost"]["overrun"]) + " overrun, " + str(o["ring"]["lost"]["torn"]) + " torn, none archived"')"
done
