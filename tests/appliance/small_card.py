"""A card of half a gigabyte that boots in seconds: the image's own kernel, initrd and boot script, and a root that is a shell.

Knows the layout of a card and of a slot, and where a byte can be changed; its root stands for the real one, which takes longer to
come up and says the same about starting.
"""

from __future__ import annotations

import contextlib
import gzip
import random
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from device.update.boot_state import FIRST, SECOND, SECTOR, BootState, encode, read
from image.boot import boot_script, u_boot
from sim import leash
from tests.appliance.image import BuiltImage
from tests.appliance.line import Line
from tests.appliance.machine import QEMU, ran

MIB = 1 << 20
HEAD = 64 * MIB
SALT = "7469" * 16
U_BOOT = Path("/usr/lib/u-boot/qemu_arm64/u-boot.bin")

# Where the four partitions lie, in MiB: the card is small, its order that of the image's.
BOOT_AT, BOOT_SIZE, SLOT_SIZE, TOTAL = 1, 16, 128, 512
SLOT_AT = {"a": BOOT_AT + BOOT_SIZE, "b": BOOT_AT + BOOT_SIZE + SLOT_SIZE}
DATA_AT = BOOT_AT + BOOT_SIZE + 2 * SLOT_SIZE
FILLER = 8 * MIB                                 # of the root: nothing reads it at a start

INIT = """\
#!/bin/sh
export PATH=/bin
echo "small: up in slot $(cat /run/till/slot)"
while read -r line; do eval "$line"; echo "small: done"; done
"""


