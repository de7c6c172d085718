#!/usr/bin/env bash
# Makes a Debian 12 machine ready for `make image`, `make deb` and `make appliance`: what setup/debian.sh installs, then the tools that
# build the image and the machines it is tried on.  Run again, it does nothing.  Speaks on standard error only.
#
# The machine's own package sources stay as they are: packages for the box, and the Raspberry Pi's firmware, which is not free
# software, come through an apt of the build's own (image/debs.py).  Handlers for arm64 programs are switched on only while the tree
# is made, and off again (image/emulation.py).
#
#   TILLBOX_NO_APT=1          never touch the system's packages
set -euo pipefail
cd "$(dirname "$0")/.."
bash setup/debian.sh
exec 1>&2

PACKAGES=(
    mmdebstrap arch-test debian-archive-keyring                     # Debian's tree for arm64
    qemu-user-static binfmt-support                                 # its programs, run on this processor
    squashfs-tools cryptsetup-bin genimage                          # root, its checksums, the disk
    dosfstools mtools e2fsprogs                                     # file systems, made without mounting any
    kmod cpio zstd device-tree-compiler u-boot-tools bmap-tools     # modules, initrd, boards, boot script, flashing
    qemu-system-arm qemu-system-data qemu-utils ipxe-qemu           # the machine in the tests
    u-boot-qemu                                                     # what starts it
    nbdkit nbdkit-plugin-python                                     # its card, which loses power
    dpkg-dev                                                        # make deb
)

say() { printf 'setup: %s\n' "$*"; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null; then sudo "$@"
    else say "neither root nor sudo: cannot run: $*"; return 1
    fi
}

packages_missing() {
    local name
    for name in "${PACKAGES[@]}"; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null || true)" = installed ] || echo "$name"
    done
}

[ "${TILLBOX_NO_APT:-}" = 1 ] && exit 0
if ! command -v dpkg-query >/dev/null; then
    say "not a Debian system; have at hand yourself: ${PACKAGES[*]}"
    exit 0
fi
mapfile -t missing < <(packages_missing)
[ "${#missing[@]}" = 0 ] && exit 0
say "installing from Debian: ${missing[*]}"
# No --no-install-recommends here would bring a desktop's worth of QEMU.
if as_root apt-get -q update \
    && as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "${missing[@]}"; then
    say "ready for the appliance"
else
    mapfile -t missing < <(packages_missing)
    say "apt could not install: ${missing[*]}"
    say "is the package mirror reachable?  Going on with what is here; a part that needs these will say so."
fi
