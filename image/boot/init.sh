#!/bin/sh
# The first program of the box: finds its card, checks the root it was told to start, and hands over to systemd.
# Reads these words of the kernel's line and nothing else:
#   till.slot=a|b  till.disk=virtio|mmc|usb (absent: the first card that is one of ours)
#   till.root, till.salt: of the hash tree, hex;  till.data, till.size, till.hash: bytes, where in the slot root and tree lie
# Every failure is one sentence on the console and a new start: the boot script takes one try off at each, so that a root which
# does not come up gives way to the other.  There is no shell to fall into: whoever stands at the counter could use it.
# What each sentence means stands in docs/boot.md.

export PATH=/bin:/sbin DM_DISABLE_UDEV=1
umask 022
WAIT=5
FOUND_WITHIN=30

say() {
    echo "till: $*"
    echo "<6>till: $*" >/dev/kmsg 2>/dev/null
}

fail() {
    say "slot ${slot:-?}: $*. Starting again in $WAIT seconds."
    sync
    sleep "$WAIT"
    reboot -f
    sleep 60
    exit 1
}

mount -t devtmpfs -o mode=0755,nosuid dev /dev || echo "till: no /dev"
mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t sysfs -o nosuid,nodev,noexec sys /sys
mount -t tmpfs -o nosuid,nodev,mode=0755,size=20% run /run

slot= kind= feeder= root= salt= data= size= hash=
for word in $(cat /proc/cmdline); do
    case $word in
        till.slot=*) slot=${word#till.slot=} ;;
        till.disk=*) kind=${word#till.disk=} ;;
        till.root=*) root=${word#till.root=} ;;
        till.salt=*) salt=${word#till.salt=} ;;
        till.data=*) data=${word#till.data=} ;;
        till.size=*) size=${word#till.size=} ;;
        till.hash=*) hash=${word#till.hash=} ;;
    esac
done

# A Raspberry Pi cannot even restart without its watchdog's driver: modules first, whatever follows.
while read -r module; do
    insmod "/modules/$module" 2>/dev/null
done </modules/order

# A hang from here on must end in a new start too.  Fed for three minutes at most, then the hardware decides; systemd takes over.
feed() {
    turn=0
    while [ $turn -lt 36 ]; do
        echo -n . >&3
        sleep 5 3>&-
        turn=$((turn + 1))
    done
}
for dog in /sys/class/watchdog/watchdog*; do
    if [ "$(cat "$dog/identity" 2>/dev/null)" = "Broadcom BCM2835 Watchdog timer" ]; then
        feed 3>"/dev/${dog##*/}" &
        feeder=$!
    fi
done

case $slot in
    a) own=2 spare=3 ;;
    b) own=3 spare=2 ;;
    *) fail "the kernel's line names no slot" ;;
esac
[ -n "$root" ] && [ -n "$salt" ] && [ -n "$data" ] && [ -n "$size" ] && [ -n "$hash" ] ||
    fail "the kernel's line does not say how the root is checked"
blocks=$((size / 4096))

case $kind in
    virtio) looks="vd?" ;;
    mmc) looks="mmcblk?" ;;
    usb) looks="sd?" ;;
    *) looks="vd? mmcblk? sd?" ;;
esac

# Ours is the card with TILL as its signature (bytes 440 to 443) and four partitions.
card() {
    for look in $looks; do
        for at in /sys/block/$look; do
            name=${at##*/}
            [ -e "$at" ] || continue
            [ "$(dd if="/dev/$name" bs=4 skip=110 count=1 2>/dev/null)" = TILL ] || continue
            part=$name
            case $name in *[0-9]) part=${name}p ;; esac
            [ -e "$at/${part}4" ] && return 0
        done
    done
    return 1
}
turn=0
until card; do
    turn=$((turn + 1))
    [ $turn -lt $((FOUND_WITHIN * 5)) ] || fail "no card with a Tillbox on it was found in $FOUND_WITHIN seconds"
    usleep 200000
done
start_of() { cat "/sys/block/$name/${part}$1/start"; }
size_of() { cat "/sys/block/$name/${part}$1/size"; }

# Names for what later programs may touch, so that none of them needs the whole card.  All through the whole card: a partition
# that is open on its own could not be claimed twice.
piece() {
    dmsetup create "$1" $4 --table "0 $3 linear /dev/$name $2" || fail "the card's part $1 (sector $2, $3 long) cannot be opened"
}
piece till-boot "$(start_of 1)" "$(size_of 1)"
piece till-state 64 16
piece till-key 80 2
piece till-this "$(start_of $own)" "$(size_of $own)" --readonly
piece till-other "$(start_of $spare)" "$(size_of $spare)"
piece till-data "$(start_of 4)" $(($(cat "/sys/block/$name/size") - $(start_of 4)))
piece till-rootfs $(($(start_of $own) + data / 512)) $((blocks * 8)) --readonly

# The tree has no header of its own: all that says how to read it came with the kernel's line.
checked() {
    dmsetup create "$1" --readonly --table "0 $((blocks * 8)) verity 1 /dev/mapper/till-rootfs /dev/mapper/till-this \
4096 4096 $blocks $((hash / 4096)) sha256 $root $salt $2" || fail "the check of the root cannot be set up"
}

# Read whole before anything of it runs: a byte that has turned is found wherever it lies, and not at noon in the middle of a sale.
# In quarters, so that every core has some of it to hash.
checked till-check ""
quarter=$(((blocks + 255) / 256 / 4 + 1))
began=$(cut -d' ' -f1 /proc/uptime)
for part_of in 0 1 2 3; do
    dd if=/dev/mapper/till-check of=/dev/null bs=1M skip=$((part_of * quarter)) count=$quarter 2>/dev/null || echo >/run/damaged &
    readers="$readers $!"
done
wait $readers
[ -e /run/damaged ] && fail "the root is damaged: it does not match its checksum"
say "slot $slot: root read whole and found good, seconds of uptime $began to $(cut -d' ' -f1 /proc/uptime)"
dmsetup remove till-check || fail "the check of the root does not end"

checked till-root "1 restart_on_corruption"
mkdir -p /below /above /new
mount -t squashfs -o ro,nodev /dev/mapper/till-root /below || fail "the root cannot be mounted"
mount -t tmpfs -o mode=0755,size=25% above /above || fail "no memory for what the root's programs change"
mkdir /above/upper /above/work
mount -t overlay -o lowerdir=/below,upperdir=/above/upper,workdir=/above/work root /new || fail "the root cannot be laid over with memory"
# A link there points from the new root, which is not this one yet.
[ -x /new/sbin/init ] || [ -L /new/sbin/init ] || fail "the root holds no system to start"

mkdir -p /run/till
echo "$slot" >/run/till/slot

# Only a test's own initrd, joined to this one, has this folder.
[ -x /rig/start ] && /rig/start /new

# systemd opens the watchdog in its first second, and only when nobody else has it; until then its fifteen go on counting.
if [ -n "$feeder" ]; then
    kill -9 "$feeder"
    wait "$feeder" 2>/dev/null
fi
for one in dev proc sys run; do
    mount --move /$one /new/$one || fail "the folder /$one cannot be handed over"
done
exec switch_root /new /sbin/init
