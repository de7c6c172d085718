"""From power-on to the root: which slot is started, what is taken off, and what a changed byte leads to, wherever it is.

Starts as a box does: Debian's U-Boot, boot.scr from the card, the image's own kernel and initrd.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from device.update.boot_state import DEFAULTS, FIRST, SECOND, SECTOR, BootState, chosen, encode
from tests.appliance.image import BuiltImage
from tests.appliance.machine import ran
from tests.appliance.small_card import DATA_AT, HEAD, MIB, TOTAL, SmallCard, made, started


@pytest.fixture(scope="module")
def blank(image: BuiltImage, room: Path) -> SmallCard:
    return made(image, room / "small")


@pytest.fixture
def card(blank: SmallCard, tmp_path: Path) -> Iterator[SmallCard]:
    one = blank.copy(tmp_path / "card.img")
    yield one
    one.path.unlink()


def test_a_new_card_starts_slot_a_and_every_start_takes_one_try_off(card: SmallCard):
    """Four starts of which none proves itself: what the script does is what `chosen` says, start by start."""
    expected, since = DEFAULTS, 0
    with started(card) as box:
        for _ in range(4):
            slot, expected = chosen(expected)
            assert box.up(since=since) == slot
            assert card.state() == expected
            since = box.console.mark()
            box.console.say(b"reboot -f\n")
    assert expected == BootState(("a", "b"), 0, 2)


@pytest.mark.parametrize(("first", "second", "starts"), [
    (bytes(range(256)) * 2, encode(BootState(("b", "a"), 3, 2)), BootState(("b", "a"), 3, 2)),
    (encode(BootState(("b", "a"), 3, 1))[:40] + bytes(472), encode(BootState(("a", "b"), 2, 3)), BootState(("a", "b"), 2, 3)),
    (b"\xff" * SECTOR, b"\xff" * SECTOR, DEFAULTS),
    (encode(BootState(("b", "a"), 0, 0)), encode(DEFAULTS), BootState(("b", "a"), 0, 0)),
    (encode(BootState(("b",), 3, 0)), bytes(SECTOR), BootState(("b",), 3, 0)),
], ids=["noise", "torn", "both gone", "no try left", "one slot without a try"])
def test_whatever_lies_in_the_state_sectors_a_slot_starts(card: SmallCard, first: bytes, second: bytes, starts: BootState):
    card.write(FIRST * SECTOR, first)
    card.write(SECOND * SECTOR, second)
    slot, after = chosen(starts)
    with started(card) as box:
        assert box.up() == slot
        assert card.state() == after


def test_words_that_are_none_do_not_steer_the_box(card: SmallCard):
    """A good checksum over a count that is none, and over somebody else's words."""
    body = b"BOOT_ORDER=b a\0BOOT_a_LEFT=3\0BOOT_b_LEFT=99\0bootcmd=poweroff\0\0".ljust(SECTOR - 4, b"\0")
    card.write(FIRST * SECTOR, zlib.crc32(body).to_bytes(4, "little") + body)
    body = b"BOOT_ORDER=b a\0BOOT_a_LEFT=3\0BOOT_b_LEFT=2\0bootcmd=poweroff\0\0".ljust(SECTOR - 4, b"\0")
    card.write(SECOND * SECTOR, zlib.crc32(body).to_bytes(4, "little") + body)
    with started(card) as box:
        assert box.up() == "b"
        assert card.state() == BootState(("b", "a"), 3, 1)


@pytest.mark.parametrize("place", ["superblock", "a block that nothing reads", "last block", "hash tree"])
def test_one_changed_byte_of_the_root_is_refused_and_the_other_slot_taken(card: SmallCard, place: str):
    at = {"superblock": card.data, "a block that nothing reads": card.data + card.size // 2,
          "last block": card.data + card.size - 1, "hash tree": card.hash + 4096 + 77}[place]
    card.flip("a", at)
    card.set_state(BootState(("a", "b"), 1, 3))
    with started(card) as box:
        box.console.expect(rb"till: slot a: the root is damaged[^\r\n]*Starting again in 5 seconds", 90)
        assert b"small: up" not in box.console.heard
        assert box.up() == "b"
        assert card.state() == BootState(("a", "b"), 0, 2)


