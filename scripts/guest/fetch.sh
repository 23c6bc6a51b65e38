# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034  # sourced: names from and for the script that does
# Sourced by boot.sh: what the guest needs, fetched once into $cache out of Debian's packages, from the
# mirror that this machine's apt uses anyway, unpacked and not installed: neither root nor the machine's own
# packages are touched. Sets $qemu, a command with arguments, and $kernel_root.

# The suite that has a QEMU with vfio-user-pci (10.1 or newer), and the one below it.
readonly qemu_suites=(trixie trixie-backports)

no_qemu() {
  fail "QEMU >= 10.1 cannot be had: $*; set CIRCBUF_NO_GUEST=1 to go without the guest"
}

need() {
  local tool
  for tool in "$@"; do
    command -v "$tool" > /dev/null || fail "$tool is missing: apt-get install $tool"
  done
}

host_suite() { sed -n 's/^VERSION_CODENAME=//p' /etc/os-release; }

# mirrors: where this machine's apt gets its own suite from. Others' archives can look the same.
mirrors() {
  apt-get update --print-uris | sed -n "s|^'\(.*/\)dists/$(host_suite)/InRelease'.*|\1|p"
}

# with_suites FOLDER SUITE...: makes a private state of apt in which nothing is installed yet, so that what is
# asked for comes with everything that it needs. Leaves its options in $apt_options.
with_suites() {
  local state=$1 suite from
  shift
  mkdir -p "$state/lists/partial" "$state/archives/partial" "$state/root"
  : > "$state/status"
  apt_options=(
    -q -o "Dir::State=$state" -o "Dir::State::Lists=$state/lists" -o "Dir::State::status=$state/status"
    -o "Dir::Cache=$state" -o "Dir::Cache::Archives=$state/archives" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::Etc::SourceList=$state/sources.list" -o Dir::Etc::Preferences=/dev/null
    -o Dir::Etc::PreferencesParts=/dev/null -o Acquire::Languages=none -o Acquire::Retries=3
    -o APT::Install-Recommends=false -o APT::Architecture=amd64 -o "APT::Sandbox::User=$(id -un)"
  )
  # Debian's key tells which of them is Debian's.
  for from in $(mirrors); do
    for suite in "$@"; do
      printf 'deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' \
        "$from" "$suite"
    done > "$state/sources.list"
    timeout 300 apt-get "${apt_options[@]}" update > "$state/log" 2>&1 && return 0
  done
  return 1
}

# unpack FOLDER: lays the packages that were fetched out under FOLDER/root.
unpack() {
  local package
  for package in "$1"/archives/*.deb; do
    dpkg-deb -x "$package" "$1/root" || return 1
  done
  rm -rf "$1"/archives "$1"/lists "$1"/root/usr/share/{doc,man,locale}
}

# settle FOLDER COMMAND...: fills a folder of the cache by COMMAND once, and whole or not at all.
settle() {
  local folder=$cache/$1
  shift
  [ -e "$folder/root" ] && return 0
  rm -rf "$folder.part"
  mkdir -p "$folder.part"
  "$@" "$folder.part" || return 1
  rm -rf "$folder"
  mv "$folder.part" "$folder"
}

fetch_qemu() {
  local state=$1
  with_suites "$state" "${qemu_suites[@]}" \
    && timeout 600 apt-get "${apt_options[@]}" install -y --download-only \
      -t "${qemu_suites[-1]}" qemu-system-x86 >> "$state/log" 2>&1 \
    && unpack "$state"
}

# The kernel of the host's own suite (Debian 12: 6.1), and two tools that run without their libraries or with
# the host's.
fetch_kernel() {
  local state=$1 image
  with_suites "$state" "$(host_suite)" || return 1
  image=$(apt-cache "${apt_options[@]}" depends linux-image-cloud-amd64 2>> "$state/log" \
    | awk '/Depends: linux-image/ && !found++ { print $2 }')
  [ -n "$image" ] || return 1
  (cd "$state/archives" \
    && timeout 600 apt-get "${apt_options[@]}" download "$image" busybox-static cpio) \
    >> "$state/log" 2>&1 && unpack "$state"
}

why() { grep -h -m1 '^[EW]:' "$cache/$1.part/log" 2> /dev/null || echo "this machine's apt sources name no Debian mirror"; }

# has_vfio_user COMMAND...: whether this QEMU can put a device behind a socket into a machine.
has_vfio_user() { [[ $("$@" -device help 2> /dev/null) == *'"vfio-user-pci"'* ]]; }

# choose_qemu: the machine's own if it will do, otherwise a fetched one, started by its own loader with its
# own libraries.
choose_qemu() {
  local root=$cache/qemu/root libraries
  qemu=(qemu-system-x86_64)
  if has_vfio_user "${qemu[@]}"; then return; fi
  need apt-get dpkg-deb timeout
  settle qemu fetch_qemu || no_qemu "$(why qemu)"
  libraries=$root/usr/lib/x86_64-linux-gnu
  export QEMU_MODULE_DIR=$libraries/qemu
  qemu=("$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" "$root/usr/bin/qemu-system-x86_64"
    -L "$root/usr/share/qemu" -L "$root/usr/share/seabios")
  has_vfio_user "${qemu[@]}" || no_qemu "the one in ${qemu_suites[-1]} has no vfio-user-pci"
}

choose_kernel() {
  need apt-get dpkg-deb timeout
  settle kernel fetch_kernel || fail "no Debian kernel can be had: $(why kernel)"
  kernel_root=$cache/kernel/root
}
