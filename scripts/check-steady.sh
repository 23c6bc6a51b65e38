#!/usr/bin/env bash
# System calls for a frame in steady spin mode: none. Two runs as fast as the machine, the processor once on
# the capturing thread and once on its own. Allocations and page faults: cargo test --test steady.
#   check-steady.sh [--frames N]   default 300000
# Needs strace. A sched_yield is told apart: a thread that spins leaves its core now and then when it waits in
# vain and there are fewer cores than such threads.
source "$(dirname "$0")/common.sh"
frames=300000
case ${1:-} in
  "") ;;
  --frames) frames=$(count "${2:-}") ;;
  *) usage ;;
esac
command -v strace > /dev/null || fail "strace is not there, so that nothing was counted: install it (apt-get install strace)"
cd "$scratch"
strace -o probe true 2> probe.log || fail "strace may not trace here (ptrace is not allowed?), so that nothing was counted: $(cat probe.log)"

# count_calls NAME: calls of the threads of this name, sched_yield or the others, behind the last one that set
# the thread up.
count_calls() {
  local file files
  files=$(grep -l "PR_SET_NAME, \"$1\"" "$run".*) || fail "no thread called itself $1"
  for file in $files; do
    sed '1,/PR_SET_NAME/d' "$file"
  done | grep -v '^+++\|^---' > calls || true
  yields=$(grep -c '^sched_yield' calls || true)
  # Slabs are mapped as the first frames want them: that depends on the queue, not on the run.
  memory=$(grep -cE '^(mmap|munmap|madvise|mprotect|brk)' calls || true)
  others=$(grep -vcE '^(sched_yield|mmap|munmap|madvise|mprotect|brk)' calls || true)
}

for inline in --inline ""; do
  run=trace$inline
  strace -f -ff -o "$run" circbuf run --source noise:1024 --unpaced --lossless --frames "$frames" \
    --wait spin $inline --proc none --proc-policy every --json > run.json 2> run.log || fail "$(cat run.log)"
  expect run.json "o['closes'] and o['consumers']['proc']['delivered'] == $frames"
  for thread in capture proc; do
    [ -z "$inline" ] || [ $thread = capture ] || continue
    count_calls $thread
    [ "$others" -lt $((frames / 200)) ] && [ "$memory" -lt 1000 ] ||
      fail "$thread${inline:+ $inline}: $others system calls and $memory for memory in $frames frames: $(cut -d'(' -f1 calls | sort | uniq -c | sort -rn | head -5 | tr -s '\n ' ' ')"
    ok "$thread${inline:+ $inline}: $others system calls in $frames frames, $memory to map slabs at the beginning, and $yields sched_yield while it waited"
  done
done