class SmallCard:
    """A card at `path`.  `data`, `size`, `hash`: where in a slot root and hash tree lie, in bytes; `cmdline` starts slot a."""

    def __init__(self, path: Path, data: int, size: int, hash_at: int, cmdline: str) -> None:
        self.path, self.data, self.size, self.hash, self.cmdline = path, data, size, hash_at, cmdline

    def copy(self, to: Path) -> SmallCard:
        ran("cp", "--sparse=always", "--reflink=auto", str(self.path), str(to))
        return SmallCard(to, self.data, self.size, self.hash, self.cmdline)

    def sector(self, number: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(number * SECTOR)
            return file.read(SECTOR)

    def state(self) -> BootState:
        """What the box would read; AssertionError when its two copies are not the same."""
        first, second = self.sector(FIRST), self.sector(SECOND)
        assert first == second, "the boot state's two copies differ"
        return read(first, second)

    def set_state(self, state: BootState) -> None:
        self.write(FIRST * SECTOR, encode(state))
        self.write(SECOND * SECTOR, encode(state))

    def write(self, at: int, data: bytes) -> None:
        with self.path.open("r+b") as file:
            file.seek(at)
            file.write(data)

    def flip(self, slot: str, at: int) -> None:
        """One bit of the byte at `at` of the slot."""
        where = SLOT_AT[slot] * MIB + at
        with self.path.open("r+b") as file:
            file.seek(where)
            (byte,) = file.read(1)
            file.seek(where)
            file.write(bytes([byte ^ 0x10]))

    def where(self, slot: str, sought: bytes) -> int:
        """Where in the slot's first 64 MiB these bytes lie."""
        with self.path.open("rb") as file:
            file.seek(SLOT_AT[slot] * MIB)
            found = file.read(HEAD).find(sought)
        assert found >= 0
        return found


def made(image: BuiltImage, folder: Path) -> SmallCard:
    """A new card with the same slot twice and no boot state yet."""
    folder.mkdir(parents=True, exist_ok=True)
    kernel, initrd = (image.folder / "Image").read_bytes(), (image.folder / "initrd").read_bytes()
    squashfs = _root(initrd, folder)
    size = squashfs.stat().st_size
    hash_at = HEAD + -(-size // MIB) * MIB
    tree = folder / "tree"
    tree.unlink(missing_ok=True)
    said = ran("/usr/sbin/veritysetup", "format", "--no-superblock", f"--salt={SALT}", "--data-block-size=4096",
               "--hash-block-size=4096", "--hash=sha256", str(squashfs), str(tree))
    found = re.search(r"Root hash:\s+([0-9a-f]{64})", said)
    assert found, said
    cmdline = (f"console=ttyAMA0,115200 quiet panic=10 till.root={found[1]} till.salt={SALT} till.data={HEAD} till.size={size} "
               f"till.hash={hash_at}")
    head = _fat(folder / "head", HEAD, {
        "Image": kernel, "initrd": initrd,
        "slot.env": (f"version=0.0.1\ncmdline={cmdline}\nimage_crc={u_boot.checksum(kernel)}\n"
                     f"initrd_crc={u_boot.checksum(initrd)}\n").encode()})
    card = SmallCard(folder / "small.img", HEAD, size, hash_at, cmdline)
    with card.path.open("wb") as file:
        file.truncate(TOTAL * MIB)
    card.write(0, _table())
    card.write(BOOT_AT * MIB, _fat(folder / "first", BOOT_SIZE * MIB, {"boot.scr": boot_script.build()}).read_bytes())
    for at in SLOT_AT.values():
        for part, offset in ((head, 0), (squashfs, HEAD), (tree, hash_at)):
            card.write(at * MIB + offset, part.read_bytes())
    return card


class Started:
    """A machine that starts from a card as a box does: U-Boot first.  What it writes is on the card."""

    def __init__(self, card: SmallCard, *argv: str) -> None:
        self._lines = Path(tempfile.mkdtemp(prefix="till-"))
        machine = argv or ("-M", "virt", "-cpu", "cortex-a53", "-smp", "2", "-m", "512", "-bios", str(U_BOOT),
                           "-drive", f"file={card.path},if=none,id=d0,format=raw", "-device", "virtio-blk-pci,drive=d0,romfile=")
        lines = ["-qmp", f"unix:{self._lines}/qmp,server=on,wait=off", "-serial", "chardev:con",
                 "-chardev", f"socket,id=con,path={self._lines}/console,server=on,wait=on"]
        self.process = leash.started(
            [QEMU, *machine, "-accel", "tcg,thread=multi", "-nodefaults", "-no-user-config", "-display", "none", *lines],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.qmp_path = self._lines / "qmp"
        self.console = Line(self._lines / "console")

    def up(self, within_s: float = 90, since: int = 0) -> str:
        """The slot whose root came up."""
        return self.console.expect(rb"small: up in slot ([ab])", within_s, since)[1].decode()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.console.close()
        shutil.rmtree(self._lines)


@contextlib.contextmanager
def started(card: SmallCard, *argv: str) -> Iterator[Started]:
    one = Started(card, *argv)
    try:
        yield one
    finally:
        one.end()


def _root(initrd: bytes, folder: Path) -> Path:
    """A root of busybox alone, out of the initrd, and a file that nothing reads."""
    root = folder / "root"
    shutil.rmtree(root, ignore_errors=True)
    for name in ("bin", "sbin", "dev", "proc", "sys", "run"):
        (root / name).mkdir(parents=True)
    subprocess.run(["cpio", "-i", "--quiet", "bin/busybox"], input=gzip.decompress(initrd), cwd=root, check=True)
    for applet in ("sh", "cat", "echo", "ls", "mount", "reboot", "sync", "dd", "dmesg"):
        (root / "bin" / applet).symlink_to("busybox")
    (root / "bin/start").write_text(INIT)
    (root / "bin/start").chmod(0o755)
    (root / "sbin/init").symlink_to("/bin/start")            # as in Debian: from the root, not from here
    (root / "filler").write_bytes(random.Random(6).randbytes(FILLER))
    out = folder / "squashfs"
    out.unlink(missing_ok=True)
    ran("mksquashfs", str(root), str(out), "-quiet", "-no-progress", "-comp", "zstd", "-Xcompression-level", "1", "-all-root")
    return out


def _fat(out: Path, size: int, files: dict[str, bytes]) -> Path:
    with out.open("wb") as file:
        file.truncate(size)
    ran("/usr/sbin/mkfs.vfat", str(out))
    for name, data in files.items():
        loose = out.with_suffix(".loose")
        loose.write_bytes(data)
        ran("mcopy", "-i", str(out), str(loose), f"::{name}")
        loose.unlink()
    return out


def _table() -> bytes:
    table = bytearray(SECTOR)
    table[440:444], table[510:] = b"TILL", b"\x55\xaa"
    rows = ((0x80, 0x0C, BOOT_AT, BOOT_SIZE), (0, 0x83, SLOT_AT["a"], SLOT_SIZE), (0, 0x83, SLOT_AT["b"], SLOT_SIZE),
            (0, 0x83, DATA_AT, 1))
    for index, (active, kind, at, size) in enumerate(rows):
        struct.pack_into("<B3sB3sII", table, 446 + 16 * index, active, b"\xfe\xff\xff", kind, b"\xfe\xff\xff",
                         at * MIB // SECTOR, size * MIB // SECTOR)
    return bytes(table)