def test_one_changed_byte_of_the_built_image_is_refused_and_the_other_slot_taken(image: BuiltImage, tmp_path: Path):
    """disk.img as it is flashed, to the technician's console; the byte lies where no start reads."""
    words = dict(word.split("=", 1) for word in (image.folder / "cmdline").read_text().split() if "=" in word)
    disk = tmp_path / "disk.img"
    ran("cp", "--sparse=always", str(image.folder / "disk.img"), str(disk))
    built = SmallCard(disk, int(words["till.data"]), int(words["till.size"]), int(words["till.hash"]), "")
    with disk.open("rb") as file:
        table = file.read(SECTOR)
    slot_a = int.from_bytes(table[446 + 16 + 8:446 + 16 + 12], "little") * SECTOR
    where = slot_a + built.data + built.size - 5 * 4096
    with disk.open("rb") as file:
        file.seek(where)
        (byte,) = file.read(1)
    built.write(where, bytes([byte ^ 1]))
    built.set_state(BootState(("a", "b"), 1, 3))
    with started(built) as box:
        box.console.expect(rb"till: slot a: the root is damaged", 120)
        box.console.expect(rb"till: slot b: root read whole and found good", 120)
        box.console.expect(rb"Tillbox [0-9]", 180)
    disk.unlink()


def test_a_damaged_root_is_tried_three_times_before_the_other_slot(card: SmallCard):
    """The card may have misread: a second look is cheap, a slot thrown away is not."""
    card.flip("a", card.data + card.size // 3)
    with started(card) as box:
        assert box.up(within_s=180) == "b"
        assert box.console.heard.count(b"the root is damaged") == 3
        assert card.state() == BootState(("a", "b"), 0, 2)


@pytest.mark.parametrize("file", ["Image", "initrd"])
def test_a_changed_byte_of_kernel_or_initrd_is_refused_before_it_runs(card: SmallCard, image: BuiltImage, file: str):
    whole = (image.folder / file).read_bytes()
    card.flip("a", card.where("a", whole[:2048]) + 1024)
    with started(card) as box:
        assert box.up() == "b"
        assert b"till: slot a does not start: its files are missing or damaged" in box.console.heard
        assert card.state() == BootState(("a", "b"), 2, 2)


def test_a_slot_that_was_wiped_is_passed_over(card: SmallCard):
    card.write(17 * MIB, bytes(HEAD))
    with started(card) as box:
        assert box.up() == "b"


def test_a_byte_that_turns_while_the_box_runs_starts_it_anew(card: SmallCard):
    """Never a wrong byte into a program: the kernel restarts the moment it meets one; the next start looks at the whole root."""
    card.set_state(BootState(("a", "b"), 2, 3))
    with started(card) as box:
        assert box.up() == "a"
        since = box.console.mark()
        card.flip("a", card.data + card.size // 2)
        box.console.say(b"cat /filler >/dev/null\n")
        assert box.up(since=since, within_s=150) == "b"
        assert box.console.heard[since:].count(b"the root is damaged") == 1
        assert card.state() == BootState(("a", "b"), 0, 2)


def test_a_card_of_somebody_else_is_not_ours(card: SmallCard, image: BuiltImage):
    """No signature: nothing on it is taken for a root, and the box says what it looks for."""
    card.write(440, b"ELSE")
    kernel = ("-kernel", str(image.folder / "Image"), "-initrd", str(image.folder / "initrd"))
    disk = ("-drive", f"file={card.path},if=none,id=d0,format=raw", "-device", "virtio-blk-pci,drive=d0,romfile=")
    board = ("-M", "virt", "-cpu", "cortex-a53", "-m", "512")
    with started(card, *board, *kernel, "-append", f"{card.cmdline} till.slot=a", *disk) as box:
        box.console.expect(rb"till: slot a: no card with a Tillbox on it was found in 30 seconds. Starting again in 5 seconds", 120)


def test_later_programs_get_names_for_the_cards_parts_and_the_data_reaches_to_its_end(card: SmallCard):
    with started(card) as box:
        box.up()
        box.console.say(b"cd /sys/block; for d in dm-*; do echo \"$(cat $d/dm/name) $(cat $d/size) $(cat $d/ro)\"; done; mount\n")
        box.console.expect(b"small: done", 20)
    said = bytes(box.console.heard).decode(errors="replace")
    parts = {name: (int(size), ro) for name, size, ro in (line.split() for line in said.replace("\r", "").splitlines()
                                                          if line.startswith("till-") and len(line.split()) == 3)}
    assert parts["till-state"] == (16, "0") and parts["till-key"] == (2, "0")
    assert parts["till-data"] == ((TOTAL - DATA_AT) * MIB // SECTOR, "0")
    assert parts["till-this"][1] == parts["till-root"][1] == "1" and parts["till-other"][1] == "0"
    assert "till-check" not in parts
    assert "root on / type overlay" in said
