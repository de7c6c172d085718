"""The kernel: Debian's package, cut down to the modules of a till.  Knows modprobe's and depmod's files; runs nothing of its."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from image import debs, lists
from image.commands import BuildError, run

INDEX_INPUTS = ("modules.order", "modules.builtin", "modules.builtin.modinfo")


def release() -> str:
    """What `uname -r` says on the box, out of the package's name in the list."""
    (name,) = (name for name in lists.names("packages.list", "unpacked") if name.startswith("linux-image-"))
    return name.removeprefix("linux-image-")


def closure(modules: Path, wanted: list[str], kernel: str) -> list[str]:
    """The files of these modules and of all they depend on, sorted, relative to `modules`.  BuildError names a missing one."""
    found: set[str] = set()
    for name in wanted:
        try:
            shown = run("modprobe", "-d", modules, "-S", kernel, "--show-depends", name)
        except BuildError as error:
            raise BuildError(f"modules.list: kernel {kernel} has no module {name}") from error
        found |= {str(Path(path).relative_to(modules)) for path in re.findall(r"^insmod (\S+)", shown, re.M)}
    return sorted(found)


def cut(deb: Path, work: Path) -> Path:
    """A folder with `boot/vmlinuz-*`, `lib/modules/KERNEL` of the listed modules with fresh indexes, and the device trees."""
    kernel = release()
    whole, small = work / "kernel-whole", work / "kernel"
    debs.files_of(deb, whole)
    run("depmod", "-b", whole, kernel)
    keep = closure(whole, lists.names("modules.list"), kernel)
    for name in keep:
        (small / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(whole / name, small / name)
    for name in INDEX_INPUTS:
        if (whole / f"lib/modules/{kernel}" / name).exists():
            shutil.copyfile(whole / f"lib/modules/{kernel}" / name, small / f"lib/modules/{kernel}" / name)
    run("depmod", "-b", small, kernel)
    (small / "boot").mkdir()
    shutil.move(whole / f"boot/vmlinuz-{kernel}", small / "boot")
    shutil.move(whole / f"usr/lib/linux-image-{kernel}", small / "dtbs")
    shutil.rmtree(whole)
    return small
