#!/usr/bin/env bash
# Runs every fuzz target with libFuzzer, from tests/fuzz/corpus and the seeds. Needs g++ or clang++
# (libFuzzer is C++) but no other Rust than the stable one; where there is no C++ compiler, the
# targets run under their seeded twin instead, and the script says so.
#   fuzz.sh [SECONDS] [TARGET...]   default 20 seconds each, all targets, as many at once as there are
#                                   processors
#   fuzz.sh --replay FILE TARGET    one input again
#   fuzz.sh --keep TARGET           the corpus becomes the smallest part of what was found in earlier
#                                   runs that reaches the same; inputs that a person has named stay
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
targets=(walker tail archive index jpeg npy y4m decode config faults)
out=${CARGO_TARGET_DIR:-$root/target}/fuzz
input_bytes_max=8192
hashed='[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]'

say() { printf 'fuzz.sh: %s\n' "$*"; }

seeded_twin() {
  say "libFuzzer cannot be built here ($1); the seeded twin runs instead"
  cargo test --quiet -p circbuf-tests --test fuzzed
  cargo test --quiet -p circbuf-tools --bin circbuf config
  exit 0
}

# What `cargo fuzz --sanitizer none` sets. The host is named, so that build scripts are left alone.
build() {
  local cxx=${CXX:-c++}
  command -v "$cxx" > /dev/null || seeded_twin "there is no C++ compiler '$cxx'; apt-get install g++"
  mkdir -p "$out"
  local flags=(-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing)
  host=$(rustc -vV | sed -n 's/^host: //p')
  RUSTFLAGS="${flags[*]}" CARGO_TARGET_DIR=$out cargo build --quiet --release \
    --target "$host" --manifest-path tests/fuzz/Cargo.toml
}

# fuzz SECONDS TARGET: fails if the target crashes, or takes more than 20 s or 2 GiB for an input.
fuzz() {
  local seconds=$1 target=$2 work=$out/corpus/$2 log=$out/$2.log
  mkdir -p "$work" "$out/crashes"
  if ! FUZZ_SEEDS=$work nice "$out/$host/release/$target" -max_total_time="$seconds" -timeout=20 \
    -rss_limit_mb=2048 -max_len=$input_bytes_max -print_final_stats=1 -seed=1 \
    -artifact_prefix="$out/crashes/$target-" "$work" "tests/fuzz/corpus/$target" > "$log" 2>&1; then
    tail -n 30 "$log"
    say "$target FAILED: $(sed -n 's/.*Test unit written to //p' "$log")"
    say "replay it with scripts/fuzz.sh --replay FILE $target"
    return 1
  fi
  say "$target: $(sed -n 's/.*number_of_executed_units: *//p' "$log") inputs," \
    "$(sed -n 's/^#[0-9]*\s*DONE *\(cov: [0-9]* ft: [0-9]*\).*exec\/s: \([0-9]*\).*/\1, \2 a second/p' "$log")"
}

case ${1:-} in
  --replay) build && exec "$out/$host/release/$3" "$2" ;;
  --keep)
    build
    corpus=tests/fuzz/corpus/$2 work=$out/corpus/$2 kept=$out/kept/$2
    rm -rf "$kept" && mkdir -p "$kept" "$work"
    # What the fuzzer found is called by its hash; a merge only adds what is missing beside the rest.
    # How often code is reached does not count here, or there would be hundreds.
    find "$corpus" -type f ! -name "$hashed" -exec cp -t "$kept" {} +
    "$out/$host/release/$2" -set_cover_merge=1 -use_counters=0 -max_len=$input_bytes_max "$kept" "$corpus" "$work"
    find "$corpus" -type f -name "$hashed" -delete
    find "$kept" -type f -name "$hashed*" | while read -r input; do
      name=${input##*/}
      cp "$input" "$corpus/${name:0:12}"
    done
    say "$2: $(find "$corpus" -type f | wc -l) inputs kept"
    exit ;;
esac

seconds=${1:-20}
[ $# -eq 0 ] || shift
[ $# -eq 0 ] || targets=("$@")
build
failed=0 running=0
for target in "${targets[@]}"; do
  if [ $running -ge "$(nproc)" ]; then
    wait -n || failed=1
    running=$((running - 1))
  fi
  fuzz "$seconds" "$target" &
  running=$((running + 1))
done
while [ $running -gt 0 ]; do
  wait -n || failed=1
  running=$((running - 1))
done
exit $failed
