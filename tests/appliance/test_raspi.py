"""The built card in QEMU's raspi3b, as far as that model goes: firmware's part is skipped, U-Boot's is not.

What the model cannot show stands in docs/hardware-checklist.md.  Its card is slow (2 to 3 MB a second), so the small card stands
for the real one where only starting is looked at.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from device.update.boot_state import BootState
from image.boot import part1, u_boot
from tests.appliance.image import BuiltImage
from tests.appliance.machine import ran
from tests.appliance.qmp import Qmp
from tests.appliance.small_card import BOOT_AT, MIB, SmallCard, made, started

TREE = "bcm2837-rpi-3-b.dtb"


@pytest.fixture(scope="module")
def card(image: BuiltImage, room: Path) -> SmallCard:
    """The small card; a card's size must be a power of two there, which its half gigabyte is."""
    one = made(image, room / "raspi")
    (room / "raspi/uboot.env").write_bytes(u_boot.environment(part1.ENVIRONMENT, part1.ENVIRONMENT_SIZE))
    lay(one.path, BOOT_AT * MIB, room / "raspi/uboot.env")
    return one


@pytest.fixture(scope="module")
def tree(image: BuiltImage, room: Path) -> Path:
    """The board's tree as the slot carries it, with what the model needs."""
    out = room / TREE
    out.write_bytes(part1.emulated(carried(image, f"dtb/{TREE}")))
    return out


def carried(image: BuiltImage, name: str) -> bytes:
    """A file of the slot's FAT, out of the built slot image."""
    [slot] = image.folder.glob("*.slot")
    return subprocess.run(["mcopy", "-i", slot, f"::{name}", "-"], check=True, capture_output=True).stdout


def lay(card: Path, at: int, file: Path) -> None:
    subprocess.run(["mcopy", "-o", "-i", f"{card}@@{at}", file, f"::{file.name}"], check=True)


def board(card: SmallCard, tree: Path, *kernel: str) -> tuple[str, ...]:
    return ("-M", "raspi3b", "-dtb", str(tree), *kernel, "-drive", f"file={card.path},if=sd,format=raw", "-device", "usb-kbd")


@pytest.mark.limit(420)
def test_the_boards_own_u_boot_starts_the_card_and_keeps_the_state(card: SmallCard, tree: Path, image: BuiltImage, tmp_path: Path):
    """u-boot.bin of Debian's rpi_arm64, out of the built disk's first partition: environment, script, mmc, kernel, root."""
    one = card.copy(tmp_path / "card.img")
    loader = tmp_path / "u-boot.bin"
    disk = image.folder / "disk.img"
    subprocess.run(["mcopy", "-i", f"{disk}@@{MIB}", "::u-boot.bin", loader], check=True)
    with started(one, *board(one, tree, "-kernel", str(loader))) as box:
        assert box.up(within_s=400) == "a"
        assert b"Loading Environment from FAT... OK" in box.console.heard
        assert b"Hit any key" not in box.console.heard, "no key may stop it"
        assert one.state() == BootState(("a", "b"), 2, 3)
        box.console.say(b"cat /proc/device-tree/model; ls /dev/mmcblk0 /dev/fb0; cat /sys/class/graphics/fb0/name; mount\n")
        box.console.expect(b"small: done", 60)
    said = box.console.heard
    assert b"Raspberry Pi 3 Model B" in said and b"/dev/mmcblk0" in said
    assert b"simple" in said, "the framebuffer"
    assert b"root on / type overlay" in said


@pytest.mark.limit(600)
def test_the_built_card_starts_up_to_the_technicians_console(image: BuiltImage, tree: Path, tmp_path: Path):
    """disk.img as it is flashed, on a card of 2 GiB: U-Boot, both checks, systemd, the till's console on the good serial line."""
    disk, loader = tmp_path / "disk.img", tmp_path / "u-boot.bin"
    ran("cp", "--sparse=always", str(image.folder / "disk.img"), str(disk))
    with disk.open("r+b") as file:
        file.truncate(2 << 30)
    subprocess.run(["mcopy", "-i", f"{disk}@@{MIB}", "::u-boot.bin", loader], check=True)
    one = SmallCard(disk, 0, 0, 0, "")
    with started(one, *board(one, tree, "-kernel", str(loader))) as box:
        box.console.expect(rb"till: slot a: root read whole and found good", 300)
        box.console.expect(rb"Tillbox [0-9]", 300)
        assert b"Kernel panic" not in box.console.heard
        assert one.state() == BootState(("a", "b"), 2, 3)
    disk.unlink()


@pytest.mark.limit(420)
def test_the_initrd_starts_the_boards_watchdog(card: SmallCard, image: BuiltImage, room: Path, tmp_path: Path):
    """The model takes a watchdog's start for an order to reset: with the watchdog in the tree, that is what must be seen."""
    one = card.copy(tmp_path / "card.img")
    tree = tmp_path / TREE
    tree.write_bytes(carried(image, f"dtb/{TREE}"))
    kernel = ("-kernel", str(image.folder / "Image"), "-initrd", str(image.folder / "initrd"), "-append",
              f"{one.cmdline} till.slot=a till.disk=mmc")
    with started(one, *board(one, tree, *kernel)) as box:
        qmp = Qmp(box.qmp_path)
        qmp.event("RESET", 120, guest=True)
        qmp.close()
        assert b"small: up" not in box.console.heard
