# shellcheck shell=bash
# shellcheck disable=SC2154,SC1091  # names from common.sh and from what is sourced
# Sourced behind common.sh by the scripts that need a guest: a virtual machine whose IOMMU is switched on and on whose
# PCI bus our emulated cameras are. Neither root nor KVM is needed. QEMU (10.1 or newer) and a Debian kernel are
# fetched once, into CIRCBUF_GUEST_DIR (default: ~/.cache/circbuf-guest), unless this machine has such a QEMU. A guest
# that hangs is ended after CIRCBUF_GUEST_SECONDS (default: 180).
source "$(dirname "${BASH_SOURCE[0]}")/fetch.sh"
source "$(dirname "${BASH_SOURCE[0]}")/image.sh"
export -n CIRCBUF_GUEST_DIR CIRCBUF_GUEST_SECONDS CIRCBUF_NO_GUEST # circbuf knows no such options

# prepare_guest FILE...: all that is needed to boot one, whose file system has these files as well.
prepare_guest() {
  [ "$(uname -m)" = x86_64 ] || fail "needs an x86-64 machine, whose programs the guest can run"
  need awk find flock gzip ldd strip tail tar timeout
  cache=${CIRCBUF_GUEST_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/circbuf-guest}
  mkdir -p "$cache"
  exec 9> "$cache/lock"
  flock 9
  choose_qemu
  choose_kernel
  exec 9>&-
  make_image "$scratch/image" "$(command -v circbuf)" "$@"
}

# camera_at SLOT SOCKET: the device that is the camera behind a socket. There may be others in its slot.
camera_at() {
  printf '{"driver":"vfio-user-pci","addr":"%x.0","multifunction":true,"socket":{"type":"unix","path":"%s"}}' "$1" "$2"
}

# start_guest CHECKS DEVICE...: boots one that makes its checks of that name. It has a disk, on which what it archived
# comes out as a tar.
start_guest() {
  local checks=$1
  shift
  rm -f "$scratch/disk"
  truncate -s 256M "$scratch/disk"
  "${qemu[@]}" \
    -machine q35,memory-backend=memory -accel tcg -cpu max -m 512 -nographic -no-reboot -nodefaults \
    -object memory-backend-memfd,id=memory,size=512M,share=on -serial "file:$scratch/console" \
    -kernel "$(find "$kernel_root" -name 'vmlinuz*' -print -quit)" -initrd "$scratch/image" \
    -append "console=ttyS0 quiet intel_iommu=on no_timer_check panic=-1 checks=$checks" \
    -drive "if=none,id=disk,format=raw,file=$scratch/disk" -device nvme,serial=results,drive=disk \
    "$@" > "$scratch/qemu.log" 2>&1 < /dev/null &
  guest=$!
  children+=("$guest")
}

# end_guest LOG...: waits for it, and fails with these files unless it says that all is well.
end_guest() {
  local limit=${CIRCBUF_GUEST_SECONDS:-180} why='the guest found faults' ended=0
  if timeout "$limit" tail --pid="$guest" -s 0.1 -f /dev/null
  then wait "$guest" || { ended=$?; why="QEMU ended with $ended"; }
  else why="the guest hung, and was ended after $limit s"
  fi
  sed -n '/^guest: /p' "$scratch/console" | tr -d '\r'
  if [ "$ended" = 0 ] && grep -q '^guest: verdict 0 ' "$scratch/console"; then return; fi
  tail -n 40 "$scratch/console" "$scratch/qemu.log" "$@" >&2
  fail "$why"
}

# unpack_results: what it archived, with times of out here, in $scratch/results.
unpack_results() {
  mkdir "$scratch/results"
  tar -xmf "$scratch/disk" -C "$scratch/results"
}
