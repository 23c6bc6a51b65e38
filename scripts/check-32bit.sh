#!/usr/bin/env bash
# Checks the driver for 32-bit systems, as the real cameras are: that nothing takes a pointer for 64 bits wide.
# Where a target's standard library cannot be had, that is said and no failure: machines differ.
#
#   scripts/check-32bit.sh [TARGET...]      default: a camera's ARM, and a 32-bit x86
set -euo pipefail
cd "$(dirname "$0")/.."

targets=("$@")
[ $# -gt 0 ] || targets=(armv7-unknown-linux-gnueabihf i686-unknown-linux-gnu)

# Whether the compiler finds the standard library of a target, fetched if need be and possible.
has_library() {
    local folder
    folder="$(rustc --print target-libdir --target "$1" 2>/dev/null)" || return 1
    ls "$folder"/libstd-*.rlib >/dev/null 2>&1 && return
    rustup target add "$1" >/dev/null 2>&1 && ls "$folder"/libstd-*.rlib >/dev/null 2>&1
}

for target in "${targets[@]}"; do
    if ! has_library "$target"; then
        echo "32-bit: not checked for $target: its standard library cannot be had here" \
            "(rustup target add $target)"
        continue
    fi
    # What only io_uring and vector kernels use is of no use there.
    RUSTFLAGS="${RUSTFLAGS:-} -A dead_code" cargo check --locked --quiet -p circbuf-driver --target "$target" || {
        echo "32-bit: the driver does not build for $target" >&2
        exit 1
    }
    echo "32-bit: the driver builds for $target"
done
