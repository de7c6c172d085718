"""The disk and the slot in numbers.  Pure; docs/image.md draws the same table."""

from __future__ import annotations

from typing import NamedTuple

SECTOR = 512
MIB = 1 << 20
BLOCK = 4096                                     # verity's blocks, data and hash
HASH = 32                                        # sha256

# Whole disk.  MBR; the boot state lies in the gap before the first partition.
STATE_SECTORS = (64, 72)                         # two copies of one sector: owner device/update/boot_state.py
KEY_SECTORS = (80, 81)                           # the data partition's own mark and key: owner the data partition's unit
BOOT_AT, BOOT_SIZE = 1 * MIB, 128 * MIB
SLOT_SIZE = 768 * MIB
DATA_SIZE = 64 * MIB                             # in the image; on the card it is taken to end at the card's end

# One slot image, from the start of its partition.
HEAD_SIZE = 64 * MIB                             # FAT: kernel, initrd, device trees, slot.env
HASH_ALIGN = 1 * MIB


class Partition(NamedTuple):
    name: str
    offset: int
    size: int


class Slot(NamedTuple):
    """Where the parts of a slot image lie, in bytes from its start."""

    data: int                                    # the squashfs
    data_size: int                               # padded to whole blocks
    hash: int                                    # the hash area; the kernel's line alone says how to read it
    hash_size: int
    size: int                                    # the whole blob


def padded(size: int, to: int) -> int:
    return -(-size // to) * to


def hash_size(data_size: int) -> int:
    """Bytes of verity's hash area without its optional header, for that many bytes of data (whole blocks)."""
    blocks, total = data_size // BLOCK, 0
    while blocks > 1:
        blocks = padded(blocks * HASH, BLOCK) // BLOCK
        total += blocks
    return total * BLOCK


def slot(squashfs_size: int) -> Slot:
    """ValueError when it does not fit a slot."""
    data_size = padded(squashfs_size, BLOCK)
    hash_at = padded(HEAD_SIZE + data_size, HASH_ALIGN)
    size = padded(hash_at + hash_size(data_size), HASH_ALIGN)
    if size > SLOT_SIZE:
        raise ValueError(f"a slot image of {size} bytes does not fit a slot of {SLOT_SIZE}")
    return Slot(HEAD_SIZE, data_size, hash_at, hash_size(data_size), size)


def disk() -> list[Partition]:
    """The four partitions, in order."""
    found, at = [], BOOT_AT
    for name, size in (("boot", BOOT_SIZE), ("slot-a", SLOT_SIZE), ("slot-b", SLOT_SIZE), ("data", DATA_SIZE)):
        found.append(Partition(name, at, size))
        at += size
    return found
