"""The image that is tested, as `make image` left it, and a card flashed with it.

Knows the names of what `make image` writes and where the first partition begins; refuses to know what is in the slots.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.appliance.machine import Boots, ran
from tests.appliance.rig_archive import appended

ROOT = Path(__file__).resolve().parents[2]
FIRST_SLOT = "till.slot=a"


class NoImage(RuntimeError):
    """There is no image, or a part of it is missing; the sentence says which."""


@dataclasses.dataclass(frozen=True)
class BuiltImage:
    """What `make image` wrote: `folder` holds disk.img, Image, initrd and cmdline, and kernel.deb for the rig's own modules."""

    folder: Path

    @classmethod
    def found(cls) -> BuiltImage:
        """The image of TILLBOX_IMAGE, else of build/image.  NoImage when a file is missing."""
        one = cls(Path(os.environ.get("TILLBOX_IMAGE") or ROOT / "build" / "image").resolve())
        for name in ("disk.img", "Image", "initrd", "cmdline"):
            if not (one.folder / name).exists():
                raise NoImage(f"{one.folder / name} is missing: run make image")
        return one

    def boots(self, card: Path, folder: Path, more: Mapping[str, bytes] | None = None, *, slot: str = FIRST_SLOT) -> Boots:
        """A quick boot of that card, past U-Boot, with the rig; `more` files of the rig.  Its initrd is written into `folder`."""
        initrd = appended(self.folder / "initrd", folder / "initrd-rig", more)
        cmdline = " ".join(((self.folder / "cmdline").read_text().strip(), slot)).strip()
        return Boots(card, self.folder / "Image", initrd, cmdline)

    def flashed(self, card: Path, first: Mapping[str, bytes]) -> Path:
        """A card with the image, and `first` in the folder `tillbox` of its first partition, as whoever flashes it lays them."""
        ran("cp", "--sparse=always", "--reflink=auto", str(self.folder / "disk.img"), str(card))
        lay(card, first)
        return card


def lay(card: Path, files: Mapping[str, bytes]) -> None:
    """`files` into the folder `tillbox` of the card's first partition, which is FAT."""
    at = f"{card}@@{first_partition(card)}"
    folders = sorted({str(parent) for name in files for parent in Path("tillbox", name).parents} - {"."})
    for folder in folders:
        subprocess.run(["mmd", "-D", "s", "-i", at, f"::{folder}"], capture_output=True, timeout=30)
    for name, data in files.items():
        loose = card.with_suffix(".loose")
        loose.write_bytes(data)
        ran("mcopy", "-o", "-i", at, str(loose), f"::tillbox/{name}")
        loose.unlink()


def first_partition(card: Path) -> int:
    """Where the first partition begins, in bytes, by the card's own table."""
    with open(card, "rb") as file:
        sector = file.read(512)
    if sector[510:] != b"\x55\xaa":
        raise NoImage(f"{card} has no partition table")
    return struct.unpack_from("<I", sector, 446 + 8)[0] * 512


def rig_modules(deb: Path, kept: Path) -> dict[str, bytes]:
    """The kernel modules that only tests need, of the image's own kernel: `modules/NAME.ko`, and `modules/order` in which
    they are loaded.  They are unpacked once, to `kept`."""
    tree = kept / deb.resolve().stem
    if not tree.exists():
        half = kept / "half"
        shutil.rmtree(half, ignore_errors=True)
        ran("dpkg-deb", "-x", str(deb.resolve()), str(half))
        version = next((half / "lib" / "modules").iterdir()).name
        (half / "usr").mkdir(exist_ok=True)
        if not (half / "usr" / "lib").exists():
            (half / "usr" / "lib").symlink_to("../lib")
        ran("/sbin/depmod", "-b", str(half), version)
        half.rename(tree)
    version = next((tree / "lib" / "modules").iterdir()).name
    def chain(*wanted: str) -> list[Path]:
        """Those modules behind all that they need, each once."""
        said = [ran("/sbin/modprobe", "-d", str(tree), "-S", version, "--show-depends", name) for name in wanted]
        lines = "".join(said).splitlines()
        return list(dict.fromkeys(Path(line.split()[1]) for line in lines if line.startswith("insmod ")))

    lists = {"port": chain("virtio_console"), "order": chain("dummy_hcd", "libcomposite", "usb_f_hid", "usb_f_printer", "usblp",
                                                             "usbhid", "hid-generic")}
    files = {f"modules/{path.name}": path.read_bytes() for order in lists.values() for path in order}
    return files | {f"modules/{name}": "".join(f"{path.name}\n" for path in order).encode() for name, order in lists.items()}
