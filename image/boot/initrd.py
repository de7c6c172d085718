"""The initrd: busybox, dmsetup with its libraries, the modules that reach a card, and init.sh.  About 2 MB.

Made from the image's own tree and kernel; the machine it is made on gives nothing but `modprobe`, which names a module's
dependencies in order.  There is no udev in it, so each module is loaded by name.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from image.boot.cpio import Entry, archive, file, folder, link, squeezed
from image.boot.elf import needed

INIT = Path(__file__).with_name("init.sh")
LIBRARIES = "usr/lib/aarch64-linux-gnu"
PROGRAMS = ("usr/sbin/dmsetup",)

# The watchdog stands first: without it a Raspberry Pi cannot be started anew.
MODULES = (
    "bcm2835_wdt",
    "virtio_pci", "virtio_mmio", "virtio_blk",
    "fixed", "gpio-regulator", "bcm2835", "sdhci_iproc",
    "reset-raspberrypi", "dwc2", "xhci_pci", "usb_storage", "uas", "sd_mod",
    "sha256_arm64", "sha2_ce",
    "dm_mod", "dm_verity", "squashfs", "overlay", "crc32c_generic", "ext4",
)

# What init.sh calls.  tests/image/test_initrd.py reads the script for words that are missing here.
APPLETS = ("cat", "cut", "cp", "dd", "echo", "insmod", "kill", "ln", "ls", "mkdir", "mount", "mv", "reboot", "rm", "sh", "sleep",
           "switch_root", "sync", "tar", "umount", "usleep", "[")


def build(read: Callable[[str], bytes], modules: Path, kernel: str, epoch: int = 0) -> bytes:
    """The whole initrd, packed.  `read` gives a file of the tree by its path (a link at the end is followed); `modules` is a
    folder with lib/modules/KERNEL after depmod.  `epoch` changes nothing: no time is in it.  Raises what `read` raises, and
    CalledProcessError when a module is not in that kernel.
    """
    return squeezed(archive(entries(read, modules, kernel)))


def entries(read: Callable[[str], bytes], modules: Path, kernel: str) -> dict[str, Entry]:
    """Every file of it by path."""
    found = {path: folder() for path in ("dev", "proc", "sys", "run", "sbin")}
    found["init"] = file(INIT.read_bytes(), 0o755)
    found["bin/busybox"] = file(read("usr/bin/busybox"), 0o755)
    found |= {f"bin/{applet}": link("busybox") for applet in APPLETS}
    for program in PROGRAMS:
        found["sbin/" + PurePosixPath(program).name] = file(read(program), 0o755)
        found |= {path: file(data, 0o755) for path, data in _libraries(read, read(program))}
    order = []
    for path in _modules(modules, kernel):
        found[f"modules/{path.name}"] = file(path.read_bytes())
        order.append(path.name)
    found["modules/order"] = file("".join(f"{name}\n" for name in order).encode())
    return found


def _libraries(read: Callable[[str], bytes], program: bytes) -> Iterator[tuple[str, bytes]]:
    """Where the loader looks for each library that `program` needs, and the library; the loader itself as well."""
    seen: set[str] = set()
    left = [*needed(program)]
    while left:
        name = PurePosixPath(left.pop()).name
        if name in seen:
            continue
        seen.add(name)
        data = read(f"{LIBRARIES}/{name}")
        left += needed(data)
        yield (f"lib/{name}" if name.startswith("ld-") else f"lib/aarch64-linux-gnu/{name}"), data


def _modules(modules: Path, kernel: str) -> list[Path]:
    """Files to load, each after what it leans on, each once."""
    ask = ["modprobe", "-d", os.fspath(modules), "-S", kernel, "--show-depends", "-a", *MODULES]
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    said = subprocess.run(ask, check=True, capture_output=True, text=True, env={**os.environ, "PATH": path})
    paths = [Path(line.split()[1]) for line in said.stdout.splitlines() if line.startswith("insmod ")]
    return list(dict.fromkeys(paths))
