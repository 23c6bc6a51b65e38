#!/usr/bin/env bash
# scripts/soak.sh [SECONDS | HOURSh]: the simulation with fresh seeds until the time is over, one
# hour if none is given. Stops at the first seed that fails, and tells how to replay it.
set -euo pipefail
cd "$(dirname "$0")/.."

time=${1:-1h}
case $time in
  *h) seconds=$((${time%h} * 3600)) ;;
  *) seconds=$time ;;
esac
batch=20000
# Seeds of 15 digits, which no other soak has run.
first=$((($(date +%s) << 20) + $$))
echo "soak: $seconds s from seed $first on"
while [ $SECONDS -lt "$seconds" ]; do
  SIM_FIRST=$first SIM_SEEDS=$batch \
    cargo test --release --quiet -p circbuf-tests --test sim -- --exact seeds::seeds --nocapture
  first=$((first + batch))
done
echo "soak: ok, up to seed $((first - 1)) in $SECONDS s"
