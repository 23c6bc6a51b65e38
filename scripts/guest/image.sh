# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034  # sourced: names from and for the script that does
# Sourced by boot.sh: packs the guest's file system.

# Newer kernels have no vfio_virqfd.
readonly modules=(irqbypass vfio vfio_virqfd vfio_iommu_type1 vfio-pci-core vfio-pci)

# unpack_module NAME FOLDER: as an uncompressed file.
unpack_module() {
  local module
  module=$(find "$kernel_root" -name "$1.ko*" -print -quit)
  case $module in
    '') ;;
    *.xz) need xz; xz -dc "$module" > "$2/$1.ko" ;;
    *.zst) need zstd; zstd -qdc "$module" > "$2/$1.ko" ;;
    *) cp "$module" "$2/" ;;
  esac
}

# copy_libraries PROGRAM TREE: what a dynamic program is linked with, its loader included.
copy_libraries() {
  local library
  ldd "$1" | awk '$3 ~ /^\// { print $3 } $1 ~ /^\// { print $1 }' | while read -r library; do
    cp -L --parents "$library" "$2"
  done
}

# make_image OUT PROGRAM FILE...: an initramfs with busybox, VFIO's modules, the program and what it is put through; the
# files are in its root.
make_image() {
  local out=$1 program=$2 tree module here
  shift 2
  here=$(dirname "${BASH_SOURCE[0]}")
  tree=$(mktemp -d -p "$scratch")
  chmod 755 "$tree"
  mkdir -p "$tree"/{bin,dev,etc,proc,sys,tmp,modules}
  cp "$(find "$kernel_root" -path '*bin/busybox' -print -quit)" "$here/../vfio-bind.sh" "$tree/bin/"
  strip -o "$tree/bin/$(basename "$program")" "$program"
  copy_libraries "$program" "$tree"
  ln -s busybox "$tree/bin/sh"
  cp "$here/init" "$here/checks.sh" "$@" "$tree/"
  chmod 755 "$tree/init"
  printf 'root::0:0::/tmp:/bin/sh\ncamera::1000:1000::/tmp:/bin/sh\n' > "$tree/etc/passwd"
  printf 'root:x:0:\ncamera:x:1000:\n' > "$tree/etc/group"
  for module in "${modules[@]}"; do
    unpack_module "$module" "$tree/modules"
  done
  [ -e "$tree/modules/vfio-pci.ko" ] || fail "the kernel in $kernel_root has no module vfio-pci"
  (cd "$tree" && find . | "$(find "$kernel_root" -path '*bin/cpio' -print -quit)" -o -H newc --quiet) \
    | gzip -1 > "$out"
  rm -rf "$tree"
}
