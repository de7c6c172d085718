"""The disk and the slot in numbers, held against a verity tree counted by hand and against one another."""

from __future__ import annotations

import re

import pytest

from image import disk, layout, slot
from image.boot import u_boot

MIB = layout.MIB


def test_partitions_follow_one_another_and_start_on_a_mebibyte() -> None:
    parts = layout.disk()
    assert [part.name for part in parts] == ["boot", "slot-a", "slot-b", "data"]
    assert all(part.offset % MIB == 0 for part in parts)
    assert all(before.offset + before.size == after.offset for before, after in zip(parts, parts[1:], strict=False))


def test_the_boot_state_lies_before_the_first_partition() -> None:
    assert max((*layout.STATE_SECTORS, *layout.KEY_SECTORS)) * layout.SECTOR < layout.BOOT_AT
    assert not set(layout.STATE_SECTORS) & set(layout.KEY_SECTORS)


@pytest.mark.parametrize("data_blocks, hash_blocks", [
    (2, 1), (128, 1), (129, 2 + 1), (128 * 128, 128 + 1), (128 * 128 + 1, 129 + 2 + 1)])
def test_the_hash_tree_is_as_large_as_its_levels(data_blocks: int, hash_blocks: int) -> None:
    assert layout.hash_size(data_blocks * 4096) == hash_blocks * 4096


def test_the_parts_of_a_slot_do_not_overlap() -> None:
    for size in (1, 4096, 63_332_352, 300 * MIB + 1):
        parts = layout.slot(size)
        assert parts.data == layout.HEAD_SIZE and parts.data % MIB == parts.hash % MIB == parts.size % MIB == 0
        assert size <= parts.data_size < size + 4096
        assert parts.data + parts.data_size <= parts.hash
        assert parts.hash + parts.hash_size <= parts.size <= layout.SLOT_SIZE


def test_a_root_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        layout.slot(layout.SLOT_SIZE - layout.HEAD_SIZE)


def test_genimage_is_told_these_numbers() -> None:
    said = disk.config("boot.vfat", "slot", "tillbox.img")
    assert [int(number) for number in re.findall(r"\n    offset = (\d+)", said)] == [part.offset for part in layout.disk()]
    assert "disk-signature = 0x4c4c4954" in said                       # TILL, by which the initrd knows its card
    assert said.count("bootable = true") == 1 and said.count("{") == said.count("}")


def test_a_slot_says_how_its_root_is_checked() -> None:
    parts = layout.slot(10_000)
    words = dict(word.split("=") for word in slot.verity_words(parts, "ab" * 32).split())
    assert words == {"till.root": "ab" * 32, "till.salt": slot.SALT, "till.data": str(64 * MIB), "till.size": "12288",
                     "till.hash": str(65 * MIB)}
    text = slot.slot_env("1.2", f"quiet {slot.verity_words(parts, 'ab' * 32)}", b"kernel", b"initrd")
    said = dict(line.split("=", 1) for line in text.splitlines())
    assert said.keys() == {"version", "cmdline", "image_crc", "initrd_crc"}
    assert (said["image_crc"], said["initrd_crc"]) == (u_boot.checksum(b"kernel"), u_boot.checksum(b"initrd"))
    assert "till.slot" not in text                                     # the boot script's to say
